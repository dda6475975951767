"""Count what the networks of a configuration hold before anything is allocated, and compare it with the memory."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as registration
from torch.overrides import TorchFunctionMode

from jlebm.errors import UserError

COPIES = 4  # of each parameter in training: itself, its gradient and two moments of Adam
MOST_PARTS = 30_000  # modules, parameters and buffers; the deepest hierarchy of the presets has 10,296
OVERFLOWING = 2**28  # two sizes of this make more numbers than 64 bits count
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")  # a container's


class _ShapesAlone(TorchFunctionMode):
    """Leave out what does not change a shape: initialisations in place, and normalisations of the power method."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        in_place = name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
        if (in_place or func is nn.functional.normalize) and args and isinstance(args[0], Tensor) and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


class _TooMany(Exception):
    """The parts built so far do not fit into memory."""


class _Count:
    """The bytes and the parts of modules while they are built."""

    def __init__(self, most: int):
        self.most, self.bytes, self.parts = most, 0, 0

    def parameter(self, module: nn.Module, name: str, value: Tensor | None) -> None:
        self._add(value, COPIES)

    def buffer(self, module: nn.Module, name: str, value: Tensor | None) -> None:
        self._add(value, 1)

    def module(self, module: nn.Module, name: str, value: nn.Module | None) -> None:
        self._add(None, 1)

    def _add(self, value: Tensor | None, copies: int) -> None:
        self.parts += 1
        if isinstance(value, Tensor) and value.is_meta:  # a given backbone is there already
            self.bytes += copies * value.numel() * value.element_size()
        if self.bytes > self.most or self.parts > MOST_PARTS:
            raise _TooMany


def refuse_what_does_not_fit(build: Callable[[], object], config: dict[str, Any], device: torch.device) -> None:
    """Build networks on torch's meta device, which holds shapes and no numbers, and count their bytes.

    Building stops as soon as the parts made so far are too many.

    Args:
        build: makes the networks; a build that needs the numbers themselves is not counted.
        config: the JSON of its configuration, for the message.
        device: where they are to be trained.

    Raises:
        UserError: to train them takes more memory than the device has, or they have more parts than any network.
    """
    memory = memory_of(device)
    count = _Count(memory)
    hooks = [
        registration.register_module_parameter_registration_hook(count.parameter),
        registration.register_module_buffer_registration_hook(count.buffer),
        registration.register_module_module_registration_hook(count.module),
    ]
    name, largest = max(_numbers(config), key=lambda item: item[1], default=("", 0))
    told = f"the largest size in its configuration is {name} = {largest}"
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), _ShapesAlone():
            build()
    except _TooMany:
        if count.parts > MOST_PARTS:
            raise UserError(f"the model would have more than {MOST_PARTS:,} parts; {told}") from None
        raise UserError(
            f"training the model takes more than {count.bytes / 1e9:,.1f} GB, and the memory has {memory / 1e9:,.1f} "
            f"GB; {told}"
        ) from None
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:
        if largest >= OVERFLOWING:
            raise UserError(f"no memory holds a model of this size; {told}") from error
    finally:
        for hook in hooks:
            hook.remove()


def memory_of(device: torch.device) -> int:
    """Return the bytes of memory that a device has, or that this process may use of it."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    limits = [2**46]
    with suppress(AttributeError, OSError, ValueError):  # names that an operating system lacks
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, ValueError):  # no such file, or "max"
        limits.append(int(MEMORY_LIMIT.read_text()))
    return min(limits)


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """Yield the whole numbers of a configuration that are sizes of its networks, by key."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in ("training", "optimizer") and not key.endswith("chain"):
                yield from _numbers(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, name)
    elif type(value) is int:
        yield name, value
