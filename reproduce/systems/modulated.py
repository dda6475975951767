"""StyleGAN2's layers: weights scaled when they are used, convolutions modulated by a style, smooth resampling."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, leaky_relu, linear

from jlebm.networks import SLOPE

FLOOR = 1e-8  # added to every divisor's square


def activated(x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    """Return the leaky ReLU times sqrt(2), which preserves the mean square."""
    return leaky_relu(x, SLOPE) * 2**0.5


def blurred(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels _ _"]:
    """Return x smoothed by [1, 3, 3, 1] along both axes, with one more row and column."""
    taps = x.new_tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = torch.outer(taps, taps).expand(x.shape[1], 1, 4, 4)
    return conv2d(x, kernel, padding=2, groups=x.shape[1])


def doubled(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels _ _"]:
    """Return x at twice the resolution, by bilinear interpolation."""
    return interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class Weight(nn.Module):
    """Normal weights scaled at run time, so that all layers learn at one rate (arXiv 1710.10196)."""

    def __init__(self, *shape: int, rate: float = 1.0):
        super().__init__()
        self.scale = rate / torch.empty(shape)[0].numel() ** 0.5
        self.drawn = nn.Parameter(torch.randn(shape) / rate)

    def forward(self) -> Float[Tensor, "outputs inputs *kernel"]:
        """Return the weights."""
        return self.scale * self.drawn


class Linear(nn.Module):
    """Linear layer of scaled weights."""

    def __init__(self, inputs: int, outputs: int, rate: float = 1.0, start: float = 0.0):
        super().__init__()
        self.weight, self.rate = Weight(outputs, inputs, rate=rate), rate
        self.bias = nn.Parameter(torch.full((outputs,), start / rate))

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        """Return W x + b."""
        return linear(x, self.weight(), self.rate * self.bias)


class ModulatedConv(nn.Module):
    """Convolution whose weights are scaled per image along its inputs and normalised along its outputs.

    Computed on the feature maps: inputs times the style before the one convolution of all images, outputs by the norm
    after it.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, latent_dim: int, demodulated: bool = True):
        super().__init__()
        self.style = Linear(latent_dim, inputs, start=1.0)
        self.weight, self.demodulated = Weight(outputs, inputs, kernel, kernel), demodulated

    def forward(
        self, x: Float[Tensor, "batch inputs height width"], w: Float[Tensor, "batch latent"]
    ) -> Float[Tensor, "batch outputs height width"]:
        """Return feature maps of the same resolution."""
        style, weight = self.style(w), self.weight()
        out = conv2d(style[..., None, None] * x, weight, padding=weight.shape[-1] // 2)
        if not self.demodulated:
            return out
        norm = linear(style.square(), weight.square().sum((2, 3)))
        return out * (norm + FLOOR).rsqrt()[..., None, None]


class StyledLayer(nn.Module):
    """Modulated convolution, noise of learned strength, bias and activation."""

    def __init__(self, inputs: int, outputs: int, latent_dim: int):
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, latent_dim)
        self.strength, self.bias = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(outputs, 1, 1))

    def forward(
        self,
        x: Float[Tensor, "batch inputs height width"],
        w: Float[Tensor, "batch latent"],
        noise: Float[Tensor, "batch 1 height width"],
    ) -> Float[Tensor, "batch outputs height width"]:
        """Return feature maps of the same resolution."""
        return activated(self.conv(x, w) + self.strength * noise + self.bias)
