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

MOST_STEPS = 10  # in one graph; its launch is then a hundredth of its work
KEPT = 4  # graphs at a time, each with memory of its own: training has two, sampling one a batch size
WARM_UP = 3  # runs before a recording, in which libraries choose their algorithms and make their handles
CLOSE = {torch.float64: 1e-9, torch.float32: 1e-3}  # relative: what a recording may differ from the steps themselves

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
    if any(each._forward_hooks or each._forward_pre_hooks for each in (*backbone.modules(), *energy.modules())):
        return None
    return Recordable((backbone, energy), inputs, rebuilt, (type(density), *kind))


def _known(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.modules.") or type(module) is NoEnergy


class Recording:
    """A few steps of one kind of chain, and the places that they read and write."""

    def __init__(self, parts: Recordable, step_in: StepIn, like: Latents, steps: int, record: Callable[[Work], Work]):
        """Record `steps` steps of positions of the shapes of `like`.

        Raises:
            RuntimeError: they cannot be recorded, or the recording gives something else than they do.
        """
        self.position, self.inputs = map_latents(torch.clone, like), map_latents(torch.clone, parts.inputs)
        # Some noise for the comparison below: each step other than the one before it.
        self.draws = [map_latents(lambda layer, n=n: layer.roll(n, 0), like) for n in range(1, steps + 1)]
        density = parts.rebuilt(self.inputs)

        def taken() -> Latents:
            position, step = self.position, step_in(density)
            for xi in self.draws:
                position = step(position, xi)
            return position

        self.launch = record(lambda: _copy(taken(), self.position))
        _copy(like, self.position)
        expected = taken()
        self.launch()
        for found, right in zip(self.position, expected, strict=True):
            apart = float((found - right).abs().max() / right.abs().max().clamp(min=torch.finfo(right.dtype).tiny))
            if not apart <= CLOSE.get(right.dtype, 1e-3):
                raise RuntimeError(f"a recorded step gives other latents than the step itself, by {apart:.1e} relative")

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


_kept: OrderedDict[Hashable, _Kept] = OrderedDict()
_watched = False


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
    record = recorder(position[0].device)
    parts = recordable(density) if record is not None and steps > 0 else None
    if record is None or parts is None:
        return None
    together = max(count for count in range(1, MOST_STEPS + 1) if steps % count == 0)
    shape = together, _layout((*position, *parts.inputs)), _arithmetic(position[0].device)
    key = (parts.kind, setting, shape, *map(id, parts.modules), *map(_state, parts.modules))
    kept = _kept.get(key)
    if kept is None or any(owner() is not module for owner, module in zip(kept.owners, parts.modules, strict=True)):
        try:
            recording = Recording(parts, step_in, position, together, record)
        except RuntimeError as error:
            warnings.warn(f"a chain is run step by step, not as a CUDA graph: {error}", stacklevel=3)
            recording = None
        kept = _Kept(tuple(map(weakref.ref, parts.modules)), recording)
        _kept[key] = kept
        if len(_kept) > KEPT:
            _kept.popitem(last=False)
    _kept.move_to_end(key)
    recording = kept.recording
    return None if recording is None else lambda start, draws: recording.run(start, parts.inputs, steps, draws)


def recorder(device: torch.device) -> Callable[[Work], Work] | None:
    """Return what records work on a device; None where launches cost next to nothing."""
    return _cuda_graph if device.type == "cuda" and not _watched else None


@contextmanager
def step_by_step() -> Iterator[None]:
    """Record nothing and launch no recording: for who watches each operation, which a recording hides."""
    global _watched
    before, _watched = _watched, True
    try:
        yield
    finally:
        _watched = before


def _cuda_graph(work: Work) -> Work:
    """Record what `work` launches, and return what launches it again (docs.pytorch.org, notes/cuda, CUDA graphs)."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Another thread may ask the device something meanwhile, as NCCL's does.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    return graph.replay


def _arithmetic(device: torch.device) -> tuple[Any, ...]:
    """Return the settings of the process that choose a kernel's arithmetic."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    return cudnn.allow_tf32, matmul.allow_tf32, torch.is_autocast_enabled(device.type)


def _copy(values: Latents, places: Latents) -> None:
    for value, place in zip(values, places, strict=True):
        place.copy_(value)


def _layout(tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    return tuple((tensor.shape, tensor.stride(), tensor.dtype, tensor.device) for tensor in tensors)


def _state(module: nn.Module) -> tuple[Any, ...]:
    """Return where the weights lie and in which mode each part is: what a recording cannot see change."""
    tensors: list[Tensor] = [*module.parameters(), *module.buffers()]
    return (*_layout(tensors), *(each.data_ptr() for each in tensors), *(m.training for m in module.modules()))
