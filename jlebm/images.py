"""Images are uint8 in files and in every metric, float in [-1, 1] inside; this is the only way between the two.

A number that is not finite has no colour: `to_uint8` refuses it, where a cast would make it black. So that it comes as
far as there, images are clipped by `clipped` and chosen levels pass `unless_lost` wherever a network's output becomes
an image.
"""

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from jlebm.errors import UserError


class NotFinite(UserError):
    """A network gives images that are NaN or infinite: its training went wrong without the guard having seen it."""

    exit_code = 3


def to_float(
    images: UInt8[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels height width"]:
    """Return 0..255 as -1..1."""
    return images.float() / 127.5 - 1


def to_uint8(
    images: Float[Tensor, "batch channels height width"],
) -> UInt8[Tensor, "batch channels height width"]:
    """Return -1..1 as 0..255, rounded once to the nearest level; what lies outside is clipped.

    On a GPU this waits for the images, as their transfer right after it would. `levels` does not.

    Raises:
        NotFinite: a number of them is NaN or infinite.
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
    """Return what `to_uint8` does, unlooked at: for what stays in a training, whose weights the guard looks at."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def clipped(x: Float[Tensor, "*shape"], low: float = -1.0, high: float = 1.0) -> Float[Tensor, "*shape"]:
    """Return finite numbers between `low` and `high`, and others as they are."""
    return torch.where(torch.isfinite(x), x.clamp(low, high), x)


def unless_lost(chosen: Float[Tensor, "*shape"], known: Bool[Tensor, "..."]) -> Float[Tensor, "*shape"]:
    """Return what was chosen, and NaN where what it was chosen by is not known: a choice among NaNs looks like any."""
    return torch.where(known, chosen, torch.nan)
