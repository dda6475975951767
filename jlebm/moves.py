"""Moves that a chain makes or proposes: one step of every layer, and the ratio that corrects it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from jlebm.latents import Latents, dot


class Stride(NamedTuple):
    """Factors of one layer's step: z <- z + drift * grad log p(z) + noise * xi.

    Crank-Nicolson's step has this form too: its implicit Gaussian part is the gradient's own share of it.
    """

    drift: float
    noise: float


def move(position: Latents, gradient: Latents, strides: Sequence[Stride], noise: Latents) -> Latents:
    """Move every layer at once by one step, given the gradient there, N(0, I) noise and one stride per layer."""
    return tuple(
        z.add(g, alpha=stride.drift).add_(xi, alpha=stride.noise)
        for z, g, xi, stride in zip(position, gradient, noise, strides, strict=True)
    )


def log_acceptance(
    gain: Float[Tensor, " batch"], gradient: Latents, proposed: Latents, noise: Latents, sizes: Sequence[float]
) -> Float[Tensor, " batch"]:
    """Return log[p(y) q(x|y) / (p(x) q(y|x))] of the move from x to y; its exponential is the acceptance probability.

    q(y|x) is `move` at temperature 1. The move back from y needs the noise -(xi + sqrt(size / 2) (g + g')) in a layer,
    by either discretisation (drift / noise of its stride is sqrt(size / 2)), and the ratio of the two noises' densities
    depends on xi, g and g' alone: no difference of nearby positions is taken.

    Args:
        gain: log p(y) - log p(x).
        gradient: g, the gradient of log p at x, in the layers that moved.
        proposed: g', the gradient of log p at y.
        noise: xi of the move from x to y.
        sizes: the step size of each of these layers.
    """
    both = tuple(
        torch.add(g, other).mul_(math.sqrt(size / 2)) for g, other, size in zip(gradient, proposed, sizes, strict=True)
    )
    return gain - dot(noise, both) - 0.5 * dot(both, both)
