"""Data parallelism: the processes that torchrun starts share the work; one process alone does all of it.

All processes run the same code on the same configuration. The first one alone writes files and reports; it also decides
whatever depends on a clock, a signal or a file, for all. Work is shared by whole batches, whose results come back to
every process in order, so that nothing later depends on the number of processes.
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
    """Another process of the same run ended without an error message."""


GRACE = 10.0  # seconds for the first process to report why it ends, before another one ends them all
MEETING = datetime.timedelta(minutes=10)  # within which all processes must have started
PATIENCE = 4 * 3600.0  # seconds; longest wait for another process, such as for the first one's download
LONGEST = 1e9  # seconds
PATIENCE_VARIABLE = "JLEBM_PATIENCE"  # environment variable: another number of seconds


def rank() -> int:
    """Return this process's number, 0 for the first and for a single one."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def size() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def first() -> bool:
    """Whether this process is the one that writes files and reports."""
    return rank() == 0


def local_rank() -> int:
    """Return this process's number on its machine, which is the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def patience() -> float:
    """Return the seconds that a process waits for another, in `JLEBM_PATIENCE` or `PATIENCE`.

    A machine that vanishes does not close its connections: this wait alone notices it.

    Raises:
        UserError: the variable is not a positive number.
    """
    text = os.environ.get(PATIENCE_VARIABLE, str(PATIENCE))
    try:
        seconds = float(text)
        if not 0 < seconds < LONGEST:
            raise ValueError
    except ValueError:
        raise UserError(f"{PATIENCE_VARIABLE} is a positive number of seconds, not {text!r}") from None
    return seconds


@contextmanager
def world(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started, gloo on CPUs and NCCL on GPUs; alone, do nothing.

    The first process alone reports a `UserError` that every process meets. The others give it `GRACE` seconds, in which
    torchrun ends them; if the first one met none, they report theirs.

    Raises:
        UserError: not all processes join within `MEETING`, or the environment does not say where they meet.
        PeerLost: another process ended without an error message, or did not answer within `patience()`.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield
        return
    _join("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")  # gloo exchanges objects, also beside GPUs
    lost = False
    try:
        yield
    except UserError as error:
        lost = isinstance(error, PeerLost)
        if not first():
            time.sleep(GRACE)
        raise
    finally:
        if not lost:  # destroying the group would wait for the lost process
            distributed.destroy_process_group()


def _join(backend: str) -> None:
    """Join the process group.

    Raises:
        UserError: not all processes join, or the environment does not say where they meet.
    """
    timeout = datetime.timedelta(seconds=patience())
    try:
        store, number, count = next(rendezvous("env://", timeout=MEETING))
        distributed.init_process_group(backend, store=store, rank=number, world_size=count, timeout=timeout)
    except (RuntimeError, ValueError) as error:
        why = f"{error}".splitlines()[0]
        raise UserError(f"the processes of this run do not find each other ({why}); start it with torchrun") from error


@contextmanager
def _talking() -> Iterator[None]:
    """Turn the error of a process whose peers do not answer into a `PeerLost`."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLost(
            f"another process of this run is gone, or has not answered for {patience():g} seconds "
            f"({PATIENCE_VARIABLE}); start the same command again in all of them: it goes on from the last "
            "checkpoint, if there is one"
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
    """Whether a condition is true in at least one process."""
    if size() == 1:
        return value
    held = torch.tensor(int(value))
    with _talking():
        distributed.all_reduce(held, distributed.ReduceOp.MAX)
    return bool(held)


def barrier() -> None:
    """Wait for every process: files that the first one wrote before exist for all of them after."""
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
    """Call `make` in the first process and then in the others, which find what the first downloaded or cached.

    Raises:
        UserError: `make` raised it in the first process, which ends all processes and alone reports it.
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
    """Replace tensors by their mean over the processes, in one message; skip None."""
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
        UserError: the rows cannot be shared equally.
    """
    if count % size():
        raise UserError(
            f"{what} of {count} cannot be shared equally by {size()} processes; choose another --nproc-per-node"
        )
    part = count // size()
    return slice(rank() * part, (rank() + 1) * part)


def dealt(items: Iterator[T] | None, count: int) -> Iterator[T]:
    """Yield the results of all processes for `count` items in order, in every process.

    Args:
        items: this process's results, for the items rank, rank + size, rank + 2 size, ...; tensors on the CPU.
        count: number of items over all processes.

    Raises:
        UserError: a process met it while making its items; every process raises it.
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
