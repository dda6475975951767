"""PixelCNN (van den Oord et al., arXiv 1601.06759) with the gated stacks of arXiv 1606.05328.

Pixels are in raster order. One stack of convolutions sees the rows above, the other the pixels to the left and the
first stack's features: together all earlier pixels, without a blind spot. A colour's levels are a softmax of these
features and of the pixel's earlier colours, which are inputs of the last two layers here instead of masked channels of
every layer. Sampling computes each feature once.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from jlebm.backbones.protocol import Backbone
from jlebm.errors import UserError
from jlebm.images import unless_lost
from jlebm.learning.trainable import TrainingConfig
from jlebm.randomness import Noise
from reproduce.systems.levels import bits_per_dim, from_levels, to_levels
from reproduce.systems.system import Adam, BaselineExperiment, OneNetwork, System, flipped, hour_of
from reproduce.systems.turns import Turn, uniform


@dataclass(frozen=True)
class PixelCNNConfig:
    """Sizes; the defaults are of the first paper's CIFAR-10 network, which sees 7x7 pixels and then 3x3."""

    image_shape: tuple[int, int, int] = (3, 32, 32)
    channels: int = 128
    layers: int = 15
    first_reach: int = 3
    """Reach of the first layer: rows and columns before a pixel."""
    reach: int = 1
    """Reach of the other layers."""
    hidden: int = 1_024
    """Hidden units per pixel between the features and a colour's levels."""
    bits: int = 8
    """Images are quantised to 2^bits levels, and the likelihood is of such images."""
    flip: bool = True
    """Whether training images are mirrored at random."""

    def __post_init__(self) -> None:
        """Refuse empty networks."""
        if min(self.channels, self.layers, self.first_reach, self.reach, self.hidden) < 1:
            raise UserError("model.channels, layers, first_reach, reach and hidden must all be positive")
        if not 1 <= self.bits <= 8:
            raise UserError(f"model.bits must lie in 1 .. 8, not be {self.bits}")


def _gated(h: Tensor) -> Tensor:
    value, gate = h.chunk(2, dim=1)
    return torch.tanh(value) * torch.sigmoid(gate)


class Layer(nn.Module):
    """One layer of both stacks; the first excludes the pixel itself, the others include its features.

    Inputs are padded by `reach`: at the top, left and right of the stack of rows, at the left of that of pixels.
    """

    def __init__(self, inputs: int, channels: int, reach: int, first: bool):
        super().__init__()
        self.inputs, self.reach, self.first = inputs, reach, first
        self.kernel = reach if first else reach + 1
        self.vertical = nn.Conv2d(inputs, 2 * channels, (self.kernel, 2 * reach + 1))
        self.across = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.horizontal = nn.Conv2d(inputs, 2 * channels, (1, self.kernel))
        self.out = nn.Conv2d(channels, channels, 1)

    def rows(self, padded: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of rows, and their input to the stack of pixels."""
        v = self.vertical(padded)
        return _gated(v), self.across(v)

    def pixels(self, padded: Tensor, across: Tensor) -> Tensor:
        """Return the features of pixels."""
        h = self.out(_gated(self.horizontal(padded) + across))
        return h if self.first else padded[..., self.reach :] + h


class Network(nn.Module):
    """Autoregressive network: logits of each colour's level given earlier pixels and colours, and sampling."""

    def __init__(self, config: PixelCNNConfig):
        super().__init__()
        colours, channels = config.image_shape[0], config.channels
        self.bits = config.bits
        rest = [Layer(channels, channels, config.reach, first=False) for _ in range(config.layers - 1)]
        self.layers = nn.ModuleList([Layer(colours, channels, config.first_reach, first=True), *rest])
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels + colour, config.hidden, 1), nn.SiLU(), nn.Conv2d(config.hidden, 2**config.bits, 1)
            )
            for colour in range(colours)
        )

    def forward(
        self, x: Float[Tensor, "batch colours height width"]
    ) -> Float[Tensor, "batch levels colours height width"]:
        """Return the logits at all pixels of whole images."""
        v, h = x, x
        height, width = x.shape[2:]
        for layer in cast(list[Layer], self.layers):
            reach, kept = layer.reach, layer.kernel - 1  # the first layer does not see the last row and column
            above = pad(v, (reach, reach, reach, 0))[:, :, : height + kept]
            v, across = layer.rows(above)
            h = layer.pixels(pad(h, (reach, 0))[..., : width + kept], across)
        return torch.stack([head(torch.cat([h, x[:, :colour]], 1)) for colour, head in enumerate(self.heads)], 2)

    @torch.no_grad()
    def sampled(self, u: Float[Tensor, "batch colours height width"]) -> Float[Tensor, "batch colours height width"]:
        """Return images sampled by inverting the cumulative probabilities at `u`, draws of U(0, 1).

        For each row the stack of rows runs once, then the stack of pixels runs pixel by pixel.
        """
        count, _, height, width = u.shape
        layers, x = cast(list[Layer], self.layers), torch.zeros_like(u)
        above = [u.new_zeros(count, each.inputs, height + each.reach, width + 2 * each.reach) for each in layers]
        for row in range(height):
            left = [u.new_zeros(count, each.inputs, 1, width + each.reach) for each in layers]
            across: list[Tensor] = []
            for index, layer in enumerate(layers):
                v, seen = layer.rows(above[index][:, :, row : row + layer.kernel])
                across.append(seen)
                if index + 1 < len(layers):
                    reach = layers[index + 1].reach
                    above[index + 1][:, :, row + reach, reach : reach + width] = v[:, :, 0]
            for column in range(width):
                h = u
                for index, layer in enumerate(layers):
                    h = layer.pixels(
                        left[index][..., column : column + layer.kernel], across[index][..., column : column + 1]
                    )
                    if index + 1 < len(layers):
                        left[index + 1][..., column + layers[index + 1].reach] = h[..., 0]
                here = x[:, :, row : row + 1, column : column + 1]
                for colour, head in enumerate(self.heads):
                    logits = head(torch.cat([h, here[:, :colour]], 1))[:, :, 0, 0]
                    level = from_levels(chosen(logits, u[:, colour, row, column]), self.bits)
                    here[:, colour, 0, 0] = unless_lost(level, torch.isfinite(logits).all(1))
                reach = layers[0].reach
                above[0][:, :, row + reach, column + reach] = left[0][:, :, 0, column + reach] = here[:, :, 0, 0]
        return x


def chosen(logits: Float[Tensor, "batch levels"], u: Float[Tensor, " batch"]) -> Int64[Tensor, " batch"]:
    """Return the first level whose cumulative probability exceeds u."""
    below = torch.softmax(logits, 1).cumsum(1) <= u[:, None]
    return below.sum(1).clamp(max=logits.shape[1] - 1)


class PixelCNN(System):
    """The network, the only part that learns."""

    gpu_batch = 2500  # a pixel takes hundreds of small launches, whatever the batch

    def __init__(self, config: PixelCNNConfig):
        super().__init__()
        self.config = config
        self.network = Network(config)

    def log_prob(self, x: Float[Tensor, "batch colours height width"]) -> Float[Tensor, " batch"]:
        """Return the log-probability of images quantised to 2^bits levels, in nats."""
        levels = to_levels(x, self.config.bits)
        logits = self.network(from_levels(levels, self.config.bits).to(x.dtype))
        return -cross_entropy(logits, levels, reduction="none").flatten(1).sum(1)

    @property
    def bits(self) -> int:
        """See `HasLikelihood`."""
        return self.config.bits

    def log_likelihood(self, x: Float[Tensor, "batch channels height width"], noise: Noise) -> Float[Tensor, " batch"]:
        """See `HasLikelihood`: exact, whatever the noise."""
        return self.log_prob(x)

    def turns(
        self,
        x: Float[Tensor, "batch channels height width"],
        labels: Int64[Tensor, " batch"] | None,
        noise: Noise,
        step: int,
    ) -> Iterator[Turn]:
        """Yield the update of the network by maximum likelihood."""
        if self.config.flip:
            x = flipped(x, noise)
        loss = bits_per_dim(self.log_prob(x), x[0].numel())
        yield Turn("network", loss, {"bits_per_dim": loss})

    def draw(self, count: int, noise: Noise) -> Float[Tensor, "batch channels height width"]:
        """Return images sampled pixel by pixel from one draw of uniform noise."""
        return self.network.sampled(uniform(noise, self.empty(count, *self.config.image_shape)))


@dataclass(frozen=True)
class PixelCNNExperiment(BaselineExperiment):
    """Configuration of PixelCNN."""

    learning: Literal["pixelcnn"] = "pixelcnn"
    model: PixelCNNConfig = field(default_factory=PixelCNNConfig)
    optimizer: OneNetwork = field(default_factory=lambda: OneNetwork(network=Adam(3e-4)))

    def build(self, backbone: Backbone | None = None) -> PixelCNN:
        """See `BaselineExperiment`."""
        return PixelCNN(self.model)

    def describe_sampling(self) -> str:
        """See `BaselineExperiment`."""
        return f"pixel after pixel, {self.model.bits} bits"


# ---- presets

PRESETS = {
    "tiny": PixelCNNExperiment(
        "tiny",
        model=PixelCNNConfig(channels=8, layers=2, hidden=16, bits=4),
        optimizer=OneNetwork(ema_decay=0.9, network=Adam(3e-3)),
        training=TrainingConfig(steps=101, batch_size=8),
    ),
    # Five minutes on one CPU core, of colours of 6 bits.
    "cpu": PixelCNNExperiment(
        "cpu",
        model=PixelCNNConfig(channels=32, layers=4, hidden=48, bits=6),
        optimizer=OneNetwork(largest_gradient=1.0, ema_decay=0.99, network=Adam(2e-3, warmup=50)),
        training=TrainingConfig(steps=1_800, batch_size=16),
    ),
    # 20 minutes on one data-centre GPU; not measured.
    "budget": PixelCNNExperiment(
        "budget",
        model=PixelCNNConfig(channels=96, layers=10, hidden=256),
        optimizer=OneNetwork(largest_gradient=1.0, ema_decay=0.999, network=Adam(5e-4, warmup=500)),
        training=TrainingConfig(steps=1_000_000, batch_size=64, budget_seconds=1200.0),
    ),
    # arXiv 1601.06759: 15 layers of 128 channels, 7x7 and then 3x3, 256 levels. Its optimiser is RMSProp and its layers
    # are not gated; batch, rate and length are set here. The table's FID is 65.93.
    "paper": PixelCNNExperiment(
        "paper",
        optimizer=OneNetwork(largest_gradient=1.0, network=Adam(3e-4)),
        training=TrainingConfig(steps=300_000, batch_size=16),
    ),
}
PRESETS["long"] = hour_of(PRESETS["cpu"])
