"""The ceiling behind the floors: the fastest kernel for large arithmetic on this machine, measured in the same run.

No library is the fastest everywhere: on AMD, MKL takes a slower path than oneDNN, and convolutions can be faster than
both.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from jlebm.engines import products
from jlebm.engines.precision import Precision
from reproduce.benchmark import stopwatch

MATRIX = {"cpu": 2048, "cuda": 8192}  # rows of the square matrices that are multiplied
IMAGES, SIDE, KERNEL = 8, 32, 3  # of the convolution; it has an eighth as many channels as the matrices have rows
REPETITIONS = 7


class Kernel(NamedTuple):
    """One candidate."""

    name: str
    operations: float
    run: Callable[[], Tensor]


class Ceiling(NamedTuple):
    """FLOP/s of the fastest kernel, and which one it was."""

    flops: float
    kernel: str


class Ceilings(dict[Precision, Ceiling]):
    """Ceilings of a device in each arithmetic, measured on first use."""

    def __init__(self, device: torch.device):
        super().__init__()
        self.device = device

    def __missing__(self, precision: Precision) -> Ceiling:
        """Measure the ceiling in one arithmetic."""
        self[precision] = ceiling(self.device, precision)
        return self[precision]


def ceiling(device: torch.device, precision: Precision = "float32") -> Ceiling:
    """Return the FLOP/s of the fastest kernel in this arithmetic on all threads, of medians taken in turn."""
    with _matrix_products(precision):
        found = list(kernels(device, precision))
        seconds, _ = stopwatch.in_turn([kernel.run for kernel in found], REPETITIONS, device)
    return max(Ceiling(kernel.operations / one, kernel.name) for kernel, one in zip(found, seconds, strict=True))


def kernels(device: torch.device, precision: Precision) -> Iterator[Kernel]:
    """Yield the candidates: on a GPU torch's product; on a CPU oneDNN's products and a convolution too."""
    rows = MATRIX[device.type]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    first, second = (torch.randn(rows, rows, device=device).to(dtype) for _ in range(2))
    count = 2.0 * rows**3
    in_float32 = device.type == "cpu" and dtype == torch.float32
    mkl = in_float32 and torch.backends.mkl.is_available()
    yield Kernel("MKL's product" if mkl else "torch's product", count, lambda: first @ second)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return
    if in_float32 and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        linear = torch.ops.mkldnn._linear_pointwise
        yield Kernel("oneDNN's product", count, lambda: linear(first, second, None, "none", [], ""))
    if in_float32 and products.is_exact():
        yield Kernel("torch's product through oneDNN", count, lambda: products.product(first, second))
    channels = max(1, rows // 8)
    x = torch.randn(IMAGES, channels, SIDE, SIDE).to(dtype, memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, KERNEL, KERNEL).to(dtype, memory_format=torch.channels_last)
    operations = 2.0 * IMAGES * SIDE**2 * channels**2 * KERNEL**2
    yield Kernel("a convolution", operations, lambda: F.conv2d(x, weight, padding="same"))


@contextmanager
def _matrix_products(precision: Precision) -> Iterator[None]:
    """Let a GPU's matrix products compute in this arithmetic."""
    switch = torch.backends.cuda.matmul
    before, switch.fp32_precision = switch.fp32_precision, "tf32" if precision == "tf32" else "ieee"
    try:
        yield
    finally:
        switch.fp32_precision = before
