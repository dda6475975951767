"""NCSN (Song and Ermon, arXiv 1907.05600): the score of images at several noise levels, sampled by annealed chains.

The network gives sigma times the score, whose size is the same at all levels (arXiv 2006.09011, technique 3; the first
paper gives its network the level instead). The loss is denoising score matching weighted by sigma^2, their Eq. 6.
Levels and step sizes are for images in [-1, 1]: twice and four times the paper's, whose images are in [0, 1].
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from jlebm.backbones.protocol import Backbone
from jlebm.errors import UserError
from jlebm.learning.trainable import TrainingConfig
from jlebm.randomness import Noise
from reproduce.systems.system import Adam, BaselineExperiment, OneNetwork, System, flipped, hour_of
from reproduce.systems.turns import Turn, integers, uniform
from reproduce.systems.unet import UNet, UNetConfig


@dataclass(frozen=True)
class NCSNConfig(UNetConfig):
    """Network, levels and chains; the defaults are the paper's CIFAR-10 levels and chains on DDPM's network."""

    levels: int = 10
    sigma_first: float = 2.0
    sigma_last: float = 0.02
    """The levels are a geometric sequence from the first to the last."""
    chain_steps: int = 100
    """Langevin steps at each level."""
    step_size: float = 8e-5
    """Step size at the last level in the paper's notation: the noise has this variance, the drift half this factor.
    It grows with sigma^2."""
    denoise: bool = False
    """Whether the last position is replaced by the mean of the image given it (arXiv 2009.05475)."""
    flip: bool = True
    """Whether training images are mirrored at random."""

    def __post_init__(self) -> None:
        """Refuse levels that do not fall, and chains without steps."""
        super().__post_init__()
        if self.levels < 2 or not 0 < self.sigma_last < self.sigma_first:
            raise UserError("model.levels must be at least 2, and fall from model.sigma_first to model.sigma_last")
        if self.chain_steps < 1 or not self.step_size > 0:
            raise UserError("model.chain_steps and model.step_size must be positive")


def sigmas(config: NCSNConfig) -> Float[Tensor, " levels"]:
    """Return the levels, the largest first, in float64."""
    ratio = torch.linspace(0, 1, config.levels, dtype=torch.float64)
    return config.sigma_first * (config.sigma_last / config.sigma_first) ** ratio


class NCSN(System):
    """The score network, the only part that learns."""

    def __init__(self, config: NCSNConfig):
        super().__init__()
        self.config = config
        self.network = UNet(config)
        self.register_buffer("sigmas", sigmas(config).float(), persistent=False)

    def score(
        self, x: Float[Tensor, "batch channels height width"], level: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the score of images with noise of these levels."""
        return self.network(x, level) / self.get_buffer("sigmas")[level, None, None, None]

    def turns(
        self,
        x: Float[Tensor, "batch channels height width"],
        labels: Int64[Tensor, " batch"] | None,
        noise: Noise,
        step: int,
    ) -> Iterator[Turn]:
        """Yield the update of the network by denoising score matching at random levels."""
        if self.config.flip:
            x = flipped(x, noise)
        level = integers(noise, self.config.levels, x)
        (xi,) = noise((x,))
        sigma = self.get_buffer("sigmas")[level, None, None, None]
        # sigma^2 |score + xi / sigma|^2, the noise's own score being -xi / sigma; a mean over pixels.
        loss = 0.5 * (sigma * self.score(x + sigma * xi, level) + xi).square().mean()
        yield Turn("network", loss, {"loss": loss})

    def draw(self, count: int, noise: Noise) -> Float[Tensor, "batch channels height width"]:
        """Run annealed Langevin chains from uniform noise, their Algorithm 1."""
        config = self.config
        x = 2 * uniform(noise, self.empty(count, *config.image_shape)) - 1
        levels = sigmas(config).tolist()
        for index, sigma in enumerate(levels):
            level = torch.full((count,), index, device=x.device)
            alpha = config.step_size * (sigma / levels[-1]) ** 2
            for _ in range(config.chain_steps):
                x = x + alpha / 2 * self.score(x, level) + alpha**0.5 * noise((x,))[0]
        if config.denoise:
            last = torch.full((count,), config.levels - 1, device=x.device)
            x = x + levels[-1] ** 2 * self.score(x, last)
        return x


@dataclass(frozen=True)
class NCSNExperiment(BaselineExperiment):
    """Configuration of NCSN."""

    learning: Literal["ncsn"] = "ncsn"
    model: NCSNConfig = field(default_factory=NCSNConfig)
    optimizer: OneNetwork = field(default_factory=lambda: OneNetwork(network=Adam(lr=1e-3)))

    def build(self, backbone: Backbone | None = None) -> NCSN:
        """See `BaselineExperiment`."""
        return NCSN(self.model)

    def describe_sampling(self) -> str:
        """See `BaselineExperiment`."""
        model = self.model
        last = ", last step without noise" if model.denoise else ""
        return f"{model.chain_steps} steps at each of {model.levels} levels, step size {model.step_size:g}{last}"


# ---- presets

PRESETS = {
    # Patches of 2 x 2 pixels make the small sizes four times as fast.
    "tiny": NCSNExperiment(
        "tiny",
        model=NCSNConfig(
            channels=(8, 16),
            layers=1,
            attention=(),
            norm_groups=4,
            patch=2,
            chain_steps=1,
            step_size=4e-4,
            denoise=True,
        ),
        optimizer=OneNetwork(ema_decay=0.9, network=Adam(2e-3)),
        training=TrainingConfig(steps=101, batch_size=16),
    ),
    # Five minutes on one CPU core. A step goes half the way to the mean and leaves 1.3 times a level's variance, so
    # four steps, instead of the published hundred, lead from one level's noise to the next one's.
    "cpu": NCSNExperiment(
        "cpu",
        model=NCSNConfig(
            channels=(32, 64),
            layers=1,
            attention=(),
            norm_groups=8,
            patch=2,
            chain_steps=4,
            step_size=4e-4,
            denoise=True,
        ),
        optimizer=OneNetwork(largest_gradient=1.0, ema_decay=0.995, network=Adam(1e-3, warmup=50)),
        training=TrainingConfig(steps=1_000, batch_size=64),
    ),
    # 20 minutes on one data-centre GPU; not measured.
    "budget": NCSNExperiment(
        "budget",
        model=NCSNConfig(channels=(64, 128, 128, 128), chain_steps=20, step_size=4e-4 / 4, denoise=True),
        optimizer=OneNetwork(largest_gradient=1.0, ema_decay=0.999, network=Adam(warmup=500)),
        training=TrainingConfig(steps=1_000_000, batch_size=128, budget_seconds=1200.0),
    ),
    # arXiv 1907.05600, section 5 and the public configuration: 200,001 steps of 128 images, 10 levels of 100 steps;
    # its RefineNet is DDPM's U-Net here. The paper reports IS 8.87 and FID 25.32.
    "paper": NCSNExperiment(
        "paper",
        training=TrainingConfig(steps=200_001, batch_size=128),
    ),
}
PRESETS["long"] = hour_of(PRESETS["cpu"])
