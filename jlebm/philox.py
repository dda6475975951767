"""Counter-based random numbers: Philox 4x32-10, and standard normal numbers that are the same bits on every device.

Philox (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011) maps a counter of four
32-bit words and a key of two to four random words by ten rounds of integer arithmetic. Any number of a stream is
computed by itself: there is no generator to keep, and a GPU needs no host for it.

    key      the image's seed: low word, high word
    counter  block of four numbers, draw, 0, role

Two words make two normal numbers by Box and Muller's transform. Its logarithm, sine and cosine are polynomials in
float32 here, made of additions, multiplications, one division and one square root in a fixed order. IEEE 754 rounds
each of these correctly, so that the numbers have the same bits wherever the operations are IEEE 754's: on CPUs and on
CUDA devices, by torch's operations or by the kernel of `jlebm.philox_kernel`. A word is rounded to the 24 bits of
float32 before its logarithm, as in other generators; a number is at most sqrt(64 log 2) = 6.66 in size.
"""

import functools
import math
import warnings
from types import ModuleType

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

MASK = 2**32 - 1  # all bits of a word
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
INCREMENTS = 0x9E3779B9, 0xBB67AE85  # added to the key's words after each round
ROUNDS = 10
WORDS = 4  # in a block
CHUNK = {"cpu": 2**15, "cuda": 2**22}  # blocks computed at a time: what a core's cache holds; on a GPU, its memory
LARGEST_SEED = 2**63 - 1

# Coefficients in rising powers of the square of the argument.
LOGARITHM = (1.0, 1 / 3, 1 / 5, 1 / 7, 1 / 9)  # series of atanh(s) / s, for |s| <= 0.1716
SINE = (1.0, -1 / 6, 1 / 120, -1 / 5040, 1 / 362880)  # series of sin(a) / a, for |a| <= pi / 4
COSINE = (1.0, -1 / 2, 1 / 24, -1 / 720, 1 / 40320, -1 / 3628800)
LOG_2 = math.log(2)
ROOT_2 = 1.4142135  # where the mantissa is halved
ANGLE = math.pi / 2 * 2.0**-30  # angle of one step of a word's lower thirty bits

Words = tuple[Int64[Tensor, "..."], Int64[Tensor, "..."], Int64[Tensor, "..."], Int64[Tensor, "..."]]


def philox(counter: Words, key: tuple[Tensor, Tensor]) -> Words:
    """Return the four random words of each counter; words are int64 tensors of 0 to 2^32 - 1, shapes broadcast."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        # The product wraps around in int64; the mask gives the right halves of it all the same.
        low, high = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c2 = ((high >> 32) ^ c1 ^ k0) & MASK, ((low >> 32) ^ c3 ^ k1) & MASK
        c1, c3 = high & MASK, low & MASK
        k0, k1 = (k0 + INCREMENTS[0]) & MASK, (k1 + INCREMENTS[1]) & MASK
    return c0, c1, c2, c3


def box_muller(first: Int64[Tensor, "..."], second: Int64[Tensor, "..."]) -> tuple[Tensor, Tensor]:
    """Return two independent N(0, 1) numbers, float32, from two random words, int64 of 0 to 2^32 - 1."""
    # By way of float64: a CPU's float32 root may be one bit off, and of a float64 one the rounding is right (Figueroa,
    # "When is double rounding innocuous?", 1995).
    radius, quarter = _log_uniform(first).mul_(-2.0).double().sqrt_().float(), second >> 30
    angle = ((second & (2**30 - 1)) - 2**29).float().mul_(ANGLE)
    square = angle * angle
    sine, cosine = _polynomial(SINE, square).mul_(angle), _polynomial(COSINE, square)
    odd = (quarter & 1).bool()
    x, y = torch.where(odd, sine, cosine), torch.where(odd, cosine, sine)
    x, y = torch.where((quarter == 1) | (quarter == 2), -x, x), torch.where(quarter >= 2, -y, y)
    return x.mul_(radius), y.mul_(radius)


def _log_uniform(word: Int64[Tensor, "..."]) -> Float32[Tensor, "..."]:
    """Return log((word + 1) / 2^32)."""
    bits = (word + 1).float().view(torch.int32)
    mantissa = ((bits & 0x7FFFFF) | 0x3F800000).view(torch.float32)
    halved = mantissa > ROOT_2
    mantissa = torch.where(halved, mantissa * 0.5, mantissa)
    exponent = ((bits >> 23) - (127 + 32) + halved).float()
    s = (mantissa - 1.0) / (mantissa + 1.0)
    return exponent.mul_(LOG_2).add_(_polynomial(LOGARITHM, s * s).mul_(s).mul_(2.0))


def _polynomial(coefficients: tuple[float, ...], x: Float32[Tensor, "..."]) -> Float32[Tensor, "..."]:
    value = x * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        value.add_(coefficient).mul_(x)
    return value.add_(coefficients[0])


def normals(seeds: Int64[Tensor, " rows"], role: int, draws: range, size: int) -> Float32[Tensor, "draws rows size"]:
    """Return N(0, 1) numbers on the seeds' device: row i of draw j depends on seed i, the role and j alone.

    Args:
        seeds: one per row, 0 to 2^63 - 1.
        role: the counter's fourth word, 0 to 2^32 - 1.
        draws: consecutive numbers of draws, each less than 2^32.
        size: numbers per row, at most 2^34.
    """
    launched = kernel(seeds.device) if seeds.is_cuda else None
    return (by_operations if launched is None else launched.normals)(seeds, role, draws, size)


def by_operations(
    seeds: Int64[Tensor, " rows"], role: int, draws: range, size: int
) -> Float32[Tensor, "draws rows size"]:
    """Return what `normals` returns, by torch's own operations, a bounded number of blocks at a time."""
    rows, blocks = len(seeds), -(-size // WORDS)
    pairs = len(draws) * rows
    out = torch.empty(pairs, blocks, WORDS, device=seeds.device)
    number = torch.arange(pairs, device=seeds.device)[:, None]
    draw, row = number // max(rows, 1) + draws.start, number % max(rows, 1)
    key = seeds[row] & MASK, seeds[row] >> 32
    most = CHUNK["cuda" if seeds.is_cuda else "cpu"]
    together = max(most // max(blocks, 1), 1)
    zero, roles = torch.zeros_like(number[:1]), torch.full_like(number[:1], role)
    for start in range(0, pairs, together):
        chosen = slice(start, start + together)
        for first in range(0, blocks, most):
            block = torch.arange(first, min(first + most, blocks), device=seeds.device)[None]
            words = philox((block, draw[chosen], zero, roles), (key[0][chosen], key[1][chosen]))
            place = out[chosen, first : first + most]
            place[..., 0], place[..., 1] = box_muller(words[0], words[1])
            place[..., 2], place[..., 3] = box_muller(words[2], words[3])
    return out.reshape(len(draws), rows, blocks * WORDS)[..., :size]


@functools.cache
def kernel(device: torch.device) -> ModuleType | None:
    """Return the module of the kernel that a CUDA device runs; None without Triton, or if its numbers differ.

    The kernel is compiled and compared with torch's operations once per device.
    """
    try:
        from jlebm import philox_kernel
    except ImportError:
        return None
    seeds, why = torch.tensor([0, LARGEST_SEED], device=device), "it computes other numbers"
    try:
        if torch.equal(philox_kernel.normals(seeds, MASK, range(2), 101), by_operations(seeds, MASK, range(2), 101)):
            return philox_kernel
    except Exception as error:  # whatever a compiler that is missing or too old raises
        why = str(error)
    warnings.warn(f"noise is made by torch's operations, the kernel cannot be used: {why}", stacklevel=4)
    return None
