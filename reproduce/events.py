"""Export training curves to TensorBoard: the losses and energies in each run's events.jsonl.

    python -m reproduce.events --runs runs --tensorboard build/tensorboard
    python -m reproduce.events --runs runs/mnist-variational-cpu-... --tensorboard build/tensorboard
    tensorboard --logdir build/tensorboard

Each run gets a folder of its name. A curve keeps its name, `energy_posterior/z2`, and its steps; its time is the
training's own clock, so TensorBoard's relative time is training time. TensorBoard stores float32. The command needs the
extra: python -m pip install -e ".[tensorboard]".
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jlebm.errors import UserError, exit_on_user_error
from reproduce.terminal.parsing import parse

EVENTS = "events.jsonl"
WRITER = "tensorboard.summary"  # numpy alone, without TensorFlow
WRITTEN = "events.out.tfevents.*"


@dataclass(frozen=True)
class Arguments:
    """Export training curves to TensorBoard."""

    tensorboard: Path
    """The folder for `tensorboard --logdir`; a run that already has event files there is refused."""
    runs: Path = Path("runs")
    """The folder of all runs, or of one run."""


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
    """Write every run's curves and print where; return the exit code."""
    arguments = parse(Arguments, argv, __doc__)
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError('TensorBoard is not installed; run: python -m pip install -e ".[tensorboard]"')
    folders = runs_in(arguments.runs)
    places = [arguments.tensorboard / folder.resolve().name for folder in folders]
    for place in places:
        if any(place.glob(WRITTEN)):
            raise UserError(f"{place} has TensorBoard files already; remove them, or name another --tensorboard")
    for folder, place in zip(folders, places, strict=True):
        steps = write(folder, place)
        sys.stdout.write(f"{place}: {steps} steps\n")
    return 0


def runs_in(folder: Path) -> list[Path]:
    """Return the runs in a folder by name, or the folder itself if it is a run.

    Raises:
        UserError: there are none.
    """
    if (folder / EVENTS).exists():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{EVENTS}"))
    if not found:
        raise UserError(f"{folder} holds no run, a folder with {EVENTS}; give the folder of runs, or of one")
    return found


def write(run: Path, place: Path) -> int:
    """Write the numbers in a run's events and return the number of steps that have some.

    Args:
        run: the run's folder.
        place: a folder without event files.

    Raises:
        UserError: the run's events are damaged, or the place cannot be written.
    """
    from jlebm.folders import try_folder
    from jlebm.run import read_events  # here: --help needs no torch

    events = read_events(run)
    try_folder(place)
    writer = importlib.import_module(WRITER).Writer(str(place))
    steps = set()
    for event in events:
        for name, value in scalars(event).items():
            writer.add_scalar(name, value, event["step"], wall_time=float(event.get("seconds", 0.0)))
            steps.add(event["step"])
    writer.close()
    return len(steps)


def scalars(event: dict[str, Any]) -> dict[str, float]:
    """Return the numbers that an event records, without its step and its time."""
    return {
        name: float(value)
        for name, value in event.items()
        if name not in ("step", "seconds") and isinstance(value, int | float) and not isinstance(value, bool)
    }


if __name__ == "__main__":
    sys.exit(main())
