"""Record steps of a chain as CUDA graphs, which a GPU launches at once instead of kernel by kernel.

A step has fifty to two thousand kernels, most of which run for less time than their launch takes. The density alone
decides whether a chain is recorded, not the caller: its backbone must declare itself `recordable`, its energies must
consist of torch's own layers, and it must be a density of this library. All other chains, and all chains on other
devices, run step by step (`jlebm.langevin`); both ways give the same chain.

A graph holds a few steps, not a whole chain: the noise of the next steps is drawn while it runs, it serves chains of
any length, and its memory and recording time do not grow with the chain. It reads and writes fixed memory: the
position, the noise, images and given latents are copied into buffers, and weights are read in place, so that an update
in place takes effect.

JLEBM_GRAPHS=0 in the environment runs every chain step by step.
"""

import os
import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from jlebm.densities import LogDensity, Posterior, PriorInLatents, PriorInNoise
from jlebm.energies import JointEnergy, NoEnergy
from jlebm.engines.precision import in_force
from jlebm.errors import UserError
from jlebm.latents import Latents, map_latents
from jlebm.networks import hooked

MOST_STEPS = 10  # steps per graph for vectors: its launch is then a hundredth of its work; feature maps need one step
KEPT = 4  # graphs at a time, each with its own memory: training has two, sampling one per batch size
CLOSE = 1e-2  # tolerance between a recording and the steps themselves, relative to the farthest that a latent moves

SWITCH = "JLEBM_GRAPHS"
# From this version on torch cleans up after a recording that fails: before, the allocator keeps a capture that is not
# under way any more, and a later error of the device is an internal one (issues 180395 and 190348 of pytorch/pytorch).
OLDEST = (2, 14)

Step: TypeAlias = Callable[[Latents, Latents], Latents]
"""A step: from a position and its noise to the next position."""
StepIn: TypeAlias = Callable[[LogDensity], Step]
Work: TypeAlias = Callable[[], None]


class Recordable(NamedTuple):
    """A density split into modules that a graph reads in place, and inputs that are copied into its buffers."""

    modules: tuple[nn.Module, nn.Module]
    """Backbone and energy, whose weights are read in place."""
    inputs: Latents
    """Images or given latents, which change from chain to chain."""
    rebuilt: Callable[[Latents], LogDensity]
    """Builds the same density with other inputs."""
    kind: tuple[Any, ...]


def recordable(density: LogDensity) -> Recordable | None:
    """Split a density; None if its steps may depend on more than weights, position and inputs."""
    inputs, rebuilt, kind = (), lambda _: density, ()
    if type(density) not in (PriorInLatents, PriorInNoise, Posterior):
        return None
    if isinstance(density, PriorInNoise):
        inputs, rebuilt = density.given, lambda given: replace(density, given=given)
        kind = (density.drift, density.precision)
    elif isinstance(density, Posterior):
        inputs, rebuilt = (density.x,), lambda images: replace(density, x=images[0])
    assert isinstance(density, PriorInLatents | PriorInNoise | Posterior)
    backbone, energy = density.backbone, density.energy
    # Each class declares it for itself: a subclass may do something in Python that a recording would not repeat.
    if not isinstance(backbone, nn.Module) or not vars(type(backbone)).get("recordable", False):
        return None
    if type(energy) is not JointEnergy or not all(map(_known, energy.networks.modules())):
        return None
    return Recordable((backbone, energy), inputs, rebuilt, (type(density), *kind))


def _known(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.modules.") or type(module) is NoEnergy


class Differs(Exception):
    """A recording does not reproduce its steps."""


class Recording:
    """Recorded steps of one kind of chain, and the buffers that they read and write."""

    def __init__(self, parts: Recordable, step_in: StepIn, like: Latents, steps: int, record: Callable[[Work], Work]):
        """Record `steps` steps of positions shaped like `like`, and check that the recording reproduces them.

        Raises:
            RuntimeError: the steps cannot be recorded.
            Differs: the recording gives other results.
        """
        self.position, self.inputs = map_latents(torch.clone, like), map_latents(torch.clone, parts.inputs)
        # Noise for the comparison, different in each step.
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
        """Take `steps` steps from `position`, a multiple of the recorded number, and return the last position."""
        with _lock:
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
    """The recorded steps; None if recording failed."""

    def of(self, modules: Sequence[nn.Module]) -> bool:
        """Whether it was recorded for these very module objects, which still exist."""
        return all(owner() is module for owner, module in zip(self.owners, modules, strict=True))


_kept: OrderedDict[Hashable, _Kept] = OrderedDict()
_off = False
_lock = threading.RLock()  # two threads would write into one recording's places


def recorded(
    density: LogDensity, step_in: StepIn, setting: Any, position: Latents, steps: int
) -> Callable[[Latents, Iterator[Latents]], Latents] | None:
    """Return a function that takes `steps` steps at once; None if they must run step by step.

    Args:
        density: the density that the chain samples.
        step_in: builds a step in a density; called for each recording.
        setting: everything else that changes a step, such as its size.
        position: where the chain starts.
        steps: number of steps.
    """
    device = position[0].device
    record = (
        None if _off or steps == 0 or _switched_off() or torch.is_autocast_enabled(device.type) else recorder(device)
    )
    parts = None if record is None else recordable(density)
    weights = None if parts is None else _weights(parts.modules)
    if record is None or parts is None or weights is None:
        return None
    most = MOST_STEPS if all(layer.dim() == 2 for layer in position) else 1
    together = max(count for count in range(1, most + 1) if steps % count == 0)
    shape = together, tuple(map(_layout, (*position, *parts.inputs))), in_force()
    key = (parts.kind, setting, shape, *map(id, parts.modules), weights)
    with _lock:
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
    """Record steps after dropping the oldest graphs; on failure, warn and return None."""
    global _off
    for key in [key for key, kept in _kept.items() if any(owner() is None for owner in kept.owners)]:
        del _kept[key]
    while len(_kept) >= KEPT:
        _kept.popitem(last=False)
    try:
        with torch.inference_mode(False):  # the buffers are written to in any mode
            return Recording(parts, step_in, position, steps, record)
    except Differs as error:
        why = error
    except RuntimeError as error:
        # Report the cause if it is known, not only the failure. This process does not record again: after a broken
        # recording the allocator cannot be trusted with another.
        why, _off = error.__context__ or error, True
    warnings.warn(f"chains are run step by step, not as a CUDA graph: {why}", stacklevel=4)
    return None


def recorder(device: torch.device) -> Callable[[Work], Work] | None:
    """Return the recorder of a device; None if launches there cost next to nothing, or torch is older than `OLDEST`."""
    return Graph if device.type == "cuda" and _torch() >= OLDEST else None


def given_up() -> bool:
    """Whether this process records nothing, since a recording has failed."""
    return _off


def forget() -> None:
    """Drop all recordings with their memory."""
    with _lock:
        _kept.clear()


def _torch() -> tuple[int, ...]:
    return tuple(int(part) for part in torch.__version__.split(".")[:2])


def _switched_off() -> bool:
    value = os.environ.get(SWITCH, "1")
    if value not in ("0", "1"):
        raise UserError(f"{SWITCH} is {value!r} in the environment; set it to 0 to run chains step by step, or to 1")
    return value == "0"


@contextmanager
def step_by_step() -> Iterator[None]:
    """Switch recording off, for profilers and hooks that must see each operation."""
    global _off
    before, _off = _off, True
    try:
        yield
    finally:
        _off = before


class Graph:
    """What `work` launches, recorded as a CUDA graph; calling it launches all of it again.

    Each live graph has a capture stream of its own. The matrix library's workspace belongs to a stream and lies in the
    memory of the graph that first uses it; torch frees the workspaces of a graph's stream when the graph goes. On a
    common stream, which `torch.cuda.graph` takes by default, other graphs would still use them (issue 193402 of
    pytorch/pytorch). Warming up on another stream leaves the workspace to the graph's own memory.
    """

    def __init__(self, work: Work):
        current, warm = torch.cuda.current_stream(), _warming.taken()
        warm.wait_stream(current)
        with torch.cuda.stream(warm):
            work()  # libraries choose algorithms and create handles before the recording
        current.wait_stream(warm)
        self.stream = _streams.taken(each.stream for each in _live)
        self.graph = torch.cuda.CUDAGraph()
        _live.add(self)
        try:
            # Another thread may query the device meanwhile, as NCCL's does.
            with torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
                work()
        finally:  # torch leaves its own stream current if ending the recording fails
            torch.cuda.set_stream(current)

    def __call__(self) -> None:
        """Launch what was recorded."""
        self.graph.replay()


class Streams:
    """Streams that are reused once they are free: torch has 32 per device and hands them out in turn."""

    def __init__(self, make: Callable[[], Any]):
        self.make = make
        self.made: dict[Any, list[Any]] = {}

    def taken(self, used: Iterable[Any] = ()) -> Any:
        """Return a stream of the current device that is not one of `used`."""
        made = self.made.setdefault(torch.cuda.current_device() if torch.cuda.is_available() else None, [])
        busy = list(used)
        for stream in made:
            if stream not in busy:
                return stream
        made.append(next(stream for stream in iter(self.make, None) if stream not in busy))
        return made[-1]


_streams, _warming = Streams(lambda: torch.cuda.Stream()), Streams(lambda: torch.cuda.Stream())
_live: "weakref.WeakSet[Graph]" = weakref.WeakSet()


def _copy(values: Latents, places: Latents) -> None:
    for value, place in zip(values, places, strict=True):
        place.copy_(value)


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def _weights(modules: Sequence[nn.Module]) -> tuple[Any, ...] | None:
    """Return the weights' addresses and each submodule's mode, which a recording cannot see change.

    None if a hook adds to a module's call. One pass, since a deep hierarchy has thousands of submodules.
    """
    found: list[Any] = []
    for module in modules:
        for part in module.modules():
            if hooked(part):
                return None
            found.append(part.training)
            for tensor in (*part._parameters.values(), *part._buffers.values()):
                if tensor is not None:
                    found += (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
    return tuple(found)
