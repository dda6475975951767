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
from torch.distributed.rendezvous import rendezvous

from jlebm.errors import UserError

T = TypeVar("T")


class PeerLost(UserError):
    """Another process of the same run ended without a word."""


GRACE = 10.0  # seconds that the first process has to say why it leaves, before another one ends them all
MEETING = datetime.timedelta(minutes=10)  # in which all processes must have been started
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

    Raises:
        UserError: not all processes come within `MEETING`, or the environment does not say where they meet.
        PeerLost: one of them ended without a word.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield
        return
    _join("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")  # objects travel by gloo also beside GPUs
    lost = False
    try:
        yield
    except UserError as error:
        lost = isinstance(error, PeerLost)
        if not first():
            time.sleep(GRACE)
        raise
    finally:
        if not lost:  # the end of the group would wait for what is under way with the lost one
            distributed.destroy_process_group()


def _join(backend: str) -> None:
    """Meet the other processes.

    Raises:
        UserError: they do not all come, or the environment does not say where they meet.
    """
    try:
        store, number, count = next(rendezvous("env://", timeout=MEETING))
        distributed.init_process_group(backend, store=store, rank=number, world_size=count, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        why = f"{error}".splitlines()[0]
        raise UserError(f"the processes of this run do not find each other ({why}); start it with torchrun") from error


@contextmanager
def _talking() -> Iterator[None]:
    """Turn the error of a process whose peers do not answer into a sentence."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLost(
            "another process of this run is gone or can't be reached; start the same command again in all of them: it "
            "goes on from the last checkpoint, where there is one"
        ) from error


def agreed(value: T) -> T:
    """Return the first process's value in every process."""
    if size() == 1:
        return value
    held = [value]
    with _talking():
        distributed.broadcast_object_list(held, src=0, device=torch.device("cpu"))
    return held[0]


def anywhere(value: bool) -> bool:
    """Whether it is so in one process at least."""
    if size() == 1:
        return value
    held = torch.tensor(int(value))
    with _talking():
        distributed.all_reduce(held, distributed.ReduceOp.MAX)
    return bool(held)


def barrier() -> None:
    """Wait until every process is here: what the first one wrote before is there for all of them after."""
    agreed(None)
    everywhere(None)


def everywhere(value: T) -> list[T]:
    """Return the values of all processes, by rank."""
    if size() == 1:
        return [value]
    values: list[T | None] = [None] * size()
    with _talking():
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
    with _talking():
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

    Raises:
        UserError: what one of them met in making its items, in every process.
    """
    for begun in range(0, count, size()):
        try:
            mine = next(items, None) if items is not None and begun + rank() < count else None
        except UserError as error:
            mine = error
        for made in everywhere(mine)[: count - begun]:
            assert made is not None, "a process made fewer items than its share"
            if isinstance(made, UserError):
                raise made
            yield made
