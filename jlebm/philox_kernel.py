"""The normal numbers of `jlebm.philox` in one launch on a GPU, by Triton; importing it without Triton fails.

The same operations in the same order give the same bits. Triton would contract a product and a sum into one rounding,
and would take an approximate division and square root: the first is switched off where the kernel is launched, for the
others their correctly rounded forms are called.
"""

from typing import Any

import torch
import triton
from jaxtyping import Float32, Int64
from torch import Tensor
from triton import language as tl

BLOCK = 256  # blocks of four numbers per program


@triton.jit
def _log_uniform(word):
    bits = (word.to(tl.int64) + 1).to(tl.float32).to(tl.int32, bitcast=True)
    mantissa = ((bits & 0x7FFFFF) | 0x3F800000).to(tl.float32, bitcast=True)
    halved = mantissa > 1.4142135
    mantissa = tl.where(halved, mantissa * 0.5, mantissa)
    exponent = ((bits >> 23) - 159 + halved.to(tl.int32)).to(tl.float32)
    s = tl.div_rn(mantissa - 1.0, mantissa + 1.0)
    x = s * s
    value = x * (1 / 9)
    value = (value + (1 / 7)) * x
    value = (value + (1 / 5)) * x
    value = (value + (1 / 3)) * x + 1.0
    return exponent * 0.6931471805599453 + value * s * 2.0


@triton.jit
def _box_muller(first, second):
    radius = tl.sqrt_rn(_log_uniform(first) * -2.0)
    second = second.to(tl.int64)
    quarter = second >> 30
    angle = ((second & 0x3FFFFFFF) - 0x20000000).to(tl.float32) * 1.4629180792671596e-09
    x = angle * angle
    sine = x * (1 / 362880)
    sine = (sine + (-1 / 5040)) * x
    sine = (sine + (1 / 120)) * x
    sine = ((sine + (-1 / 6)) * x + 1.0) * angle
    cosine = x * (-1 / 3628800)
    cosine = (cosine + (1 / 40320)) * x
    cosine = (cosine + (-1 / 720)) * x
    cosine = (cosine + (1 / 24)) * x
    cosine = (cosine + (-1 / 2)) * x + 1.0
    odd = (quarter & 1) == 1
    a = tl.where(odd, sine, cosine)
    b = tl.where(odd, cosine, sine)
    a = tl.where((quarter == 1) | (quarter == 2), -a, a)
    b = tl.where(quarter >= 2, -b, b)
    return a * radius, b * radius


@triton.jit
def fill(seeds, out, sizes, count: tl.constexpr):
    """Write `normals`; sizes are role, first draw, number of draws, of rows, and of numbers per row."""
    role, first, draws, rows, size = sizes
    blocks = (size + 3) // 4
    index = tl.program_id(0).to(tl.int64) * count + tl.arange(0, count).to(tl.int64)
    live = index < blocks * rows * draws
    pair, block = index // blocks, index % blocks
    seed = tl.load(seeds + pair % rows, mask=live, other=0)
    zero = tl.zeros_like(block)
    c0, c1 = block.to(tl.uint32), (pair // rows + first).to(tl.uint32)
    w0, w1, w2, w3 = tl.philox(seed, c0, c1, zero.to(tl.uint32), (zero + role).to(tl.uint32))
    a, b = _box_muller(w0, w1)
    c, d = _box_muller(w2, w3)
    place = block * 4
    start = out + pair * size + place
    tl.store(start, a, mask=live & (place < size))
    tl.store(start + 1, b, mask=live & (place + 1 < size))
    tl.store(start + 2, c, mask=live & (place + 2 < size))
    tl.store(start + 3, d, mask=live & (place + 3 < size))


def normals(seeds: Int64[Tensor, " rows"], role: int, draws: range, size: int) -> Float32[Tensor, "draws rows size"]:
    """Return what `jlebm.philox.normals` returns, arguments as there, in one launch."""
    out = torch.empty(len(draws), len(seeds), size, device=seeds.device)
    programs = triton.cdiv(len(draws) * len(seeds) * (-(-size // 4)), BLOCK)
    if programs:
        sizes = (role, draws.start, len(draws), len(seeds), size)
        launch: Any = fill[(programs,)]  # takes options of the compiler beside the kernel's parameters
        launch(seeds, out, sizes, count=BLOCK, enable_fp_fusion=False)
    return out
