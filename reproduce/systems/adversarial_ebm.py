"""Adversarial EBM: an adversarially trained binary classifier as an energy (Yin, Li and Rohde, arXiv 2012.06568).

The classifier separates training images from out-of-distribution images that have climbed its own logit for a number of
steps, which grows during training. E(x) is minus the logit, and a sample is an out-of-distribution image after the same
ascent.

The paper's out-of-distribution images are 80 Million Tiny Images, which have been withdrawn. Here they are coloured
Gaussian noise with the spectrum of natural images (arXiv 2106.05963). The network is a residual one with group norm,
which is the same function during the ascent and in training.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import softplus

from jlebm.backbones.protocol import Backbone
from jlebm.errors import UserError
from jlebm.learning.trainable import TrainingConfig
from jlebm.randomness import Noise
from reproduce.systems.system import Adam, BaselineExperiment, OneNetwork, System, flipped, hour_of
from reproduce.systems.turns import Turn


@dataclass(frozen=True)
class AdversarialEBMConfig:
    """Network, ascents and their starting points; the defaults, except those two, are the public code's for CIFAR-10.

    Step sizes are in units of images in [-1, 1], twice the public code's, whose images are in [0, 1].
    """

    image_shape: tuple[int, int, int] = (3, 32, 32)
    channels: tuple[int, ...] = (64, 128, 256, 512)
    """Channels at each resolution, the finest first."""
    blocks: int = 2
    """Residual blocks per resolution."""
    norm_groups: int = 8
    patch: int = 1
    """Side of the squares of pixels that become channels before the network."""
    steps: int = 25
    """Largest number of ascent steps in training."""
    grow_every: int = 7_800
    """Training steps after which the ascent, which begins with no steps, gets one more: five epochs of 32 images, as in
    the public code, which shortens them when the classes are separated well."""
    step_size: float = 0.2
    """Euclidean length of a step."""
    data_steps: int = 5
    """Steps that training images descend before the classifier sees them."""
    sampler_steps: int = 32
    sampler_step_size: float = 0.4
    r1_weight: float = 0.04
    """Weight of half the squared gradient at training images: four times the public code's, as gradients are half as
    long."""
    start_exponent: float = 1.0
    """Power of the frequency with which amplitudes of the starting images fall."""
    start_sigma: float = 0.5
    """Standard deviation of the starting images' pixels, before they are clipped to [-1, 1]."""
    start_correlation: float = 0.9
    """Correlation between the channels of the starting images."""
    flip: bool = True
    """Whether training images are mirrored at random."""

    def __post_init__(self) -> None:
        """Refuse networks that cannot be built and ascents that would not climb."""
        side = self.patch * 2 ** (len(self.channels) - 1)
        if self.patch < 1 or not self.channels or any(extent % side for extent in self.image_shape[1:]):
            raise UserError(f"images of {self.image_shape} cannot be halved {len(self.channels) - 1} times")
        if any(count % self.norm_groups for count in self.channels):
            raise UserError(f"model.channels {self.channels} are not divisible into {self.norm_groups} norm_groups")
        if min(self.steps, self.data_steps) < 0 or min(self.sampler_steps, self.grow_every, self.blocks) < 1:
            raise UserError(
                "model.sampler_steps, grow_every and blocks must be positive, steps and data_steps not less"
            )
        if not min(self.step_size, self.sampler_step_size, self.start_sigma) > 0 or self.r1_weight < 0:
            raise UserError("model's step sizes and start_sigma must be positive, its r1_weight not negative")
        if not 0 <= self.start_correlation <= 1:
            raise UserError(f"model.start_correlation must lie in [0, 1], not be {self.start_correlation}")

    def steps_at(self, step: int) -> int:
        """Return the number of ascent steps after this many training steps."""
        return min(step // self.grow_every, self.steps)


class Residual(nn.Module):
    """Residual block of two convolutions."""

    def __init__(self, inputs: int, outputs: int, norm_groups: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(norm_groups, inputs),
            nn.SiLU(),
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.GroupNorm(norm_groups, outputs),
            nn.SiLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        self.around = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Float[Tensor, "batch inputs height width"]) -> Float[Tensor, "batch outputs height width"]:
        """Return feature maps of the same resolution."""
        return self.around(x) + self.body(x)


def classifier(config: AdversarialEBMConfig) -> nn.Sequential:
    """Return the network, which maps images to logits of shape (batch, 1)."""
    channels, groups = config.channels, config.norm_groups
    layers: list[nn.Module] = [
        nn.PixelUnshuffle(config.patch),
        nn.Conv2d(config.image_shape[0] * config.patch**2, channels[0], 3, padding=1),
    ]
    for depth, (before, after) in enumerate(itertools.pairwise((channels[0], *channels))):
        if depth > 0:
            layers.append(nn.AvgPool2d(2))
        layers.append(Residual(before, after, groups))
        layers += [Residual(after, after, groups) for _ in range(config.blocks - 1)]
    head = (nn.GroupNorm(groups, channels[-1]), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, *head, nn.Linear(channels[-1], 1))


def coloured(
    white: Float[Tensor, "batch channels height width"], config: AdversarialEBMConfig
) -> Float[Tensor, "batch channels height width"]:
    """Turn standard normal pixels into out-of-distribution images in [-1, 1]."""
    count, height, width = white.shape[1:]
    frequencies = [torch.fft.fftfreq(extent, device=white.device) for extent in (height, width)]
    radius = (frequencies[0][:, None].square() + frequencies[1].square()).sqrt()
    # The mean of an image varies as much as its lowest frequencies.
    amplitude = radius.clamp_min(1 / max(height, width)) ** -config.start_exponent
    amplitude = amplitude * config.start_sigma / amplitude.square().mean().sqrt()
    waves = torch.fft.ifft2(torch.fft.fft2(white) * amplitude).real
    # The symmetric square root of a matrix with ones on the diagonal and the correlation elsewhere.
    alone = (1 - config.start_correlation) ** 0.5
    together = (1 + (count - 1) * config.start_correlation) ** 0.5
    return (alone * waves + (together - alone) * waves.mean(1, keepdim=True)).clamp(-1, 1)


class AdversarialEBM(System):
    """The classifier, the only part that learns."""

    def __init__(self, config: AdversarialEBMConfig):
        super().__init__()
        self.config = config
        self.network = classifier(config)

    def ascended(
        self, x: Float[Tensor, "batch channels height width"], steps: int, step_size: float
    ) -> Float[Tensor, "batch channels height width"]:
        """Return images after steps of one length along the logit's gradient, each clipped to [-1, 1].

        Args:
            x: starting images.
            steps: number of steps.
            step_size: Euclidean length of each step; negative for a descent.
        """
        for _ in range(steps):
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(self.network(leaf).sum(), leaf)
            length = gradient.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
            x = (x.detach() + step_size * gradient / length).clamp(-1, 1)
        return x

    def turns(
        self,
        x: Float[Tensor, "batch channels height width"],
        labels: Int64[Tensor, " batch"] | None,
        noise: Noise,
        step: int,
    ) -> Iterator[Turn]:
        """Yield the update of the classifier: images after a short descent against starting images after the ascent."""
        config = self.config
        if config.flip:
            x = flipped(x, noise)
        climbed = self.ascended(coloured(noise((x,))[0], config), config.steps_at(step), config.step_size)
        data = self.ascended(x, config.data_steps, -config.step_size).detach().requires_grad_()
        on_data, on_climbed = self.network(data), self.network(climbed)
        loss = 0.5 * (softplus(-on_data).mean() + softplus(on_climbed).mean())
        (gradient,) = torch.autograd.grad(on_data.sum(), data, create_graph=True)
        penalty = 0.5 * config.r1_weight * gradient.square().flatten(1).sum(1).mean()
        figures = {"loss": loss, "energy_data": -on_data.mean(), "energy_samples": -on_climbed.mean()}
        yield Turn("network", loss + penalty, figures)

    def draw(self, count: int, noise: Noise) -> Float[Tensor, "batch channels height width"]:
        """Return out-of-distribution images after the ascent of training."""
        config = self.config
        starts = coloured(noise((self.empty(count, *config.image_shape),))[0], config)
        return self.ascended(starts, config.sampler_steps, config.sampler_step_size)


@dataclass(frozen=True)
class AdversarialEBMExperiment(BaselineExperiment):
    """Configuration of the adversarial EBM."""

    learning: Literal["adversarial-ebm"] = "adversarial-ebm"
    model: AdversarialEBMConfig = field(default_factory=AdversarialEBMConfig)
    optimizer: OneNetwork = field(default_factory=lambda: OneNetwork(network=Adam(5e-4, beta1=0.0, beta2=0.99)))

    def build(self, backbone: Backbone | None = None) -> AdversarialEBM:
        """See `BaselineExperiment`."""
        return AdversarialEBM(self.model)

    def describe_sampling(self) -> str:
        """See `BaselineExperiment`."""
        return f"{self.model.sampler_steps} steps of length {self.model.sampler_step_size:g} from coloured noise"


# ---- presets

PRESETS = {
    # Patches of 2 x 2 pixels make the small sizes four times as fast. Fewer steps are longer.
    "tiny": AdversarialEBMExperiment(
        "tiny",
        model=AdversarialEBMConfig(
            channels=(8, 16),
            blocks=1,
            norm_groups=4,
            patch=2,
            steps=3,
            grow_every=25,
            step_size=1.0,
            data_steps=1,
            sampler_steps=3,
            sampler_step_size=1.0,
        ),
        optimizer=OneNetwork(network=Adam(2e-3, beta1=0.0, beta2=0.99)),
        training=TrainingConfig(steps=101, batch_size=16),
    ),
    # Five minutes on one CPU core.
    "cpu": AdversarialEBMExperiment(
        "cpu",
        model=AdversarialEBMConfig(
            channels=(32, 64),
            blocks=1,
            patch=2,
            steps=8,
            grow_every=130,
            step_size=1.0,
            data_steps=1,
            sampler_steps=10,
            sampler_step_size=1.0,
        ),
        training=TrainingConfig(steps=1_300, batch_size=32),
    ),
    # For 20 minutes on one data-centre GPU; not measured.
    "budget": AdversarialEBMExperiment(
        "budget",
        model=AdversarialEBMConfig(channels=(64, 128, 256), blocks=1, steps=15, grow_every=500, step_size=0.4),
        training=TrainingConfig(steps=1_000_000, batch_size=64, budget_seconds=1200.0),
    ),
    # arXiv 2012.06568 and its public code: 26 levels of five epochs of 32 images, a ResNet-50 and 80 Million Tiny
    # Images for the network and the starts here. Table 2 reports IS 9.10 and FID 13.21.
    "paper": AdversarialEBMExperiment(
        "paper",
        training=TrainingConfig(steps=202_800, batch_size=32),
    ),
}
PRESETS["long"] = hour_of(PRESETS["cpu"], replace(PRESETS["cpu"].model, grow_every=1_560))
