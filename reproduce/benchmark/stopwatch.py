"""Timing: medians of plain and ours run alternately in one process, and the ceiling behind the floors."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from jlebm.engines import graphs
from jlebm.engines.precision import Precision

MATRIX = {"cpu": 2048, "cuda": 8192}  # rows of the square matrices whose product is the ceiling
LEAST_SECONDS = 4.0  # of timing, for parts that are shorter in the repetitions asked for
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
    parts = [ours] if plain is None else [plain, ours]
    seconds: list[list[float]] = [[] for _ in parts]
    for part in parts:
        once(part, device)
    spent = 0.0
    while len(seconds[0]) < repetitions or (spent < LEAST_SECONDS and len(seconds[0]) < MOST_REPETITIONS):
        for part, kept in zip(parts, seconds, strict=True):
            kept.append(once(part, device))
            spent += kept[-1]
    medians = [statistics.median(kept) for kept in seconds]
    return Medians(None if plain is None else medians[0], medians[-1], len(seconds[0]))


def once(part: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of one call, including work on the device."""
    _wait(device)
    started = time.perf_counter()
    part()
    _wait(device)
    return time.perf_counter() - started


def ceiling(device: torch.device, precision: Precision = "float32", repetitions: int = 7) -> float:
    """Return FLOP/s of large matrix products in this arithmetic on all threads: the median of several."""
    rows = MATRIX[device.type]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    first, second = (torch.randn(rows, rows, device=device).to(dtype) for _ in range(2))
    switch = torch.backends.cuda.matmul
    before, switch.fp32_precision = switch.fp32_precision, "tf32" if precision == "tf32" else "ieee"
    try:
        return 2 * rows**3 / interleaved(None, lambda: first @ second, repetitions, device).ours
    finally:
        switch.fp32_precision = before


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
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
