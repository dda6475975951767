"""Steps of a chain recorded as CUDA graphs, which a GPU launches at once and not kernel by kernel.

A step is some fifty to two thousand kernels, and most of them run for a shorter time than their launch takes. Which
chains are recorded depends on what their density is, on nothing that a caller says: a backbone that declares itself
`recordable`, energies of torch's own layers, a density of this library. Everything else, and every device that is no
GPU, takes its steps one by one (`jlebm.langevin`); both give the same chain.

A graph holds a few steps, not a whole chain: while it runs the noise of the next ones is drawn, a chain of any length
is made of it, and neither its memory nor the time to record it grows with the chain. What it reads and writes lies in
fixed places: the position, the noise, images and given latents are copied into theirs, and weights are read where they
lie, so that an update in place is seen.
"""

import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from jlebm.densities import LogDensity, Posterior, PriorInLatents, PriorInNoise
from jlebm.energies import JointEnergy, NoEnergy
from jlebm.latents import Latents, map_latents

MOST_STEPS = 10  # of vectors in one graph, whose launch is then a hundredth of its work; of maps one step is enough
KEPT = 4  # graphs at a time, each with memory of its own: training has two, sampling one a batch size
CLOSE = 1e-2  # of the farthest that a latent moves: what a recording may differ from the steps themselves

Step: TypeAlias = Callable[[Latents, Latents], Latents]
"""From a position and its noise to the next position."""
StepIn: TypeAlias = Callable[[LogDensity], Step]
Work: TypeAlias = Callable[[], None]


class Recordable(NamedTuple):
    """A density taken apart: what a graph may read where it lies, and what is copied into its places."""

    modules: tuple[nn.Module, nn.Module]
    """Backbone and energy, whose weights are read where they lie."""
    inputs: Latents
    """Images or given latents, which are others in the next chain."""
    rebuilt: Callable[[Latents], LogDensity]
    """The same density of other inputs."""
    kind: tuple[Any, ...]


def recordable(density: LogDensity) -> Recordable | None:
    """Take a density apart; None where its steps may depend on more than weights, position and inputs."""
    inputs, rebuilt, kind = (), lambda _: density, ()
    if type(density) not in (PriorInLatents, PriorInNoise, Posterior):
        return None
    if isinstance(density, PriorInNoise):
        inputs, rebuilt, kind = density.given, lambda given: replace(density, given=given), (density.drift,)
    elif isinstance(density, Posterior):
        inputs, rebuilt = (density.x,), lambda images: replace(density, x=images[0])
    assert isinstance(density, PriorInLatents | PriorInNoise | Posterior)
    backbone, energy = density.backbone, density.energy
    # Each class says it for itself: a subclass may do in Python what a recording would not repeat.
    if not isinstance(backbone, nn.Module) or not vars(type(backbone)).get("recordable", False):
        return None
    if type(energy) is not JointEnergy or not all(map(_known, energy.networks.modules())):
        return None
    return Recordable((backbone, energy), inputs, rebuilt, (type(density), *kind))


def _known(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.modules.") or type(module) is NoEnergy


class Differs(Exception):
    """A recording does not repeat its steps."""


class Recording:
    """A few steps of one kind of chain, and the places that they read and write."""

    def __init__(self, parts: Recordable, step_in: StepIn, like: Latents, steps: int, record: Callable[[Work], Work]):
        """Record `steps` steps of positions of the shapes of `like`, and see whether it repeats them.

        Raises:
            RuntimeError: they cannot be recorded.
            Differs: the recording gives something else than they do.
        """
        self.position, self.inputs = map_latents(torch.clone, like), map_latents(torch.clone, parts.inputs)
        # Some noise for the comparison: each step other than the one before it.
        self.draws = [map_latents(lambda layer, n=n: layer.roll(n, 0), like) for n in range(1, steps + 1)]
        density = parts.rebuilt(self.inputs)

        def taken() -> Latents:
            position, step = self.position, step_in(density)
            for xi in self.draws:
                position = step(position, xi)
            return position

        right = taken()
        self.launch = record(lambda: _copy(taken(), self.position))
        _copy(like, self.position)
        self.launch()
        for start, end, found in zip(like, right, self.position, strict=True):
            moved = (end - start).abs().max().clamp(min=torch.finfo(end.dtype).tiny)
            apart = float((found - end).abs().max() / moved)
            if not apart <= CLOSE:
                raise Differs(f"a recording gives other latents than the steps, by {apart:.1e} of what they move")

    def run(self, position: Latents, inputs: Latents, steps: int, draws: Iterator[Latents]) -> Latents:
        """Take `steps` steps from `position`, a multiple of the recorded ones, and return where they end."""
        _copy(position, self.position)
        _copy(inputs, self.inputs)
        for _ in range(steps // len(self.draws)):
            for place in self.draws:
                _copy(next(draws), place)
            self.launch()
        return map_latents(torch.clone, self.position)


class _Kept(NamedTuple):
    owners: tuple["weakref.ref[nn.Module]", ...]
    recording: Recording | None
    """None where it was tried in vain."""

    def of(self, modules: Sequence[nn.Module]) -> bool:
        """Whether it is of these very modules, which are still there."""
        return all(owner() is module for owner, module in zip(self.owners, modules, strict=True))


_kept: OrderedDict[Hashable, _Kept] = OrderedDict()
_off = False


def recorded(
    density: LogDensity, step_in: StepIn, setting: Any, position: Latents, steps: int
) -> Callable[[Latents, Iterator[Latents]], Latents] | None:
    """Return a way to take `steps` steps at once; None where they are to be taken one by one.

    Args:
        density: what the chain moves in.
        step_in: makes a step of it; called anew for each recording.
        setting: whatever else changes a step, such as its size.
        position: where the chain starts.
        steps: how many there are.
    """
    device = position[0].device
    record = None if _off or steps == 0 or torch.is_autocast_enabled(device.type) else recorder(device)
    parts = None if record is None else recordable(density)
    weights = None if parts is None else _weights(parts.modules)
    if record is None or parts is None or weights is None:
        return None
    most = MOST_STEPS if all(layer.dim() == 2 for layer in position) else 1
    together = max(count for count in range(1, most + 1) if steps % count == 0)
    shape = together, tuple(map(_layout, (*position, *parts.inputs))), _tf32()
    key = (parts.kind, setting, shape, *map(id, parts.modules), weights)
    kept = _kept.get(key)
    if kept is None or not kept.of(parts.modules):
        kept = _Kept(tuple(map(weakref.ref, parts.modules)), _attempt(parts, step_in, position, together, record))
        _kept[key] = kept
    _kept.move_to_end(key)
    recording = kept.recording
    return None if recording is None else lambda start, draws: recording.run(start, parts.inputs, steps, draws)


def _attempt(
    parts: Recordable, step_in: StepIn, position: Latents, steps: int, record: Callable[[Work], Work]
) -> Recording | None:
    """Record, with room made for it; None, and a warning, where that fails."""
    global _off
    for key in [key for key, kept in _kept.items() if any(owner() is None for owner in kept.owners)]:
        del _kept[key]
    while len(_kept) >= KEPT:
        _kept.popitem(last=False)
    try:
        with torch.inference_mode(False):  # the places are written to in any mode
            return Recording(parts, step_in, position, steps, record)
    except Differs as error:
        why = error
    except RuntimeError as error:
        # What broke the recording, if anything is known of it, and not only that it broke. Nothing is tried again in
        # this process: an allocator that has seen a recording break is not to be trusted with another.
        why, _off = error.__context__ or error, True
    warnings.warn(f"chains are run step by step, not as a CUDA graph: {why}", stacklevel=4)
    return None


def recorder(device: torch.device) -> Callable[[Work], Work] | None:
    """Return what records work on a device; None where launches cost next to nothing."""
    return _cuda_graph if device.type == "cuda" else None


@contextmanager
def step_by_step() -> Iterator[None]:
    """Record nothing and launch no recording: for who watches each operation, which a recording hides."""
    global _off
    before, _off = _off, True
    try:
        yield
    finally:
        _off = before


def _cuda_graph(work: Work) -> Work:
    """Record what `work` launches, and return what launches it again (docs.pytorch.org, notes/cuda, CUDA graphs)."""
    current = torch.cuda.current_stream()
    side = torch.cuda.Stream()
    side.wait_stream(current)
    with torch.cuda.stream(side):
        work()  # libraries choose their algorithms and make their handles outside of the recording
    current.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        # Another thread may ask the device something meanwhile, as NCCL's does.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            work()
    finally:  # torch leaves its own stream the current one where ending the recording fails
        torch.cuda.set_stream(current)
    return graph.replay


def _copy(values: Latents, places: Latents) -> None:
    for value, place in zip(values, places, strict=True):
        place.copy_(value)


def _tf32() -> tuple[Any, ...]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def _weights(modules: Sequence[nn.Module]) -> tuple[Any, ...] | None:
    """Return where the weights lie and in which mode each part is: what a recording cannot see change.

    None where a hook makes a call more than the module. One pass, since a deep hierarchy has thousands of parts.
    """
    found: list[Any] = []
    for module in modules:
        for part in module.modules():
            if part._forward_hooks or part._forward_pre_hooks:
                return None
            found.append(part.training)
            for tensor in (*part._parameters.values(), *part._buffers.values()):
                if tensor is not None:
                    found += (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
    return tuple(found)
