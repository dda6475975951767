"""GLOW (Kingma and Dhariwal, arXiv 1807.03039): a flow with an exact likelihood on dequantised images."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Float, Int64
from torch import Tensor

from jlebm.backbones.protocol import Backbone
from jlebm.errors import UserError
from jlebm.images import clipped
from jlebm.learning.trainable import TrainingConfig
from jlebm.randomness import Noise
from reproduce.systems.flow import Flow
from reproduce.systems.levels import bits_per_dim, from_levels, to_levels
from reproduce.systems.system import Adam, BaselineExperiment, OneNetwork, System, flipped, hour_of
from reproduce.systems.turns import Turn, uniform


@dataclass(frozen=True)
class GlowConfig:
    """Sizes and sampler; the defaults are the paper's CIFAR-10 model."""

    image_shape: tuple[int, int, int] = (3, 32, 32)
    levels: int = 3
    steps: int = 32
    """Flow steps per level."""
    hidden: int = 512
    """Channels of a coupling's network."""
    bits: int = 8
    """Images are quantised to 2^bits levels, and the likelihood is of such images."""
    flip: bool = True
    """Whether training images are mirrored at random."""
    temperature: float = 1.0
    """Factor of the noise that images are sampled from."""

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        if self.levels < 1 or self.steps < 1 or self.hidden < 1:
            raise UserError("model.levels, model.steps and model.hidden must be positive")
        if any(extent % 2**self.levels for extent in self.image_shape[1:]):
            raise UserError(f"images of {self.image_shape} cannot be halved {self.levels} times; set model.levels")
        if not 1 <= self.bits <= 8 or not self.temperature >= 0:
            raise UserError("model.bits must lie in 1 .. 8, and model.temperature not be negative")


class Glow(System):
    """The flow, the only part that learns."""

    def __init__(self, config: GlowConfig):
        super().__init__()
        self.config = config
        self.network = Flow(config.image_shape, config.levels, config.steps, config.hidden)

    def dequantised(
        self, x: Float[Tensor, "batch channels height width"], noise: Noise
    ) -> Float[Tensor, "batch channels height width"]:
        """Return images quantised to 2^bits levels with U(0, 1) noise added, in [-0.5, 0.5]."""
        return (to_levels(x, self.config.bits) + uniform(noise, x)) / 2**self.config.bits - 0.5

    def log_prob(self, y: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
        """Return the log-density of dequantised images in units of levels.

        The probability of an image is the mean density over its cube of levels, so its log is at least the mean of
        this value over the noise.
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
        """Yield the update of the flow by maximum likelihood; the first batch also initialises the affine maps."""
        if self.config.flip:
            x = flipped(x, noise)
        y = self.dequantised(x, noise)
        if step == 0:
            self.network.initialise(y)
        loss = bits_per_dim(self.log_prob(y), y[0].numel())
        yield Turn("network", loss, {"bits_per_dim": loss})

    def draw(self, count: int, noise: Noise) -> Float[Tensor, "batch channels height width"]:
        """Return images sampled from noise, rounded to their levels."""
        eps = noise(tuple(self.empty(count, *shape) for shape in self.network.shapes))
        y = self.network.inverse(tuple(self.config.temperature * each for each in eps))
        largest = 2**self.config.bits - 1
        return from_levels(clipped(((y + 0.5) * (largest + 1)).floor(), 0.0, float(largest)), self.config.bits)


@dataclass(frozen=True)
class GlowExperiment(BaselineExperiment):
    """Configuration of GLOW."""

    learning: Literal["glow"] = "glow"
    model: GlowConfig = field(default_factory=GlowConfig)
    optimizer: OneNetwork = field(default_factory=lambda: OneNetwork("adamax", network=Adam(1e-3)))

    def build(self, backbone: Backbone | None = None) -> Glow:
        """See `BaselineExperiment`."""
        return Glow(self.model)

    def describe_sampling(self) -> str:
        """See `BaselineExperiment`."""
        return f"one pass, temperature {self.model.temperature:g}, {self.model.bits} bits"


# ---- presets

PRESETS = {
    "tiny": GlowExperiment(
        "tiny",
        model=GlowConfig(levels=2, steps=2, hidden=16, temperature=0.7),
        optimizer=OneNetwork("adamax", largest_gradient=50.0, ema_decay=0.9, network=Adam(2e-3, warmup=10)),
        training=TrainingConfig(steps=101, batch_size=16),
    ),
    # Five minutes on one CPU core; 5 bits and a lower temperature, as for the paper's pictures.
    "cpu": GlowExperiment(
        "cpu",
        model=GlowConfig(steps=4, hidden=64, bits=5, temperature=0.7),
        optimizer=OneNetwork("adamax", largest_gradient=50.0, ema_decay=0.99, network=Adam(2e-3, warmup=50)),
        training=TrainingConfig(steps=3_000, batch_size=32),
    ),
    # 20 minutes on one data-centre GPU; not measured.
    "budget": GlowExperiment(
        "budget",
        model=GlowConfig(steps=16, hidden=256),
        optimizer=OneNetwork("adamax", largest_gradient=50.0, ema_decay=0.999, network=Adam(1e-3, warmup=500)),
        training=TrainingConfig(steps=1_000_000, batch_size=64, budget_seconds=1200.0),
    ),
    # arXiv 1807.03039: 3 levels of 32 steps, couplings of 512 channels, 8 bits, on 8 GPUs; the table's FID is 48.9.
    # Batch and length are set here.
    "paper": GlowExperiment(
        "paper",
        optimizer=OneNetwork("adamax", largest_gradient=50.0, network=Adam(1e-3, warmup=1_000)),
        training=TrainingConfig(steps=180_000, batch_size=512),
    ),
}
PRESETS["long"] = hour_of(PRESETS["cpu"])
