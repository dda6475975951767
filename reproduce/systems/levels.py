"""Images as whole numbers: the levels that the two systems with an exact likelihood count in."""

import math

from jaxtyping import Float, Int64, Num
from torch import Tensor


def to_levels(x: Float[Tensor, "*shape"], bits: int) -> Int64[Tensor, "*shape"]:
    """Return colours in [-1, 1], which are of 256 levels, as 0 .. 2^bits - 1; fewer bits lose the last ones."""
    return ((x + 1) * 127.5).round().long().clamp(0, 255) >> (8 - bits)


def from_levels(levels: Num[Tensor, "*shape"], bits: int) -> Float[Tensor, "*shape"]:
    """Return 0 .. 2^bits - 1 spread over [-1, 1]: black and white stay black and white."""
    return levels.float() * 2 / (2**bits - 1) - 1


def bits_per_dim(log_prob: Float[Tensor, " batch"], dimensions: int) -> Float[Tensor, ""]:
    """Return minus the mean log-probability of whole images, in nats, as bits for each of their numbers."""
    return -log_prob.mean() / (dimensions * math.log(2))
