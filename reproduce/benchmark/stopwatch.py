"""Timing: medians of plain and ours run alternately in one process, and the operations that a call does."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from jlebm.engines import graphs
from reproduce.results.timing import PROCESSOR

LEAST_SECONDS = 4.0  # least time spent on a part; a short part is repeated more often than asked for
MOST_REPETITIONS = 101


class Medians(NamedTuple):
    """Median seconds of plain and ours."""

    plain: float | None
    ours: float
    repetitions: int
    """Number of repetitions behind each."""


def interleaved(
    plain: Callable[[], object] | None, ours: Callable[[], object], repetitions: int, device: torch.device
) -> Medians:
    """Time plain and ours alternately, A B A B, after one warm-up run of each.

    Short parts are repeated more often than asked for, as a median of seven is sensitive to other work on the machine.
    """
    medians, count = in_turn([ours] if plain is None else [plain, ours], repetitions, device)
    return Medians(None if plain is None else medians[0], medians[-1], count)


def in_turn(parts: Sequence[Callable[[], object]], repetitions: int, device: torch.device) -> tuple[list[float], int]:
    """Return the median seconds of each part, timed in turn after one warm-up run of each, and the repetitions."""
    seconds: list[list[float]] = [[] for _ in parts]
    for part in parts:
        once(part, device)
    spent = 0.0
    while len(seconds[0]) < repetitions or (spent < LEAST_SECONDS and len(seconds[0]) < MOST_REPETITIONS):
        for part, kept in zip(parts, seconds, strict=True):
            kept.append(once(part, device))
            spent += kept[-1]
    return [statistics.median(kept) for kept in seconds], len(seconds[0])


def once(part: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of one call on the clock of `clock`, including work on the device."""
    now = time.process_time if clock(device) == PROCESSOR else time.perf_counter
    _wait(device)
    started = now()
    part()
    _wait(device)
    return now() - started


def clock(device: torch.device) -> str:
    """Return the clock that times are read on, as in a row: that of the processor if torch has one thread of a CPU.

    Other work on the machine does not count in them. With more threads they would be added up.
    """
    return PROCESSOR if device.type == "cpu" and torch.get_num_threads() == 1 else ""


def operations(part: Callable[[], object]) -> int:
    """Count the floating-point operations of matrix products and convolutions in one call."""
    with graphs.step_by_step(), _Counter() as counter:
        part()
    return counter.total


class _Counter(TorchDispatchMode):
    """Counter with torch's own formulas, without its bookkeeping by module, which misses `autograd.grad`."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and add its count."""
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__.removesuffix("_")  # in place: the same operations
        formula = flop_registry.get(getattr(torch.ops.aten, name, func.overloadpacket))
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
