"""A CUDA graph's semantics on a CPU: what was launched once is launched again, in the same memory, without Python.

It refuses what cannot be recorded: an operation whose result the host reads, one whose shape depends on values, a
tensor made of the host's numbers, a draw of torch's own generator.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

REFUSED = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.nondeterministic_seeded)


class Tape(TorchDispatchMode):
    """Keeps every operation below autograd, its backward pass included, with the tensors that it read and wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple, dict, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.lift_fresh.default or any(tag in func.tags for tag in REFUSED):
            raise RuntimeError(f"{func} cannot be recorded")
        out = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def play(self) -> None:
        """Do all of it again; what is computed goes where it went the first time."""
        for func, args, kwargs, out in self.operations:
            again = func(*args, **kwargs)
            if all(value.alias_info is None for value in func._schema.returns):  # neither a view nor in place
                for place, value in zip(tree_leaves(out), tree_leaves(again), strict=True):
                    if isinstance(place, torch.Tensor):
                        place.copy_(value)


def record(work: Callable[[], None]) -> Callable[[], None]:
    """Record `work` after a run of it, as `jlebm.engines.graphs` does on a GPU."""
    work()
    with Tape() as tape:
        work()
    return tape.play
