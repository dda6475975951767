"""The source of every random number: seeds derived by role, and generators of standard normal noise.

No seed serves two purposes: changing the chain's seed leaves the data order as it was. Each sampled image has its own
stream of noise, so that the image does not depend on the rest of its batch. A stream's scheme has a name with a version
(`Scheme`): the numbers of a name never change.
"""

import hashlib
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, SupportsIndex, TypeAlias, runtime_checkable

import torch

from jlebm import philox
from jlebm.choices import GENERATOR, Scheme
from jlebm.errors import UserError
from jlebm.latents import Latents, map_latents

ROLES = (
    "initialisation",
    "data",
    "training noise",
    "sample",
    "posterior",
    "chain",
    "evaluation",
    "re-estimation",
    "layers",
)


def derive_seed(role: str, *parts: SupportsIndex) -> int:
    """Return the seed of one role: 63 bits of the SHA-256 of the role's name and `parts` (a seed, an epoch, an image).

    Raises:
        ValueError: the role is not one of `ROLES`.
    """
    if role not in ROLES:
        raise ValueError(f"unknown role {role!r}, not one of {ROLES}")
    text = "/".join([role, *(str(operator.index(part)) for part in parts)])  # a tensor's or numpy's whole number too
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(role: str, *parts: SupportsIndex, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a new generator on `device`, seeded for this role; on a CPU torch keeps the seed's lower 32 bits."""
    return torch.Generator(device).manual_seed(derive_seed(role, *parts))


NORMAL_BLOCK = 16  # numbers that torch's CPU generator makes together; it fills an incomplete block differently
LARGEST_DRAW = 2**22  # numbers in memory at once when several draws are made together

Noise: TypeAlias = Callable[[Latents], Latents]
"""A source of standard normal draws: returns latents of the shapes, type and device of its argument, and each call
continues its stream."""


@runtime_checkable
class HasSeries(Protocol):
    """A noise source that can draw for several calls at once."""

    def series(self, like: Latents, count: int) -> Iterator[Latents]:
        """Yield the draws of `count` calls, the same numbers as separate calls; all must be consumed."""
        ...


def series(noise: Noise, like: Latents, count: int) -> Iterator[Latents]:
    """Yield the draws of `count` calls, drawn at once if the source can."""
    return noise.series(like, count) if isinstance(noise, HasSeries) else (noise(like) for _ in range(count))


class SharedNoise:
    """Noise from one generator for the whole batch, for training.

    Each process that shares a batch draws noise for all of it and keeps its own rows: the stream does not depend on the
    number of processes.
    """

    def __init__(self, generator: torch.Generator, part: int = 0, parts: int = 1):
        self.generator, self.part, self.parts = generator, part, parts

    def __call__(self, like: Latents) -> Latents:
        """Return N(0, I) draws with the shapes, types and device of `like`."""
        return map_latents(self._draw, like)

    def _draw(self, layer: torch.Tensor) -> torch.Tensor:
        rows = len(layer)
        shape = (rows * self.parts, *layer.shape[1:])
        drawn = torch.randn(shape, generator=self.generator, dtype=layer.dtype, device=layer.device)
        return drawn if self.parts == 1 else drawn[self.part * rows : (self.part + 1) * rows]


class PinnedRing:
    """Two buffers of pinned memory that are filled in turn while the GPU copies the other one.

    A new buffer for each draw would stay alive until its copy, and the host runs far ahead of a GPU with long chains.
    """

    def __init__(self, numbers: int):
        self.buffers = [torch.empty(numbers, pin_memory=True) for _ in range(2)]
        self.events = [torch.cuda.Event() for _ in self.buffers]
        self.turn = 0

    def next(self, rows: int, columns: int) -> torch.Tensor:
        """Return the buffer whose turn it is, after the copy that was begun from it."""
        self.turn = 1 - self.turn
        self.events[self.turn].synchronize()  # returns at once before the first copy
        return self.buffers[self.turn][: rows * columns].view(rows, columns)

    def copied(self) -> None:
        """Record on the current stream that the copy of this buffer has begun."""
        self.events[self.turn].record()


def _one_seed_each(like: Latents, seeds: int) -> None:
    if len(like[0]) != seeds:
        raise UserError(f"noise of {seeds} seeds is for as many images, not for {len(like[0])}")


class PerImageNoise:
    """Noise from one generator per image, for sampling.

    Row i of every draw depends on `seeds[i]` and on how many draws came before, never on the other rows. The draws
    are made in float32 on the CPU, so that they are the same numbers on every device.
    """

    def __init__(self, role: str, seeds: Sequence[int]):
        self.generators = [generator(role, seed) for seed in seeds]

    def __call__(self, like: Latents) -> Latents:
        """Return N(0, I) draws with the shapes, types and device of `like`; one row per seed."""
        return next(self.series(like, 1))

    def series(self, like: Latents, count: int) -> Iterator[Latents]:
        """Yield the draws of `count` calls: the same numbers, from fewer calls of each generator where possible."""
        _one_seed_each(like, len(self.generators))
        sizes = [layer[0].numel() for layer in like]
        size, rows = sum(sizes), len(self.generators)
        together = max(LARGEST_DRAW // (size * rows), 1) if size % NORMAL_BLOCK == 0 else 1
        ring = PinnedRing(min(together, max(count, 1)) * size * rows) if like[0].is_cuda else None
        for first in range(0, count, together):
            steps = min(together, count - first)
            drawn = torch.empty(rows, steps * size) if ring is None else ring.next(rows, steps * size)
            for row, each in zip(drawn.unbind(), self.generators, strict=True):
                row.normal_(generator=each)
            # Steps first, so that a step's layers are contiguous; one asynchronous transfer to a GPU.
            on_device = drawn.to(like[0].device, non_blocking=True).unflatten(1, (steps, size)).transpose(0, 1)
            if ring is not None:
                ring.copied()
            for step in on_device.contiguous():
                layers = zip(step.split(sizes, dim=1), like, strict=True)
                yield tuple(row.reshape(layer.shape).to(layer) for row, layer in layers)


class CounterNoise:
    """Noise from Philox for each image, made on the device of the latents, for sampling.

    Row i of every draw depends on `seeds[i]` and on how many draws came before, never on the other rows, and has the
    same bits on every device (`jlebm.philox`). Two streams share no counter: the role's word, the seed and the number
    of the draw are parts of it.

    Raises:
        UserError: a seed is negative or larger than 2^63 - 1.
    """

    def __init__(self, role: str, seeds: Sequence[int]):
        self.role, self.drawn = role_word(role), 0
        for seed in seeds:
            if not 0 <= seed <= philox.LARGEST_SEED:
                raise UserError(f"the noise philox/1 takes seeds of 0 to {philox.LARGEST_SEED}, not {seed}")
        self.seeds = torch.tensor(list(seeds), dtype=torch.int64)

    def __call__(self, like: Latents) -> Latents:
        """Return N(0, I) draws with the shapes, types and device of `like`; one row per seed."""
        return next(self.series(like, 1))

    def series(self, like: Latents, count: int) -> Iterator[Latents]:
        """Yield the draws of `count` calls: the same numbers, several calls' made together."""
        _one_seed_each(like, len(self.seeds))
        device, sizes = like[0].device, [layer[0].numel() for layer in like]
        self.seeds = self.seeds.to(device)
        together = max(LARGEST_DRAW // max(sum(sizes) * len(self.seeds), 1), 1)
        first, self.drawn = self.drawn, self.drawn + count
        for start in range(first, first + count, together):
            draws = range(start, min(start + together, first + count))
            for step in philox.normals(self.seeds, self.role, draws, sum(sizes)):
                layers = zip(step.split(sizes, dim=1), like, strict=True)
                yield tuple(row.reshape(layer.shape).to(layer) for row, layer in layers)


def role_word(role: str) -> int:
    """Return the 32 bits that stand for a role in a counter: the first of the SHA-256 of its name.

    Raises:
        ValueError: the role is not one of `ROLES`.
    """
    if role not in ROLES:
        raise ValueError(f"unknown role {role!r}, not one of {ROLES}")
    return int.from_bytes(hashlib.sha256(role.encode()).digest()[:4], "big")


SCHEMES: dict[Scheme, Callable[[str, Sequence[int]], Noise]] = {GENERATOR: PerImageNoise, "philox/1": CounterNoise}


def image_noise(role: str, seeds: Sequence[int], scheme: Scheme = GENERATOR) -> Noise:
    """Return the noise of one image per seed, row i from seed i alone, by a scheme of `SCHEMES`."""
    return SCHEMES[scheme](role, seeds)
