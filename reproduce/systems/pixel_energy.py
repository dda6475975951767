"""Energies of pixels: network, Langevin chain and replay buffer, shared by two systems."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import cached

from jlebm.errors import UserError
from jlebm.images import levels, to_float
from jlebm.networks import SLOPE
from jlebm.randomness import Noise
from reproduce.systems.system import System
from reproduce.systems.turns import integers, uniform


@dataclass(frozen=True)
class PixelEnergyConfig:
    """Network, chain and buffer. Steps are in units of images in [-1, 1]."""

    image_shape: tuple[int, int, int] = (3, 32, 32)
    channels: tuple[int, ...] = (128, 256, 256)
    """Channels of the residual blocks; each but the first halves the image."""
    stem: int = 1
    """Stride of the first convolution."""
    spectral: bool = True
    """Whether each layer's weight is divided by its largest singular value."""
    smooth: bool = False
    """SiLU instead of leaky ReLU, for second derivatives."""
    scales: int = 1
    """Networks whose energies are summed, each on images of half the side of the one before."""
    chain_steps: int = 60
    step_size: float = 40.0
    """Factor of the energy's gradient."""
    step_noise: float = 0.01
    """Standard deviation of the noise of a step."""
    gradient_limit: float | None = 0.005
    """Bound of each component of the gradient; None for no clipping."""
    buffer: int = 10_000
    """Samples kept for chains to continue from."""
    restarts: float = 0.05
    """Share of the chains that start from uniform noise instead."""
    sampling_steps: int = 60
    """Steps of the chain that samples images."""
    sampled_from: Literal["buffer", "noise"] = "buffer"
    """Starting points of that chain."""

    def __post_init__(self) -> None:
        """Refuse chains and networks that do not exist."""
        smallest = self.stem * 2 ** (len(self.channels) + self.scales - 2)
        if not self.channels or self.scales < 1 or any(side % smallest for side in self.image_shape[1:]):
            raise UserError(f"images of {self.image_shape} cannot be reduced by {smallest} in the energy")
        if self.chain_steps < 1 or self.sampling_steps < 0 or not self.step_size > 0 or not self.step_noise >= 0:
            raise UserError("model.chain_steps and model.step_size must be positive, model.step_noise not negative")
        if self.buffer < 1 or not 0 < self.restarts <= 1:
            raise UserError("model.buffer must be at least 1, and model.restarts lie in (0, 1]")


class _Block(nn.Module):
    def __init__(self, before: int, after: int, halved: bool, config: PixelEnergyConfig):
        super().__init__()
        self.activation, self.halved = _activation(config), halved
        self.first, self.second = _conv(before, before, 3, config), _conv(before, after, 3, config)
        self.skip = _conv(before, after, 1, config) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.second(self.activation(self.first(self.activation(x))))
        x = self.skip(x) + inner
        return avg_pool2d(x, 2) if self.halved else x


def _activation(config: PixelEnergyConfig) -> nn.Module:
    return nn.SiLU() if config.smooth else nn.LeakyReLU(SLOPE)


def _conv(before: int, after: int, side: int, config: PixelEnergyConfig, stride: int = 1) -> nn.Module:
    conv = nn.Conv2d(before, after, side, stride, padding=side // 2)
    return spectral_norm(conv) if config.spectral else conv


class _OneScale(nn.Sequential):
    def __init__(self, config: PixelEnergyConfig):
        channels = config.channels
        blocks = [
            _Block(before, after, index > 0, config)
            for index, (before, after) in enumerate(zip((channels[0], *channels), channels, strict=False))
        ]
        last = nn.Linear(channels[-1], 1)
        super().__init__(
            _conv(config.image_shape[0], channels[0], 3, config, config.stem),
            *blocks,
            _activation(config),
            _Sum(),
            spectral_norm(last) if config.spectral else last,
        )


class _Sum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum((2, 3))


class PixelEnergy(nn.Module):
    """E(x), one number per image, summed over residual networks at different scales."""

    def __init__(self, config: PixelEnergyConfig):
        super().__init__()
        self.scales = nn.ModuleList(_OneScale(config) for _ in range(config.scales))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
        """Return the energies; lower is more likely."""
        total = x.new_zeros(len(x))
        for index, network in enumerate(self.scales):
            total = total + network(avg_pool2d(x, 2**index) if index else x)[:, 0]
        return total


class BufferedEnergy(System):
    """Energy whose training chains continue from samples of earlier steps; the checkpoint holds the buffer."""

    buffer: Tensor
    written: Tensor

    def __init__(self, config: PixelEnergyConfig):
        super().__init__()
        self.config = config
        self.network = PixelEnergy(config)
        self.register_buffer("buffer", torch.zeros(config.buffer, *config.image_shape, dtype=torch.uint8))
        self.register_buffer("written", torch.zeros((), dtype=torch.int64))

    def step(
        self,
        x: Float[Tensor, "batch channels height width"],
        xi: Float[Tensor, "batch channels height width"],
        graph: bool = False,
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the images one step down the energy, x - step_size * clipped gradient + step_noise * xi, clipped.

        Args:
            x: the images.
            xi: N(0, I).
            graph: whether to keep the graph to the network's weights, with x held.
        """
        config = self.config
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.network(x).sum(), x, create_graph=graph)
        if config.gradient_limit is not None:
            gradient = gradient.clamp(-config.gradient_limit, config.gradient_limit)
        return (x.detach() - config.step_size * gradient + config.step_noise * xi).clamp(-1, 1)

    def chain(
        self, x: Float[Tensor, "batch channels height width"], steps: int, noise: Noise
    ) -> Float[Tensor, "batch channels height width"]:
        """Run a chain from x with spectral norms fixed and without gradients of the weights."""
        training = self.training
        self.eval()
        with cached():
            for _ in range(steps):
                x = self.step(x, noise((x,))[0]).detach()
        self.train(training)
        return x

    def kept(self, index: Int64[Tensor, " batch"], noise: Noise) -> Float[Tensor, "batch channels height width"]:
        """Return samples of the buffer, with uniform noise in place of what rounding removed."""
        x = to_float(self.buffer[index])
        return (x + (uniform(noise, x) - 0.5) / 127.5).clamp(-1, 1)

    def starts(
        self, like: Float[Tensor, "batch channels height width"], noise: Noise
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the starting points of a training step's chains: samples of the buffer, and noise for the restarts."""
        fresh = 2 * uniform(noise, like) - 1
        filled = min(int(self.written), self.config.buffer)
        if filled == 0:
            return fresh
        restarts = uniform(noise, like.new_empty(len(like), 1, 1, 1)) < self.config.restarts
        return torch.where(restarts, fresh, self.kept(integers(noise, filled, like), noise))

    def keep(self, x: Float[Tensor, "batch channels height width"]) -> None:
        """Add samples to the buffer, replacing the oldest ones once it is full."""
        places = (self.written + torch.arange(len(x), device=x.device)) % self.config.buffer
        self.buffer[places] = levels(x)
        self.written += len(x)

    def contrast(
        self,
        x: Float[Tensor, "batch channels height width"],
        samples: Float[Tensor, "batch channels height width"],
        squares: float,
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return E(x) - E(samples), with a weight of both energies' squares, and the two means to record."""
        data, made = self.network(x), self.network(samples)
        loss = (data - made).mean() + squares * (data.square() + made.square()).mean()
        return loss, {"energy_data": data.mean(), "energy_samples": made.mean()}

    def draw(self, count: int, noise: Noise) -> Float[Tensor, "batch channels height width"]:
        """Run chains from uniform noise, or from randomly chosen samples of the buffer."""
        like = self.empty(count, *self.config.image_shape)
        filled = min(int(self.written), self.config.buffer)
        if self.config.sampled_from == "buffer" and filled:
            x = self.kept(integers(noise, filled, like), noise)
        else:
            x = 2 * uniform(noise, like) - 1
        return self.chain(x, self.config.sampling_steps, noise)
