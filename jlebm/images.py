"""Conversion between uint8 images (files, metrics) and floats in [-1, 1] (networks): the only place for it.

`to_uint8` refuses a number that is not finite, where a cast would make it black. To get it there unharmed, `clipped`
clips images, and `unless_lost` passes on NaN when levels are chosen from a network's output.
"""

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from jlebm.errors import UserError


class NotFinite(UserError):
    """A network's images are NaN or infinite: its training went wrong unnoticed by the guard."""

    exit_code = 3


def to_float(
    images: UInt8[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels height width"]:
    """Return 0..255 as -1..1."""
    return images.float() / 127.5 - 1


def to_uint8(
    images: Float[Tensor, "batch channels height width"],
) -> UInt8[Tensor, "batch channels height width"]:
    """Return -1..1 as 0..255, rounded once to the nearest level; values outside are clipped.

    On a GPU this waits for the images, as their transfer would anyway. `levels` does not wait.

    Raises:
        NotFinite: a value is NaN or infinite.
    """
    finite = torch.isfinite(images)
    if not bool(finite.all()):
        spoilt = len(images) - int(finite.flatten(1).all(1).sum())
        raise NotFinite(
            f"the trained network gives images that are not finite ({spoilt} of {len(images)}); nothing of them is "
            "stored: train it in another --runs with smaller learning rates, or a smaller epsilon of the chains"
        )
    return levels(images)


def levels(
    images: Float[Tensor, "batch channels height width"],
) -> UInt8[Tensor, "batch channels height width"]:
    """Convert as `to_uint8` does, unchecked: for images inside a training, where the guard checks the weights."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def clipped(x: Float[Tensor, "*shape"], low: float = -1.0, high: float = 1.0) -> Float[Tensor, "*shape"]:
    """Clip finite numbers to [`low`, `high`]; pass on the others."""
    return torch.where(torch.isfinite(x), x.clamp(low, high), x)


def unless_lost(chosen: Float[Tensor, "*shape"], known: Bool[Tensor, "..."]) -> Float[Tensor, "*shape"]:
    """Return `chosen` where `known` is true, else NaN: a choice among NaNs looks like any other choice."""
    return torch.where(known, chosen, torch.nan)
