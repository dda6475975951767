"""NCSN (Song and Ermon, arXiv 1907.05600): the score of images at several levels of noise, sampled by annealed chains.

The network gives sigma times the score, which is of one size at all levels (arXiv 2006.09011, technique 3; the first
paper tells its network the level instead). The loss is denoising score matching weighted by sigma^2, their Eq. 6.
Levels and step sizes are in units of images in [-1, 1], twice the paper's and four times, whose images are in [0, 1].
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from jlebm.backbones.base import Backbone
from jlebm.baselines.base import Adam, BaselineExperiment, OneNetwork, System, Turn, flipped, integers, uniform
from jlebm.baselines.unet import UNet, UNetConfig
from jlebm.errors import UserError
from jlebm.randomness import Noise


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
    """Of the last level, as the paper writes it: half of it is the drift's, and it is the noise's variance. That of
    a level grows with its sigma^2."""
    denoise: bool = False
    """Whether the last position is replaced by the mean of the image given it (arXiv 2009.05475)."""
    flip: bool = True
    """Whether training images are mirrored at random."""

    def __post_init__(self) -> None:
        """Refuse levels that could not be."""
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
    """The score network, and nothing else that learns."""

    def __init__(self, config: NCSNConfig):
        super().__init__()
        self.config = config
        self.network = UNet(config)
        self.register_buffer("sigmas", sigmas(config).float(), persistent=False)

    def score(
        self, x: Float[Tensor, "batch channels height width"], level: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the gradient of the log-density of images with noise of these levels."""
        return self.network(x, level) / self.get_buffer("sigmas")[level, None, None, None]

    def turns(
        self,
        x: Float[Tensor, "batch channels height width"],
        labels: Int64[Tensor, " batch"] | None,
        noise: Noise,
        step: int,
    ) -> Iterator[Turn]:
        """Yield the one move: towards the score of images with noise of levels drawn at random."""
        if self.config.flip:
            x = flipped(x, noise)
        level = integers(noise, self.config.levels, x)
        (xi,) = noise((x,))
        sigma = self.get_buffer("sigmas")[level, None, None, None]
        # sigma^2 |score + xi / sigma|^2, the noise's own score being -xi / sigma; a mean over pixels.
        loss = 0.5 * (sigma * self.score(x + sigma * xi, level) + xi).square().mean()
        yield Turn("network", loss, {"loss": loss.detach()})

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
    """A row of NCSN."""

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
