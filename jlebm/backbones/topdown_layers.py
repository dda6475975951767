"""Layers of the top-down hierarchy: plain convolutions, and residual blocks that are close to the identity at first."""

import math

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from jlebm.networks import SLOPE


def conv(inputs: int, outputs: int, kernel: int, scale: float = 1.0, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    """Return a convolution that keeps its input's variance after a leaky ReLU, times `scale` squared."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding)
    nn.init.normal_(layer.weight, std=scale * math.sqrt(2 / (1 + SLOPE**2) / (inputs * kernel**2)))
    nn.init.zeros_(layer.bias) if layer.bias is not None else None
    return layer


def same(inputs: int, outputs: int, side: int, scale: float = 1.0) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the side; of a point, a linear map."""
    return conv(inputs, outputs, 1, scale) if side == 1 else conv(inputs, outputs, 3, scale, padding=1)


def act(x: Tensor) -> Tensor:
    """Return the leaky ReLU of all layers."""
    return F.leaky_relu(x, SLOPE)


class Residual(nn.Module):
    """Two convolutions added to their input; at first close to the identity."""

    def __init__(self, width: int, side: int, scale: float):
        super().__init__()
        self.first, self.second = same(width, width, side), same(width, width, side, scale)

    def forward(self, h: Float[Tensor, "batch width side side"]) -> Float[Tensor, "batch width side side"]:
        """Return the sum."""
        return h + self.second(act(self.first(act(h))))


def blocks(width: int, side: int, scale: float, count: int) -> nn.Sequential:
    """Return `count` residual blocks, one after the other."""
    return nn.Sequential(*(Residual(width, side, scale) for _ in range(count)))


def halving(inputs: int, outputs: int, factor: int) -> nn.Conv2d:
    """Return a convolution that divides the side: by overlapping windows for two, else by tiles."""
    return (
        conv(inputs, outputs, 4, stride=2, padding=1) if factor == 2 else conv(inputs, outputs, factor, stride=factor)
    )
