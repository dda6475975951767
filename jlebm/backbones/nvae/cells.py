"""Building blocks of NVAE: weight-normalised convolutions, cells, combiners, masked flows.

Written from the architecture's description (arXiv 2007.03898; docs/facts, "NVAE architecture"). The names of modules
and parameters are those of the published checkpoints, which load without renaming.
"""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

WEIGHT_EPSILON = 1e-5  # added to a weight's norm before it divides
RESIDUAL = 0.1  # scale of a cell's residual branch
SQUEEZE = 16  # channels over hidden units of squeeze-and-excitation


class NormalisedConv(nn.Conv2d):
    """A convolution with weight exp(log_weight_norm) w / (|w| + 1e-5), the norm over input channels and positions."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = True, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2, bias=bias, groups=groups)
        norm = torch.linalg.vector_norm(self.weight.detach(), dim=(1, 2, 3), keepdim=True)
        self.log_weight_norm = nn.Parameter(torch.log(norm + 1e-2))

    def raw_weight(self) -> Float[Tensor, "outputs inputs height width"]:
        """Return w; a masked convolution returns w times its mask."""
        return self.weight

    held: Tensor | None = None
    """The weight that the convolution applies, inside `regularisation.weights_once`."""

    def used_weight(self) -> Float[Tensor, "outputs inputs height width"]:
        """Return the weight that the convolution applies."""
        if self.held is not None:
            return self.held
        weight = self.raw_weight()
        norm = torch.linalg.vector_norm(weight, dim=(1, 2, 3), keepdim=True)
        return torch.exp(self.log_weight_norm) * weight / (norm + WEIGHT_EPSILON)

    def plain(self) -> nn.Conv2d:
        """Return an ordinary convolution with the current normalised weight."""
        sizes = (self.in_channels, self.out_channels, self.kernel_size[0], self.stride[0], int(self.padding[0]))
        plain = cast(nn.Conv2d, skip_init(nn.Conv2d, *sizes, groups=self.groups, bias=self.bias is not None))
        plain.weight = nn.Parameter(self.used_weight().detach())
        if self.bias is not None:
            plain.bias = nn.Parameter(self.bias.detach().clone())
        return plain

    def forward(self, input: Tensor) -> Tensor:
        """Convolve."""
        return F.conv2d(input, self.used_weight(), self.bias, self.stride, self.padding, 1, self.groups)


class BatchNormSwish(nn.BatchNorm2d):
    """Batch norm, then swish."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise and activate."""
        return F.silu(super().forward(input))


class _BatchNorm(nn.Module):
    """Batch norm one level deeper, as named in decoder-type cells."""

    def __init__(self, channels: int):
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, input: Tensor) -> Tensor:
        return self.bn(input)


class _ConvBatchNormSwish(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int = 1):
        super().__init__()
        conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, groups=groups)
        self.conv = nn.Sequential(conv, BatchNormSwish(outputs))

    def forward(self, input: Tensor) -> Tensor:
        return self.conv(input)


class EncoderOp(nn.Module):
    """Batch norm with swish, then a 3x3 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.bn_act = BatchNormSwish(inputs)
        self.conv_0 = NormalisedConv(inputs, outputs, 3, stride)

    def forward(self, input: Tensor) -> Tensor:
        """Return (batch, outputs, height / stride, width / stride)."""
        return self.conv_0(self.bn_act(input))


class DecoderOp(nn.Module):
    """An inverted residual: widen by 1x1, depthwise 5x5, narrow by 1x1."""

    def __init__(self, inputs: int, outputs: int, expansion: int, up: bool):
        super().__init__()
        wide = expansion * inputs
        layers: list[nn.Module] = [nn.UpsamplingNearest2d(scale_factor=2)] if up else []
        layers += [
            _BatchNorm(inputs),
            _ConvBatchNormSwish(inputs, wide, 1),
            _ConvBatchNormSwish(wide, wide, 5, groups=wide),
            nn.Conv2d(wide, outputs, 1, bias=False),
            _BatchNorm(outputs),
        ]
        self.conv = nn.Sequential(*layers)

    def forward(self, input: Tensor) -> Tensor:
        """Return (batch, outputs, height, width), twice as high and wide when going up."""
        return self.conv(input)


class SqueezeExcitation(nn.Module):
    """Squeeze-and-excitation: scale every channel by a gate computed from all channels' means."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = max(channels // SQUEEZE, 4)
        self.se = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, input: Tensor) -> Tensor:
        """Return the scaled input."""
        return input * self.se(input.mean((2, 3)))[:, :, None, None]


class ShiftedDown(nn.Module):
    """The skip connection of a cell that goes down: four 1x1 stride-2 convolutions of shifted inputs.

    The input is subsampled before the convolutions, which gives the same numbers: on a CPU with AVX-512, torch 2.14
    crashes in the gradient of a strided 1x1 convolution of four channels to two in channels-last memory.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        quarters = [outputs // 4] * 3
        for index, channels in enumerate([*quarters, outputs - sum(quarters)], start=1):
            conv = NormalisedConv(inputs, channels, 1)
            self.add_module(f"conv_{index}", conv)

    def forward(self, input: Tensor) -> Tensor:
        """Return (batch, outputs, height / 2, width / 2)."""
        active = F.silu(input)
        corners = ((0, 0), (1, 1), (0, 1), (1, 0))
        shifted = [active[:, :, row::2, column::2] for row, column in corners]
        convs = [self.get_submodule(f"conv_{index}") for index in range(1, 5)]
        return torch.cat([conv(part) for conv, part in zip(convs, shifted, strict=True)], dim=1)


class Cell(nn.Module):
    """A residual cell: skip(x) + 0.1 SE(ops(x))."""

    def __init__(self, skip: nn.Module, ops: list[nn.Module], outputs: int, use_se: bool):
        super().__init__()
        self.skip = skip
        self._ops = nn.ModuleList(ops)
        self.se = SqueezeExcitation(outputs) if use_se else nn.Identity()

    def forward(self, input: Tensor) -> Tensor:
        """Return the sum of both branches."""
        residual = input
        for op in self._ops:
            residual = op(residual)
        return self.skip(input) + RESIDUAL * self.se(residual)


def encoder_cell(inputs: int, outputs: int, down: bool, use_se: bool) -> Cell:
    """Return a cell of the bottom-up path; going down halves the resolution."""
    skip = ShiftedDown(inputs, outputs) if down else nn.Identity()
    ops: list[nn.Module] = [EncoderOp(inputs, outputs, 2 if down else 1), EncoderOp(outputs, outputs, 1)]
    return Cell(skip, ops, outputs, use_se)


def decoder_cell(inputs: int, outputs: int, expansion: int, up: bool, use_se: bool) -> Cell:
    """Return a cell of the top-down path; going up doubles the resolution."""
    skip: nn.Module = nn.Identity()
    if up:
        bilinear = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        skip = nn.Sequential(bilinear, NormalisedConv(inputs, outputs, 1, bias=False))
    return Cell(skip, [DecoderOp(inputs, outputs, expansion, up)], outputs, use_se)


class EncoderCombiner(nn.Module):
    """Input of the posterior: the bottom-up state plus a 1x1 convolution of the top-down state."""

    def __init__(self, encoder: int, decoder: int):
        super().__init__()
        self.conv = NormalisedConv(decoder, encoder, 1)

    def forward(self, bottom_up: Tensor, top_down: Tensor) -> Tensor:
        """Return the sum."""
        return bottom_up + self.conv(top_down)


class DecoderCombiner(nn.Module):
    """The next top-down state: a 1x1 convolution of the state concatenated with the latents."""

    def __init__(self, channels: int, latents: int):
        super().__init__()
        self.conv = NormalisedConv(channels + latents, channels, 1)

    def forward(self, state: Tensor, z: Tensor) -> Tensor:
        """Return the state for the layers below."""
        return self.conv(torch.cat([state, z], dim=1))


@dataclass(frozen=True)
class CausalMask:
    """The positions and channels that a masked convolution sees, in raster order."""

    own: bool  # whether a channel sees itself at the position
    mirror: bool  # whether it sees later positions instead of earlier ones


class MaskedConv(NormalisedConv):
    """A masked convolution that sees only earlier positions in raster order, and earlier channels at the same position.

    The mirrored one sees later positions; the order of channels at the centre stays.
    """

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, order: CausalMask, bias: bool, groups: int = 1):
        super().__init__(inputs, outputs, kernel, bias=bias, groups=groups)
        centre = kernel // 2
        mask = torch.zeros(outputs, inputs // groups, kernel, kernel)
        mask[:, :, :centre] = 1
        mask[:, :, centre, :centre] = 1
        if order.mirror:
            mask = mask.flip(2, 3)
        # Units of input channel c are contiguous in the wider of the two layers; channel c sees the channels before it.
        out_of, in_of = _channel_of(outputs, min(inputs, outputs)), _channel_of(inputs, min(inputs, outputs))
        if groups > 1:  # depthwise: each unit sees its own channel
            seen = torch.full((outputs, 1), float(order.own))
        else:
            seen = ((in_of[None] <= out_of[:, None]) if order.own else (in_of[None] < out_of[:, None])).float()
        mask[:, :, centre, centre] = seen
        self.register_buffer("mask", mask, persistent=False)

    def raw_weight(self) -> Float[Tensor, "outputs inputs height width"]:
        """Return the masked weight: the mask comes before the norm."""
        return self.weight * self.mask


def _channel_of(units: int, channels: int) -> Tensor:
    return torch.arange(units) // (units // channels)


class _FlowConv(nn.Module):
    def __init__(self, channels: int, mirror: bool):
        super().__init__()
        wide = 6 * channels
        self.convz = nn.Sequential(
            MaskedConv(channels, wide, 3, CausalMask(own=False, mirror=mirror), bias=False),
            nn.ELU(),
            MaskedConv(wide, wide, 5, CausalMask(own=True, mirror=mirror), bias=False, groups=wide),
            nn.ELU(),
        )


class _FlowMean(nn.Module):
    def __init__(self, channels: int, mirror: bool):
        super().__init__()
        self.conv_0 = MaskedConv(6 * channels, channels, 1, CausalMask(own=True, mirror=mirror), bias=True)


class FlowCell(nn.Module):
    """z -> z - mu(z) with a masked autoregressive mu; its Jacobian has determinant 1."""

    def __init__(self, channels: int, mirror: bool):
        super().__init__()
        self.conv, self.mu = _FlowConv(channels, mirror), _FlowMean(channels, mirror)

    def forward(self, z: Tensor) -> Tensor:
        """Return the transformed latents."""
        return z - cast(Tensor, self.mu.conv_0(F.elu(self.conv.convz(z))))


class FlowPair(nn.Module):
    """A flow and its mirror image."""

    def __init__(self, channels: int):
        super().__init__()
        self.cell1, self.cell2 = FlowCell(channels, mirror=False), FlowCell(channels, mirror=True)

    def forward(self, z: Tensor) -> Tensor:
        """Return the transformed latents."""
        return self.cell2(self.cell1(z))
