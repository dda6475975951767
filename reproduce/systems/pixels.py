"""Independent pixels: the baseline that every system of the table should beat.

One Gaussian per pixel and colour, by maximum likelihood. No paper reports it. A system whose images are no closer to
the training images than these has learned nothing in its time, and its line of the table says so.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Float, Int64
from torch import Tensor, nn, zeros

from jlebm.backbones.protocol import Backbone
from jlebm.distributions import Normal
from jlebm.learning.trainable import TrainingConfig
from jlebm.randomness import Noise
from reproduce.systems.system import Adam, BaselineExperiment, OneNetwork, System
from reproduce.systems.turns import Turn


@dataclass(frozen=True)
class PixelsConfig:
    """Shape of the images."""

    image_shape: tuple[int, int, int] = (3, 32, 32)
    """Channels, height and width."""


class EachPixel(nn.Module):
    """N(mean, exp(log_sigma)^2) of every pixel and colour, in [-1, 1]."""

    def __init__(self, shape: tuple[int, int, int]):
        super().__init__()
        self.mean, self.log_sigma = nn.Parameter(zeros(shape)), nn.Parameter(zeros(shape))

    def forward(self, like: Float[Tensor, "batch channels height width"]) -> Normal:
        """Return the distribution of a batch of images as large as `like`."""
        return Normal(self.mean.expand_as(like), self.log_sigma.exp().expand_as(like))


class Pixels(System):
    """Optimiser of the Gaussians."""

    network: EachPixel

    def __init__(self, config: PixelsConfig):
        super().__init__()
        self.shape = config.image_shape
        self.network = EachPixel(config.image_shape)

    def turns(
        self,
        x: Float[Tensor, "batch channels height width"],
        labels: Int64[Tensor, " batch"] | None,
        noise: Noise,
        step: int,
    ) -> Iterator[Turn]:
        """Yield the update of the Gaussians by maximum likelihood; the loss is in nats per image."""
        loss = -self.network(x).log_prob(x).mean()
        yield Turn("network", loss, {"loss": loss})

    def draw(self, count: int, noise: Noise) -> Float[Tensor, "batch channels height width"]:
        """See `System`."""
        (standard,) = noise((self.empty(count, *self.shape),))
        return self.network(standard).sample(standard)


@dataclass(frozen=True)
class PixelsExperiment(BaselineExperiment):
    """Configuration of the independent pixels."""

    model: PixelsConfig = field(default_factory=PixelsConfig)
    learning: Literal["pixels"] = "pixels"
    optimizer: OneNetwork = field(default_factory=lambda: OneNetwork(network=Adam(lr=0.05)))

    def build(self, backbone: Backbone | None = None) -> Pixels:
        """See `BaselineExperiment`."""
        return Pixels(self.model)


# ---- presets


def _preset(name: str, steps: int, batch_size: int, ema_decay: float, budget_seconds: float | None) -> PixelsExperiment:
    return PixelsExperiment(
        name,
        optimizer=OneNetwork(ema_decay=ema_decay, network=Adam(0.02)),
        training=TrainingConfig(steps=steps, batch_size=batch_size, budget_seconds=budget_seconds),
    )


PRESETS = {
    "tiny": _preset("tiny", 101, 16, 0.9, None),
    "cpu": _preset("cpu", 2_000, 64, 0.99, None),
    "long": _preset("long", 2_000, 64, 0.99, None),  # there is no more to learn in an hour
    "budget": _preset("budget", 5_000, 64, 0.99, 1200.0),
    "paper": _preset("paper", 5_000, 64, 0.99, None),  # no paper reports it: every system should be better
}
