"""How soon commands answer: the user time of processes beside that of a bare `import torch`, in turn.

User time, and not what a clock shows: another process on the same core does not count.
"""

import dataclasses
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jlebm.errors import UserError
from reproduce.benchmark.stopwatch import Medians
from reproduce.presets.recipes import recipes
from reproduce.results import Measurement, append, read_all

ROOT = Path(__file__).resolve().parents[2]
IMPORT = ("-c", "import torch")
HELP, CHECK, GROWTH = "help of a command", "check beside import torch", "check by number of rows"
METRICS = (HELP, CHECK, GROWTH)
WITHOUT_TORCH = (
    "anomaly",
    "benchmark",
    "benchmark.gpu_check",
    "check",
    "evaluate",
    "events",
    "generate",
    "ood",
    "priors",
    "table",
)
ROWS = 10_000
SIZES = (2_500, ROWS, 40_000)
SECONDS_OF_IMPORT = 1.43  # `import torch` on the machine where the goals of 0.8 s and 2 s were set
RECIPE_GOAL = 1 / 1.2  # a recipe's presets are made of configurations that import torch


class Line(NamedTuple):
    """One line: processes to time, of which the slowest counts, and the ratio of `import torch` to it as a goal."""

    kind: str
    metric: str
    setting: str
    commands: Sequence[Sequence[str]]
    goal: float | None


def lines(results: Path, scratch: Path) -> Iterator[Line]:
    """Yield the lines of commands.

    Args:
        results: the folder whose rows are repeated to as many as a line asks for.
        scratch: an empty folder.
    """
    quick = [*(f"reproduce.{name}" for name in WITHOUT_TORCH), "figures"]
    slow = [f"reproduce.{name}" for name in recipes()]
    for commands, what, goal in (
        (quick, "commands that import no torch", SECONDS_OF_IMPORT / 0.8),
        (slow, "recipes", RECIPE_GOAL),
    ):
        yield Line("speed", HELP, _slowest(commands, what), [("-m", one, "--help") for one in commands], goal)
    for count in SIZES:
        folder = scratch / str(count)
        repeat_rows(results, folder, count)
        command = ("-m", "reproduce.check", "--results", str(folder))
        if count == ROWS:
            yield Line("speed", CHECK, f"{count:,} rows", [command], SECONDS_OF_IMPORT / 2)
        yield Line("scale", GROWTH, f"{count:,} rows", [command], None)


def _slowest(commands: Sequence[str], what: str) -> str:
    return f"the slowest of {len(commands)} {what}, beside import torch"


def repeat_rows(results: Path, folder: Path, count: int) -> None:
    """Store as many rows as asked for: the stored ones over and over, with other seeds and numbers of images.

    Raises:
        UserError: there is no row to repeat.
    """
    rows = read_all(results / "measured")
    if not rows:
        raise UserError(f"{results / 'measured'} holds no row that could be repeated; give --results with some")
    made: dict[str, list[Measurement]] = {}
    for index in range(count):
        copy, place = divmod(index, len(rows))
        row = rows[place]
        if copy:  # half of the copies are seeds of the same mean, half have a mean of their own
            seed, images = row.seed + 1000 * copy, row.images + copy % 2 * copy
            row = dataclasses.replace(row, seed=seed, images=images, row_digest="", where="", format=2)
        made.setdefault(row.dataset, []).append(row)
    for dataset, some in made.items():
        append(folder / "measured" / f"{dataset}.jsonl", some)
    for name in ("paper.toml", "expected.toml"):
        shutil.copy(results / name, folder)


def timed(line: Line, repetitions: int) -> Medians:
    """Time `import torch` and a line's processes in turn, after one run of each that is not counted."""
    parts = [IMPORT, *line.commands]
    seconds: list[list[float]] = [[] for _ in parts]
    for number in range(repetitions + 1):
        for part, kept in zip(parts, seconds, strict=True):
            spent = user_seconds(part)
            kept.extend([spent] if number else [])
    plain, *ours = map(statistics.median, seconds)
    return Medians(plain if line.kind == "speed" else None, max(ours), repetitions)


def user_seconds(words: Sequence[str]) -> float:
    """Return the user time of a Python process.

    Raises:
        UserError: it failed.
    """
    command = [sys.executable, *words]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        raise UserError(f"python {' '.join(words)} ended with exit code {running.returncode}; run it by itself")
    return used.ru_utime
