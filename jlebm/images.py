"""Images are uint8 in files and in every metric, float in [-1, 1] inside; this is the only way between the two."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def to_float(
    images: UInt8[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels height width"]:
    """Return 0..255 as -1..1."""
    return images.float() / 127.5 - 1


def to_uint8(
    images: Float[Tensor, "batch channels height width"],
) -> UInt8[Tensor, "batch channels height width"]:
    """Return -1..1 as 0..255, rounded once to the nearest level; what lies outside is clipped."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
