"""A frozen NVAE prepared for chains, whose every step goes forward and back through the decoder tower.

In eval mode a batch norm is an affine map of each channel, which an adjacent convolution can absorb: the one before it
always, the one after it if that has no padding. A 1x1 convolution commutes with upsampling.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

from jlebm.backbones.nvae.cells import Cell, DecoderOp, NormalisedConv
from jlebm.backbones.nvae.network import NVAE


def frozen_copy(network: NVAE) -> NVAE:
    """Return a faster copy with the same outputs as `network` in eval mode, up to rounding.

    Weights are normalised once, the batch norms of decoder cells are folded into their convolutions, 1x1 convolutions
    come before the upsampling, the memory is channels-last, and no parameter has a gradient. The copy must stay in eval
    mode and has its own state dict; `network` is not changed, and later changes to it do not reach the copy.
    """
    frozen = deepcopy(network).eval()
    for module in list(frozen.modules()):
        for name, child in module.named_children():
            if isinstance(child, NormalisedConv):
                setattr(module, name, child.plain())
    for module in list(frozen.modules()):
        if isinstance(module, DecoderOp):
            module.conv = _folded(module.conv)
        elif isinstance(module, Cell) and isinstance(module.skip, nn.Sequential):
            module.skip = nn.Sequential(*reversed(module.skip))
    return frozen.requires_grad_(False).to(memory_format=torch.channels_last)


@torch.no_grad()
def _folded(inverted_residual: nn.Sequential) -> nn.Sequential:
    """Return the three convolutions of a decoder cell, the activations between them and the upsampling, if any."""
    layers: list[Any] = list(inverted_residual)
    *up, before, widen, depthwise, narrow, after = layers
    wide, deep = fuse_conv_bn_eval(*widen.conv), fuse_conv_bn_eval(*depthwise.conv)
    scale = before.bn.weight / torch.sqrt(before.bn.running_var + before.bn.eps)
    shift = before.bn.bias - before.bn.running_mean * scale
    wide.bias.add_(wide.weight.flatten(1) @ shift)
    wide.weight.mul_(scale[:, None, None])
    return nn.Sequential(wide, nn.SiLU(), *up, deep, nn.SiLU(), fuse_conv_bn_eval(narrow, after.bn))
