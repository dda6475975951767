"""One line of the benchmark before its numbers, and how plain and ours are held to each other."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from jlebm.engines.precision import Precision
from jlebm.errors import UserError
from jlebm.randomness import SharedNoise

EXACT = 1e-10  # largest relative difference in float64 with the same noise
SEED = 1


@dataclass(frozen=True)
class Part:
    """One line of the benchmark before its numbers."""

    metric: str
    setting: str
    plain: Callable[[], object]
    ours: Callable[[], object]
    agreement: Callable[[], float]
    """Computes both results once and returns their largest relative difference."""
    limit: float
    goal: dict[str, float]
    """The ratio that is aimed at, by type of device and, but for float32, its arithmetic."""
    counted: Callable[[], object] | None
    """What the floor's operations are counted in, no more than `ours` does; None where arithmetic is no bound."""
    times: float = 1.0
    """How many times `counted` the floor is."""
    bound: str = ""
    """What bounds it on a CPU, where that is known."""
    precision: Precision = "float32"
    """The arithmetic of ours, and that of the ceiling from which its floor is read."""
    whole: str | None = None
    """The setting of a whole training that is extrapolated from an iteration; None for none."""
    iterations: float = 0.0
    """How many times as long as the timed one that training is."""


def steps_of(count: int) -> str:
    """Return the words for the steps of a chain that are timed together, before the rest of a setting."""
    return "" if count == 1 else f"{count} steps, "


def noise(device: torch.device) -> SharedNoise:
    """Return the same stream of noise at every call."""
    return SharedNoise(torch.Generator(device).manual_seed(SEED))


def relative(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> float:
    """Return the largest difference of any entry, relative to the largest entry of its tensor."""
    pairs = zip(ours, theirs, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=torch.finfo(b.dtype).tiny)) for a, b in pairs)


def held(part: Part) -> float:
    """Return how far both results are apart.

    Raises:
        UserError: farther than the part allows: a time of it would mean nothing.
    """
    found = part.agreement()
    if not found <= part.limit or math.isnan(found):
        raise UserError(
            f"{part.metric}: ours and the plain implementation differ by {found:.1e} relative, more than "
            f"{part.limit:g}; nothing is timed that is not the same computation"
        )
    return found
