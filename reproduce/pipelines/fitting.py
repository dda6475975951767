"""Training that stops with a checkpoint on the first Ctrl-C."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import numpy as np
import torch

from jlebm.backbones.protocol import Backbone
from jlebm.engines import parallel
from jlebm.progress import Reporter
from jlebm.run import Run
from jlebm.training import LoopControl, TrainState, fit


class Stopped(KeyboardInterrupt):
    """The user ended the training early; its checkpoint is written, and the command ends as after any Ctrl-C."""


@dataclass(frozen=True)
class Given:
    """What a training learns from."""

    images: np.ndarray
    """uint8 (N, C, H, W)."""
    device: torch.device
    backbone: Backbone | None = None
    """The trained backbone of stage two, on that device, in eval mode."""
    labels: np.ndarray | None = None
    """The images' classes, for a class-conditional system."""


def fitted(
    run: Run,
    images: np.ndarray,
    device: torch.device,
    report: Reporter,
    backbone: Backbone | None = None,
    labels: np.ndarray | None = None,
) -> TrainState:
    """Train a run to its end, resuming from its checkpoint if it has one.

    Raises:
        Stopped: Ctrl-C or SIGTERM reached one of the training processes before the last step was saved.
    """
    return _trained(run, Given(images, device, backbone, labels), report)


def milestones(run: Run, given: Given, parts: int, report: Reporter) -> Iterator[TrainState]:
    """Train a run in equal parts, and yield the state after each; the last one is that of `fitted`.

    A run that is resumed behind a milestone does not yield it.

    Raises:
        Stopped: as in `fitted`.
    """
    for due in milestone_steps(run.experiment.training.steps, parts):
        state = _trained(run, given, report, due)
        ended = state.done(run.experiment)
        if state.step == due or ended:
            yield state
        if ended:
            return


def milestone_steps(steps: int, parts: int) -> list[int]:
    """Return the training steps after which `milestones` yields; fewer than `parts` if there are fewer steps."""
    return sorted({max(steps * part // parts, 1) for part in range(1, parts + 1)})


def _trained(run: Run, given: Given, report: Reporter, until: int | float = math.inf) -> TrainState:
    report.line(f"seed {run.seed}: {run.folder}")
    started = time.monotonic()
    with _stop_signals(report) as stop:
        control = LoopControl(report, stop=stop, until=until)
        state = fit(run, given.images, given.device, control, given.backbone, given.labels)
        there = state.done(run.experiment) or state.step >= until
        stopped = parallel.anywhere(stop(state.step) or not there)
    if stopped:
        report.line(f"stopped at step {state.step} with a checkpoint; the same command continues from there")
        raise Stopped
    report.line(f"trained {state.step} steps; {time.monotonic() - started:.0f} s in this process")
    return state


@contextmanager
def _stop_signals(report: Reporter) -> Iterator[Callable[[int], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a stop after the current step; a second one ends the process at once."""
    wished = []

    def wish(number: int, frame: FrameType | None) -> None:
        for each, handler in before.items():
            signal.signal(each, handler)
        wished.append(number)
        report.line("stopping after this step")

    before = {each: signal.signal(each, wish) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda step: bool(wished)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
