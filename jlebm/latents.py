"""Operations on the latents of a hierarchy: a tuple of tensors, top layer z_L (index 0) to bottom layer z_1.

Every operation on all layers at once is here, and so is the definition of the layers' order.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

Latents: TypeAlias = tuple[Float[Tensor, "batch ..."], ...]
"""One tensor per layer, top to bottom: (batch, dimensions), or (batch, channels, height, width)."""
LatentShapes: TypeAlias = tuple[tuple[int, ...], ...]
"""Each layer's shape without the batch, top to bottom."""


def layer_names(layers: int) -> tuple[str, ...]:
    """Name the layers as the paper does: ("z2", "z1") for two, the top first."""
    return tuple(f"z{layers - index}" for index in range(layers))


def map_latents(function: Callable[..., Tensor], *latents: Latents) -> Latents:
    """Apply `function` layer by layer to one or more latents of the same shapes."""
    return tuple(function(*layers) for layers in zip(*latents, strict=True))


def dot(first: Latents, second: Latents) -> Float[Tensor, " batch"]:
    """Return the inner product over all layers, for each element of the batch."""
    return torch.stack([(a * b).flatten(1).sum(1) for a, b in zip(first, second, strict=True)]).sum(0)


def flatten(latents: Latents) -> Float[Tensor, "batch dimensions"]:
    """Concatenate all layers, top first."""
    return torch.cat([layer.flatten(1) for layer in latents], dim=1)


def standard_normal_log_prob(latents: Latents) -> Float[Tensor, " batch"]:
    """Return log N(z; 0, I) over all layers."""
    dimensions = sum(layer[0].numel() for layer in latents)
    return -0.5 * dot(latents, latents) - 0.5 * dimensions * math.log(2 * math.pi)
