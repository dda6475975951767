"""One part of the benchmark: plain and ours, and the check that both agree."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from jlebm.engines.precision import Precision
from jlebm.errors import UserError
from jlebm.randomness import SharedNoise

EXACT = 1e-10  # largest relative difference in float64 with the same noise
SEED = 1


@dataclass(frozen=True)
class Part:
    """One part of the benchmark before it is timed."""

    metric: str
    setting: str
    plain: Callable[[], object]
    ours: Callable[[], object]
    agreement: Callable[[], float]
    """Computes both results once and returns their largest relative difference."""
    limit: float
    goal: dict[str, float]
    """Target ratio by type of device and, except for float32, arithmetic."""
    counted: Callable[[], object] | None
    """Computation whose operations give the floor, at most what `ours` does; None if arithmetic is not the bound."""
    times: float = 1.0
    """Number of times that `counted` is done in the timed part."""
    bound: str = ""
    """Bottleneck on a CPU, if known."""
    precision: Precision = "float32"
    """Arithmetic of ours and of the ceiling behind its floor."""
    whole: str | None = None
    """Setting of a whole training extrapolated from an iteration; None for none."""
    iterations: float = 0.0
    """Number of timed iterations that the training is as long as."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of packages that only this part uses."""


def steps_of(count: int) -> str:
    """Return the beginning of a setting that names the chain steps timed together; empty for one."""
    return "" if count == 1 else f"{count} steps, "


def noise(device: torch.device) -> SharedNoise:
    """Return the same stream of noise at every call."""
    return SharedNoise(torch.Generator(device).manual_seed(SEED))


def relative(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> float:
    """Return the largest difference of any entry, relative to the largest entry of its tensor."""
    pairs = zip(ours, theirs, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=torch.finfo(b.dtype).tiny)) for a, b in pairs)


def agreed(part: Part) -> float:
    """Return the largest relative difference of both results.

    Raises:
        UserError: it exceeds the part's limit, so times would not be comparable.
    """
    found = part.agreement()
    if not found <= part.limit or math.isnan(found):
        raise UserError(
            f"{part.metric}: ours and the plain implementation differ by {found:.1e} relative, more than "
            f"{part.limit:g}; only equal computations are timed"
        )
    return found
