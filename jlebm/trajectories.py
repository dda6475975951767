"""Hamiltonian trajectories in whitened noise, whose Gaussian part is solved exactly.

The density is exp(-E) N(0, I). A trajectory begins at eps with a momentum v from N(0, I) and alternates kicks of the
energy's gradient with a rotation of (eps, v), the motion under N(0, I) alone,

    v <- v - tan(h / 2) grad E,  (eps, v) <- (eps cos h + v sin h, v cos h - eps sin h),  v <- v - tan(h / 2) grad E.

It is reversible and keeps volume, so the Metropolis ratio is that of exp(-E - |eps|^2 / 2 - |v|^2 / 2) at its two ends
(Beskos, Pinski, Sanz-Serna and Stuart, Stochastic Processes and their Applications 121(10), 2011, "Hybrid Monte Carlo
on Hilbert spaces", with tan(h / 2) for their h / 2). Without an energy it accepts everything at every h. One step is
the Crank-Nicolson move of size s = 2 tan^2(h / 2). Several go ahead where as many single moves turn back at random.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from jlebm.engines.gradients import Field
from jlebm.latents import Latents, dot

SPREAD = 0.2  # largest share by which a trajectory's angles differ: equal ones would come back to where they began


class Point(NamedTuple):
    """A position, the log-density there and its gradient."""

    position: Latents
    value: Float[Tensor, " batch"]
    gradient: Latents


def angle_of(size: float) -> float:
    """Return the rotation h of a step of this size, in (0, pi): cos h = (2 - size) / (2 + size)."""
    return 2 * math.atan(math.sqrt(size / 2))


def spread_of(draw: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Return a factor for each trajectory's angles, uniform within `SPREAD` of 1, from N(0, 1) draws."""
    return 1 + SPREAD * (2 * torch.special.ndtr(draw) - 1)


def follow(
    field: Field, begin: Point, momentum: Latents, sizes: tuple[float, ...], steps: int, spread: Float[Tensor, " batch"]
) -> tuple[Point, Latents]:
    """Follow one trajectory for each element of the batch; return its end and the momentum there.

    Args:
        field: the log-density -E - |eps|^2 / 2 and its gradient.
        begin: where the trajectories begin.
        momentum: v there, in every layer.
        sizes: step size of each layer.
        steps: evaluations of the gradient.
        spread: factor of each trajectory's angles.
    """
    angles = [_along(spread * angle_of(size), layer) for size, layer in zip(sizes, momentum, strict=True)]
    kicks = [torch.tan(angle / 2) for angle in angles]
    turns = [(torch.cos(angle), torch.sin(angle)) for angle in angles]
    here, v = begin, momentum
    for _ in range(steps):
        v = _kicked(v, here, kicks)
        turned = [
            (eps * cos + w * sin, w * cos - eps * sin)
            for eps, w, (cos, sin) in zip(here.position, v, turns, strict=True)
        ]
        position = tuple(eps for eps, _ in turned)
        here = Point(position, *field.value_and_gradient(position))
        v = _kicked(tuple(w for _, w in turned), here, kicks)
    return here, v


def log_ratio(begin: Point, momentum: Latents, end: Point, its_momentum: Latents) -> Float[Tensor, " batch"]:
    """Return the logarithm of the Metropolis ratio of a trajectory from `begin` to `end`."""
    return end.value - begin.value - 0.5 * (dot(its_momentum, its_momentum) - dot(momentum, momentum))


def _along(each: Float[Tensor, " batch"], layer: Tensor) -> Tensor:
    return each.to(layer.dtype).reshape(-1, *[1] * (layer.dim() - 1))


def _kicked(v: Latents, at: Point, kicks: list[Tensor]) -> Latents:
    """Add the kick -tan(h / 2) grad E, where -grad E is the density's gradient plus eps."""
    each = zip(v, at.gradient, at.position, kicks, strict=True)
    return tuple(w + kick * (gradient + eps) for w, gradient, eps, kick in each)
