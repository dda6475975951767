"""The divergence triangle (Han et al., arXiv 1812.10907): an energy, a generator and an encoder, without chains.

With Q = q_data(x) q(z|x), P = p(z) p(x|z) and Pi = exp(-E(x)) / Z q(z|x), the generator and the encoder minimise, and
the energy maximises,

    KL(Q|P) + KL(P|Pi) - KL(Q|Pi),

in which Z cancels. An image of P is the generator's mean in the two divergences from Pi, as in the public code. The
networks are convolutions that halve or double the resolution; only the generator has batch norm.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from jlebm.backbones.layers import FromPoint, smallest_side
from jlebm.backbones.protocol import Backbone
from jlebm.distributions import SIGMA_FLOOR, Normal
from jlebm.errors import UserError
from jlebm.learning.trainable import TrainingConfig
from jlebm.networks import SLOPE
from jlebm.randomness import Noise
from reproduce.systems.system import Adam, BaselineExperiment, Optimizers, System, flipped, hour_of
from reproduce.systems.turns import Turn


@dataclass(frozen=True)
class DivergenceTriangleConfig:
    """Networks and weights; the defaults are those of the public CIFAR-10 code (docs/facts, "Other systems")."""

    image_shape: tuple[int, int, int] = (3, 32, 32)
    latent_dim: int = 100
    generator_channels: tuple[int, ...] = (512, 512, 256, 128)
    """Feature maps from the smallest resolution up; each but the first doubles the resolution."""
    energy_channels: tuple[int, ...] = (64, 128, 256, 256)
    """Feature maps from the image down; each but the first halves the resolution."""
    encoder_channels: tuple[int, ...] = (64, 128, 256, 512)
    """The same for the encoder."""
    likelihood_sigma: float = 0.5**0.5
    """Standard deviation of p(x|z), on images in [-1, 1]; the public code sums squared errors: sqrt(1/2)."""
    kl_weight: float = 0.01
    """Weight of KL(q(z|x) | p(z)), 1 in the definition; the public code averages it over 100 dimensions."""
    latent_weight: float = 0.1
    """Weight of -log q(z|x) on generated pairs, 1 in the definition."""
    energy_l2: float = 0.0
    """Weight of the squared energies, which keeps them near 0; the public code has none."""
    flip: bool = False
    """Whether training images are mirrored at random."""

    def __post_init__(self) -> None:
        """Refuse sizes that make no networks."""
        for channels in (self.generator_channels, self.energy_channels, self.encoder_channels):
            smallest_side(self.image_shape, channels)
        if self.latent_dim < 1 or not self.likelihood_sigma > 0:
            raise UserError("model.latent_dim and model.likelihood_sigma must be positive")
        if min(self.kl_weight, self.latent_weight, self.energy_l2) < 0:
            raise UserError("model.kl_weight, model.latent_weight and model.energy_l2 must not be negative")


def _upward(config: DivergenceTriangleConfig) -> nn.Sequential:
    """Return the generator: transposed convolutions from 1x1 to the image."""
    channels = config.generator_channels
    side = smallest_side(config.image_shape, channels)
    layers: list[nn.Module] = [
        nn.Unflatten(1, (config.latent_dim, 1, 1)),
        FromPoint(config.latent_dim, channels[0], side, bias=False),
    ]
    for before, after in itertools.pairwise(channels):
        layers += [nn.BatchNorm2d(before), nn.ReLU()]
        layers += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)]
    layers += [nn.BatchNorm2d(channels[-1]), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(channels[-1], config.image_shape[0], 3, padding=1), nn.Tanh())


def _downward(
    image_shape: tuple[int, int, int], channels: tuple[int, ...], outputs: int, bias: bool = True
) -> nn.Sequential:
    """Return convolutions from the image to `outputs` numbers, with or without a bias."""
    layers: list[nn.Module] = [nn.Conv2d(image_shape[0], channels[0], 3, padding=1), nn.LeakyReLU(SLOPE)]
    for before, after in itertools.pairwise(channels):
        layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
    side = smallest_side(image_shape, channels)
    return nn.Sequential(*layers, nn.Conv2d(channels[-1], outputs, side, bias=bias), nn.Flatten())


class DivergenceTriangle(System):
    """Energy, generator and encoder."""

    def __init__(self, config: DivergenceTriangleConfig):
        super().__init__()
        self.config = config
        # An additive constant of the energy cancels with Z and would have no gradient.
        self.energy = _downward(config.image_shape, config.energy_channels, 1, bias=False)
        self.encoder = _downward(config.image_shape, config.encoder_channels, 2 * config.latent_dim)
        self.generator = _upward(config)

    def posterior(self, x: Float[Tensor, "batch channels height width"]) -> Normal:
        """Return q(z|x)."""
        mean, log_sigma = self.encoder(x).chunk(2, dim=1)
        return Normal.from_log_sigma(mean, log_sigma, SIGMA_FLOOR)

    def reconstruction(
        self, x: Float[Tensor, "batch channels height width"], mean: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, ""]:
        """Return -log p(x|z) in nats per image, if the generator gives `mean` at z."""
        return -Normal.constant_sigma(mean, self.config.likelihood_sigma).log_prob(x).mean()

    def turns(
        self,
        x: Float[Tensor, "batch channels height width"],
        labels: Int64[Tensor, " batch"] | None,
        noise: Noise,
        step: int,
    ) -> Iterator[Turn]:
        """Yield the updates of the energy, the encoder and the generator."""
        config = self.config
        if config.flip:
            x = flipped(x, noise)
        z, eps = noise((x.new_empty(len(x), config.latent_dim),) * 2)
        posterior = self.posterior(x)
        samples, seen = self._generated(z, posterior.sample(eps))

        on_data, on_samples = self.energy(x), self.energy(samples)
        contrast = on_data.mean() - on_samples.mean()
        penalty = config.energy_l2 * (on_data.square().mean() + on_samples.square().mean())
        figures = {"energy_data": on_data.mean(), "energy_samples": on_samples.mean()}
        yield Turn("energy", contrast + penalty, figures)

        kl = posterior.kl(Normal.constant_sigma(torch.zeros_like(z), 1.0)).mean()
        # Through batch norm, samples depend on the reconstructions in the batch; P does not depend on the encoder.
        latent = -self.posterior(samples.detach()).log_prob(z).mean()
        loss = self.reconstruction(x, seen) + config.kl_weight * kl + config.latent_weight * latent
        yield Turn("encoder", loss, {"kl": kl, "latent": latent})

        samples, seen = self._generated(z, self.posterior(x).sample(eps))
        reconstruction = self.reconstruction(x, seen)
        latent = -self.posterior(samples).log_prob(z).mean()
        loss = reconstruction + self.energy(samples).mean() + config.latent_weight * latent
        yield Turn("generator", loss, {"reconstruction": reconstruction})

    def _generated(
        self, z: Float[Tensor, "batch latent"], inferred: Float[Tensor, "batch latent"]
    ) -> tuple[Float[Tensor, "batch channels height width"], Float[Tensor, "batch channels height width"]]:
        """Return images from prior and from posterior latents.

        They are one batch, so that the batch statistics in training match the running ones used in sampling.
        """
        samples, seen = self.generator(torch.cat((z, inferred))).chunk(2)
        return samples, seen

    def draw(self, count: int, noise: Noise) -> Float[Tensor, "batch channels height width"]:
        """Return images generated from latents of N(0, I)."""
        (z,) = noise((self.empty(count, self.config.latent_dim),))
        return self.generator(z)


@dataclass(frozen=True)
class ThreeNetworks(Optimizers):
    """Optimisers of energy, encoder and generator; the defaults are the public code's."""

    largest_gradient: float | None = 100.0
    energy: Adam = field(default_factory=lambda: Adam(1e-4, beta1=0.5))
    encoder: Adam = field(default_factory=lambda: Adam(3e-4, beta1=0.5))
    generator: Adam = field(default_factory=lambda: Adam(3e-4, beta1=0.5, weight_decay=5e-4))


@dataclass(frozen=True)
class DivergenceTriangleExperiment(BaselineExperiment):
    """Configuration of the divergence triangle."""

    learning: Literal["divergence-triangle"] = "divergence-triangle"
    model: DivergenceTriangleConfig = field(default_factory=DivergenceTriangleConfig)
    optimizer: ThreeNetworks = field(default_factory=ThreeNetworks)

    def build(self, backbone: Backbone | None = None) -> DivergenceTriangle:
        """See `BaselineExperiment`."""
        return DivergenceTriangle(self.model)


# ---- presets

PRESETS = {
    "tiny": DivergenceTriangleExperiment(
        "tiny",
        model=DivergenceTriangleConfig(
            latent_dim=16,
            generator_channels=(16, 16, 8, 8),
            energy_channels=(8, 8, 16, 16),
            encoder_channels=(8, 8, 16, 16),
            energy_l2=0.05,
        ),
        optimizer=ThreeNetworks(
            energy=Adam(3e-4, beta1=0.5), encoder=Adam(1e-3, beta1=0.5), generator=Adam(1e-3, beta1=0.5)
        ),
        training=TrainingConfig(steps=101, batch_size=16),
    ),
    # Five minutes on one CPU core. So short a training cannot recover from diverging energies, so their
    # squares are penalised; nor can the energy alone fill the prior's holes, so the KL has its full weight.
    "cpu": DivergenceTriangleExperiment(
        "cpu",
        model=DivergenceTriangleConfig(
            latent_dim=64,
            generator_channels=(128, 64, 32, 16),
            energy_channels=(16, 32, 64, 64),
            encoder_channels=(16, 32, 64, 128),
            kl_weight=1.0,
            energy_l2=0.05,
            flip=True,
        ),
        optimizer=ThreeNetworks(
            energy=Adam(1e-4, beta1=0.5), encoder=Adam(1e-3, beta1=0.5), generator=Adam(1e-3, beta1=0.5)
        ),
        training=TrainingConfig(steps=1_800, batch_size=32),
    ),
    # The public networks for 20 minutes on one data-centre GPU; not measured.
    "budget": DivergenceTriangleExperiment(
        "budget",
        model=DivergenceTriangleConfig(kl_weight=1.0, energy_l2=0.05, flip=True),
        training=TrainingConfig(steps=1_000_000, batch_size=100, budget_seconds=1200.0),
    ),
    # arXiv 1812.10907 and its public CIFAR-10 code: 1,500 epochs of 500 batches; its rates fall by 0.2 % an epoch,
    # which is left out here. Table 2 reports FID 30.10.
    "paper": DivergenceTriangleExperiment(
        "paper",
        training=TrainingConfig(steps=750_000, batch_size=100),
    ),
}
PRESETS["long"] = hour_of(PRESETS["cpu"])
