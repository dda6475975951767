"""GLOW (Kingma and Dhariwal, arXiv 1807.03039): a flow with an exact likelihood, of images that noise was added to."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Float, Int64
from torch import Tensor

from jlebm.backbones.base import Backbone
from jlebm.baselines.base import Adam, BaselineExperiment, OneNetwork, System, Turn, flipped, uniform
from jlebm.baselines.flow import Flow
from jlebm.baselines.levels import bits_per_dim, from_levels, to_levels
from jlebm.errors import UserError
from jlebm.images import clipped
from jlebm.randomness import Noise


@dataclass(frozen=True)
class GlowConfig:
    """Sizes and sampler; the defaults are the paper's CIFAR-10 model."""

    image_shape: tuple[int, int, int] = (3, 32, 32)
    levels: int = 3
    steps: int = 32
    """Of each level."""
    hidden: int = 512
    """Channels within a coupling's network."""
    bits: int = 8
    """Of the levels that images are brought to; the likelihood is that of images of so many."""
    flip: bool = True
    """Whether training images are mirrored at random."""
    temperature: float = 1.0
    """Multiplies the noise that images are drawn from."""

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit one another."""
        if self.levels < 1 or self.steps < 1 or self.hidden < 1:
            raise UserError("model.levels, model.steps and model.hidden must be positive")
        if any(extent % 2**self.levels for extent in self.image_shape[1:]):
            raise UserError(f"images of {self.image_shape} cannot be halved {self.levels} times; set model.levels")
        if not 1 <= self.bits <= 8 or not self.temperature >= 0:
            raise UserError("model.bits must lie in 1 .. 8, and model.temperature not be negative")


class Glow(System):
    """The flow, and nothing else that learns."""

    def __init__(self, config: GlowConfig):
        super().__init__()
        self.config = config
        self.network = Flow(config.image_shape, config.levels, config.steps, config.hidden)

    def dequantised(
        self, x: Float[Tensor, "batch channels height width"], noise: Noise
    ) -> Float[Tensor, "batch channels height width"]:
        """Return images of 2^bits levels with U(0, 1) added to their levels, in [-0.5, 0.5]."""
        return (to_levels(x, self.config.bits) + uniform(noise, x)) / 2**self.config.bits - 0.5

    def log_prob(self, y: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
        """Return the log-density of dequantised images in units of levels.

        The probability of an image is the mean density over its cube of levels, so that the mean of this over draws of
        the noise is at most its log.
        """
        return self.network.log_prob(y) - y[0].numel() * self.config.bits * math.log(2)

    @property
    def bits(self) -> int:
        """See `HasLikelihood`."""
        return self.config.bits

    def log_likelihood(self, x: Float[Tensor, "batch channels height width"], noise: Noise) -> Float[Tensor, " batch"]:
        """See `HasLikelihood`: the log-density of dequantised images."""
        return self.log_prob(self.dequantised(x, noise))

    def turns(
        self,
        x: Float[Tensor, "batch channels height width"],
        labels: Int64[Tensor, " batch"] | None,
        noise: Noise,
        step: int,
    ) -> Iterator[Turn]:
        """Yield the one move, up in the likelihood; the first step's images also set the affine maps' beginnings."""
        if self.config.flip:
            x = flipped(x, noise)
        y = self.dequantised(x, noise)
        if step == 0:
            self.network.initialise(y)
        loss = bits_per_dim(self.log_prob(y), y[0].numel())
        yield Turn("network", loss, {"bits_per_dim": loss.detach()})

    def draw(self, count: int, noise: Noise) -> Float[Tensor, "batch channels height width"]:
        """Return the images of noise, at their levels."""
        eps = noise(tuple(self.empty(count, *shape) for shape in self.network.shapes))
        y = self.network.inverse(tuple(self.config.temperature * each for each in eps))
        largest = 2**self.config.bits - 1
        return from_levels(clipped(((y + 0.5) * (largest + 1)).floor(), 0.0, float(largest)), self.config.bits)


@dataclass(frozen=True)
class GlowExperiment(BaselineExperiment):
    """A row of GLOW."""

    learning: Literal["glow"] = "glow"
    model: GlowConfig = field(default_factory=GlowConfig)
    optimizer: OneNetwork = field(default_factory=lambda: OneNetwork("adamax", network=Adam(1e-3)))

    def build(self, backbone: Backbone | None = None) -> Glow:
        """See `BaselineExperiment`."""
        return Glow(self.model)

    def describe_sampling(self) -> str:
        """See `BaselineExperiment`."""
        return f"one pass, temperature {self.model.temperature:g}, {self.model.bits} bits"
