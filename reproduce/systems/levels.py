"""Quantised images, for the two systems with an exact likelihood."""

import math

from jaxtyping import Float, Int64, Num
from torch import Tensor


def to_levels(x: Float[Tensor, "*shape"], bits: int) -> Int64[Tensor, "*shape"]:
    """Return 8-bit colours in [-1, 1] as levels 0 .. 2^bits - 1; the lowest bits are dropped."""
    return ((x + 1) * 127.5).round().long().clamp(0, 255) >> (8 - bits)


def from_levels(levels: Num[Tensor, "*shape"], bits: int) -> Float[Tensor, "*shape"]:
    """Return 0 .. 2^bits - 1 spread over [-1, 1]: black and white stay black and white."""
    return levels.float() * 2 / (2**bits - 1) - 1


def bits_per_dim(log_prob: Float[Tensor, " batch"], dimensions: int) -> Float[Tensor, ""]:
    """Return bits per dimension from the log-probabilities of images in nats."""
    return -log_prob.mean() / (dimensions * math.log(2))
