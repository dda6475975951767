"""VAEBM (Xiao, Kreis, Kautz and Vahdat, arXiv 2010.00654): an energy of pixels on a frozen NVAE.

The density is exp(-E(x)) p(x|z) p(z) / Z. Its chains move in whitened noise, z = T(eps_z) and x = mu(z) + sigma(z)
eps_x, where the base is N(0, I). The public code uses log p(x|z) + log p(z) at that point, without
the log-Jacobian, as its base term; both drifts exist by name, as for the energies of latents (docs/facts, "Whitened
noise").
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, normalize, pixel_unshuffle, silu

from jlebm import langevin
from jlebm.backbones.nvae import NVAE, NVAEConfig
from jlebm.backbones.protocol import Backbone
from jlebm.choices import Drift
from jlebm.distributions import Normal
from jlebm.errors import UserError
from jlebm.langevin import Chain
from jlebm.latents import Latents, standard_normal_log_prob
from jlebm.learning.trainable import TrainingConfig
from jlebm.randomness import Noise
from reproduce.systems.nvae_backbones import BACKBONES
from reproduce.systems.system import Adam, OnBackbone, OneNetwork, System, hour_of
from reproduce.systems.turns import Turn


@dataclass(frozen=True)
class PixelEnergyConfig:
    """Sizes of the energy network."""

    channels: tuple[int, ...] = (128, 256, 256)
    """Channels of each stage, which halves the resolution."""
    blocks: int = 2
    """Residual blocks per stage; the first one reduces the resolution."""
    patch: int = 1
    """Side of the squares of pixels that become channels before the network; the time falls with its square."""

    def __post_init__(self) -> None:
        """Refuse an empty network."""
        if not self.channels or min(self.channels) < 1 or self.blocks < 1 or self.patch < 1:
            raise UserError("energy.channels, energy.blocks and energy.patch must be positive")


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, down: bool):
        super().__init__()
        self.down = down
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, h: Tensor) -> Tensor:
        out = self.skip(h) + self.second(silu(self.first(silu(h))))
        return avg_pool2d(out, 2) if self.down else out


class PixelEnergy(nn.Module):
    """E(x), a residual network with a penalty on its convolutions' spectral norms."""

    def __init__(self, image_channels: int, config: PixelEnergyConfig):
        super().__init__()
        self.patch = config.patch
        inputs = config.channels[0]
        layers: list[nn.Module] = [nn.Conv2d(image_channels * config.patch**2, inputs, 3, padding=1)]
        for channels in config.channels:
            for block in range(config.blocks):
                layers.append(_Residual(inputs, channels, down=block == 0))
                inputs = channels
        self.features, self.out = nn.Sequential(*layers), nn.Linear(inputs, 1)
        for index, matrix in enumerate(self._matrices()):
            self.register_buffer(f"u{index}", normalize(torch.randn(len(matrix)), dim=0))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
        """Return the energy of each image; lower is likelier."""
        h = self.features(pixel_unshuffle(x, self.patch))
        return self.out(silu(h).sum((2, 3)))[:, 0]

    def _matrices(self) -> list[Tensor]:
        return [each.weight.flatten(1) for each in self.modules() if isinstance(each, nn.Conv2d | nn.Linear)]

    def spectral_norms(self) -> Float[Tensor, ""]:
        """Return the sum of the weights' largest singular values, by one step of a power iteration kept in buffers."""
        norms = []
        for index, matrix in enumerate(self._matrices()):
            u = self.get_buffer(f"u{index}")
            with torch.no_grad():
                v = normalize(u @ matrix, dim=0)
                u.copy_(normalize(matrix @ v, dim=0))
            norms.append(u.clone() @ matrix @ v)
        return torch.stack(norms).sum()


@dataclass(frozen=True)
class EnergyInNoise:
    """Log-density of (eps_z, eps_x), eps_x last; without eps_x, the energy is that of the decoder's mean.

    `exact` leaves N(0, I) invariant at zero energy; `released` is what the public code differentiates.
    """

    backbone: NVAE
    energy: Callable[[Tensor], Float[Tensor, " batch"]]
    drift: Drift = "exact"

    def images(self, position: Latents) -> tuple[Float[Tensor, "batch channels height width"], Latents, Normal]:
        """Return x, z and p(x|z) at a position."""
        layers = len(self.backbone.latent_shapes)
        z = self.backbone.push(position[:layers])
        decoded = self.backbone.decode(z)
        assert isinstance(decoded, Normal)
        return decoded.sample(position[layers]) if len(position) > layers else decoded.mean, z, decoded

    def __call__(self, position: Latents) -> Float[Tensor, " batch"]:
        """Return -E(x) plus the base term of the chosen drift."""
        x, z, decoded = self.images(position)
        if self.drift == "exact":
            return standard_normal_log_prob(position) - self.energy(x)
        base = self.backbone.prior_log_prob(z)
        if len(position) > len(z):
            base = base + decoded.log_prob(x)
        return base - self.energy(x)


@dataclass(frozen=True)
class VAEBMConfig:
    """Network, loss and chains; the defaults are the public CIFAR-10 run's (docs/facts, "Other systems")."""

    network: PixelEnergyConfig = field(default_factory=PixelEnergyConfig)
    spectral: float = 0.2
    """Weight of the spectral norms in the loss."""
    l2: float = 0.0
    """Weight of the squared energies in the loss."""
    train_chain: Chain = field(default_factory=lambda: Chain.from_two_stage_paper(10, 8e-5, "released"))
    chain: Chain = field(default_factory=lambda: Chain.from_two_stage_paper(16, 8e-5, "released"))
    """Chain of sampling."""
    image: Literal["sample", "mean"] = "sample"
    """Images that the energy sees and that are sampled: mu + sigma eps_x, or, an option of the public code, the
    decoder's mean, whose chains move in eps_z only."""

    def __post_init__(self) -> None:
        """Refuse negative weights, and chains that do not move in whitened noise."""
        if not (self.spectral >= 0 and self.l2 >= 0):
            raise UserError("energy.spectral and energy.l2 must not be negative")
        if self.train_chain.space != "noise" or self.chain.space != "noise":
            raise UserError("energy.train_chain and energy.chain move in whitened noise; set their space to 'noise'")


class VAEBM(System):
    """The energy, on a frozen backbone that is not part of the system's state."""

    gpu_batch = 100  # its chains go back through a deep hierarchy

    def __init__(self, config: VAEBMConfig, backbone: NVAE):
        super().__init__()
        if backbone.config.bernoulli or backbone.config.num_mixture_dec != 1:
            raise UserError("VAEBM whitens the pixels of a Gaussian decoder; the backbone's num_mixture_dec must be 1")
        self.config, self._frozen = config, (backbone,)
        self.network = PixelEnergy(backbone.config.image_channels, config.network)

    @property
    def backbone(self) -> NVAE:
        """The frozen backbone."""
        return self._frozen[0]

    def chained(self, count: int, chain: Chain, noise: Noise) -> Float[Tensor, "batch channels height width"]:
        """Run chains from N(0, I) and return their last images, without a graph and not clipped."""
        shapes = self.backbone.latent_shapes
        if self.config.image == "sample":
            shapes = (*shapes, self.backbone.config.image_shape)
        start = noise(tuple(self.empty(count, *shape) for shape in shapes))
        density = EnergyInNoise(self.backbone, self.network, chain.drift)
        end = langevin.run(start, density, chain, noise)
        with torch.no_grad():
            return density.images(end)[0]

    def turns(
        self,
        x: Float[Tensor, "batch channels height width"],
        labels: Int64[Tensor, " batch"] | None,
        noise: Noise,
        step: int,
    ) -> Iterator[Turn]:
        """Yield the update of the energy: lower at images, higher at the chains' ends."""
        negative = self.chained(len(x), self.config.train_chain, noise)
        data, model = self.network(x), self.network(negative)
        norms = self.network.spectral_norms()
        loss = data.mean() - model.mean() + self.config.spectral * norms
        if self.config.l2:
            loss = loss + self.config.l2 * (data.square().mean() + model.square().mean())
        figures = {"loss": loss, "energy_data": data.mean(), "energy_model": model.mean(), "spectral_norms": norms}
        yield Turn("network", loss, figures)

    def draw(self, count: int, noise: Noise) -> Float[Tensor, "batch channels height width"]:
        """Return the last images of chains of the test-time length."""
        return self.chained(count, self.config.chain, noise)


@dataclass(frozen=True)
class VAEBMExperiment(OnBackbone):
    """Configuration of VAEBM; the defaults, except the length, are the public CIFAR-10 run's."""

    model: NVAEConfig
    learning: Literal["vaebm"] = "vaebm"
    energy: VAEBMConfig = field(default_factory=VAEBMConfig)
    optimizer: OneNetwork = field(default_factory=lambda: OneNetwork(network=Adam(4e-5, beta1=0.99, weight_decay=3e-5)))

    def build(self, backbone: Backbone | None = None) -> VAEBM:
        """See `BaselineExperiment`."""
        if not isinstance(backbone, NVAE):
            raise UserError("VAEBM needs a trained NVAE, and was given none")
        return VAEBM(self.energy, backbone)

    def describe_sampling(self) -> str:
        """See `BaselineExperiment`."""
        return f"{self.energy.chain.describe()}; decoder's {self.energy.image}"


# ---- presets

PRESETS = {
    "tiny": VAEBMExperiment(
        "tiny",
        model=BACKBONES["tiny"],
        energy=VAEBMConfig(
            PixelEnergyConfig(channels=(8, 16), blocks=1, patch=4),
            spectral=0.02,
            l2=1e-3,
            train_chain=Chain.from_two_stage_paper(3, 0.01),
            chain=Chain.from_two_stage_paper(3, 0.01),
        ),
        optimizer=OneNetwork(ema_decay=0.9, network=Adam(1e-3)),
        training=TrainingConfig(steps=61, batch_size=8),
    ),
    # Five minutes on one CPU core, plus half an hour for the backbone. So small a decoder has a large sigma, so
    # the energy sees its mean, as in the rows of the other priors.
    "cpu": VAEBMExperiment(
        "cpu",
        model=BACKBONES["cpu"],
        energy=VAEBMConfig(
            PixelEnergyConfig(channels=(32, 64), blocks=1, patch=2),
            spectral=0.02,
            l2=1e-3,
            train_chain=Chain.from_two_stage_paper(5, 0.02),
            chain=Chain.from_two_stage_paper(6, 0.02),
            image="mean",
        ),
        optimizer=OneNetwork(largest_gradient=10.0, ema_decay=0.99, network=Adam(5e-4, warmup=50)),
        training=TrainingConfig(steps=420, batch_size=32),
    ),
    # 20 minutes on one data-centre GPU, plus 20 for the backbone; not measured.
    "budget": VAEBMExperiment(
        "budget",
        model=BACKBONES["budget"],
        energy=VAEBMConfig(
            PixelEnergyConfig(channels=(64, 128, 128)),
            l2=1e-3,
            train_chain=Chain.from_two_stage_paper(10, 1e-3),
            chain=Chain.from_two_stage_paper(16, 1e-3),
        ),
        optimizer=OneNetwork(largest_gradient=10.0, ema_decay=0.999, network=Adam(1e-4, warmup=200)),
        training=TrainingConfig(steps=1_000_000, batch_size=32, budget_seconds=1200.0),
    ),
    # The public run: 30,000 steps of 32 images on one V100, chains of 10 steps in training and of 16 at test, variance
    # 8e-5, weight 0.2 of the spectral norms. The network is of the same kind with sizes chosen here, and the optional
    # replay buffer is left out. The paper reports IS 8.43 and FID 12.19.
    "paper": VAEBMExperiment(
        "paper",
        model=BACKBONES["paper"],
        training=TrainingConfig(steps=30_000, batch_size=32),
    ),
}
PRESETS["long"] = hour_of(PRESETS["cpu"])
