"""Several processes as one: what torchrun starts shares the work; one process alone shares nothing.

All processes run the same code on the same configuration. The first one alone writes files and speaks; whatever depends
on a clock, a signal or a file is decided by the first and agreed. Work is dealt out by whole batches, whose results
come back to every process in order, so that nothing after it depends on how many there are.
"""

import datetime
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, distributed

from jlebm.errors import UserError

T = TypeVar("T")
GRACE = 10.0  # seconds that the first process has to say why it leaves, before another one ends them all
PATIENCE = datetime.timedelta(days=2)  # a process may wait that long for the first one's download or evaluation


def rank() -> int:
    """Return this process's number, 0 for the first and for a single one."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def size() -> int:
    """Return how many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return rank() == 0


def local_rank() -> int:
    """Return the number of this process on its machine: the GPU that it takes."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def world(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started, gloo on CPUs and NCCL on GPUs; alone, do nothing.

    A `UserError` that every process meets is said by the first one alone. The others give it `GRACE` seconds, in which
    torchrun ends them; where the first one met none, they say theirs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    # Objects, such as decisions, travel by gloo also beside GPUs.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    except UserError as error:
        if not first():
            time.sleep(GRACE)
        raise error
    finally:
        distributed.destroy_process_group()


def agreed(value: T) -> T:
    """Return the first process's value in every process."""
    if size() == 1:
        return value
    held = [value]
    distributed.broadcast_object_list(held, src=0, device=torch.device("cpu"))
    return held[0]


def barrier() -> None:
    """Wait until every process is here: what the first one wrote before is there for all of them after."""
    agreed(None)
    everywhere(None)


def everywhere(value: T) -> list[T]:
    """Return the values of all processes, by rank."""
    if size() == 1:
        return [value]
    values: list[T | None] = [None] * size()
    distributed.all_gather_object(values, value)
    return values  # pyright: ignore[reportReturnType]


def after_first(make: Callable[[], T]) -> T:
    """Call `make` in the first process and then in the others, which find what it downloaded or cached.

    Raises:
        UserError: what `make` raises in the first process ends all of them, and it alone says so.
    """
    if size() == 1:
        return make()
    failed, made = 0, None
    if first():
        try:
            made = make()
        except UserError as error:
            agreed(error.exit_code)
            raise
    failed = agreed(failed)
    if failed:
        time.sleep(GRACE)
        raise SystemExit(failed)
    return made if first() else make()  # pyright: ignore[reportReturnType]


def average(tensors: Sequence[Tensor | None]) -> None:
    """Replace tensors by their mean over the processes, in one message; None is left out."""
    there = [tensor for tensor in tensors if tensor is not None]
    if size() == 1 or not there:
        return
    flat = torch.cat([tensor.flatten() for tensor in there])
    distributed.all_reduce(flat)
    flat /= size()
    for tensor, mean in zip(there, flat.split([tensor.numel() for tensor in there]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def share(count: int, what: str) -> slice:
    """Return this process's part of `count` rows.

    Raises:
        UserError: the processes cannot have equal parts.
    """
    if count % size():
        raise UserError(
            f"{what} of {count} cannot be shared equally by {size()} processes; choose another --nproc-per-node"
        )
    part = count // size()
    return slice(rank() * part, (rank() + 1) * part)


def dealt(items: Iterator[T] | None, count: int) -> Iterator[T]:
    """Yield what all processes made of `count` items in order, in every process.

    Args:
        items: this process's results: those of the items rank, rank + size, rank + 2 size, ...; tensors on the CPU.
        count: of items altogether.
    """
    for begun in range(0, count, size()):
        mine = next(items, None) if items is not None and begun + rank() < count else None
        for made in everywhere(mine)[: count - begun]:
            assert made is not None, "a process made fewer items than its share"
            yield made
