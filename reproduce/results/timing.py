"""Rows of the benchmark: a part of the code timed beside a plain implementation; and their tables."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jlebm.errors import UserError
from jlebm.files import read_bytes, write_text
from reproduce.results.cited import Cited
from reproduce.results.default_folder import naming
from reproduce.results.records import known, moment, refuse_unwritable
from reproduce.results.rows import Row

TIMINGS = "bench.jsonl"  # in results/measured: the only file there with timings instead of measurements
AWAITED = "awaited.json"  # in results: the benchmark's lines for a GPU
KINDS = ("speed", "scale", "extrapolated")
NOT_MEASURED = "not measured"
UNITS = {"d": 86400.0, "h": 3600.0, "min": 60.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6}
LEAST = {"d": 172800.0, "h": 7200.0, "min": 120.0, "s": 1.0, "ms": 1e-3}  # seconds from which a unit is used

PROCESSOR = "processor"
CLOCKS = ("", PROCESSOR)  # seconds that pass, and seconds that the process spends on a processor

# Lines, by metric and setting, that the benchmark does not time any more: another one took their place. Their rows stay
# stored, and no table shows them.
RETIRED = frozenset(
    ("help of a command", f"the slowest of {count} commands that import no torch, beside import torch")
    for count in (9, 10)
)

SPEED_HEADER = ("metric", "setting", "device", "plain", "ours", "ratio", "goal", "floor", "share of the floor reached")
SCALE_HEADER = ("what grows", "setting", "device", "seconds", "times the line above")


@dataclass(frozen=True)
class Timing(Row):
    """One line of the benchmark.

    Attributes:
        kind: "speed", a part beside its plain implementation; "scale", how its cost grows; "extrapolated", computed
            from a measured time; not run.
        metric: the timed part, "prior chain".
        setting: its size, "60 steps, batch 100".
        device: the device class.
        threads: of torch, on a CPU.
        plain: median seconds of the plain implementation; None without one.
        ours: median seconds.
        repetitions: number of times each was timed, in turn.
        floor: seconds of its arithmetic at the ceiling; None if it is not bound by arithmetic.
        ceiling: FLOP/s of this machine's fastest kernel, measured in the same run.
        agreement: largest relative difference of the two results, asserted before the timing.
        goal: target for the ratio plain / ours; None for none.
        bound: what bounds it, if known.
        commit: of the code.
        dirty: whether tracked files differed from that commit.
        versions: of python and the packages.
        date: UTC, ISO 8601.
        ceiling_kernel: the kernel that had the ceiling; "" in rows stored before several were measured, whose ceiling
            is torch's matrix product.
        clock: "" for the seconds that pass, "processor" for those that the process spends on a processor; commands are
            timed by their processes' user time in both.

    Raises:
        UserError: a number is not finite or not positive, the kind is unknown, or the date is not ISO 8601.
    """

    kind: str
    metric: str
    setting: str
    device: str
    threads: int
    plain: float | None
    ours: float
    repetitions: int
    floor: float | None
    ceiling: float
    agreement: float | None
    goal: float | None
    bound: str
    commit: str
    dirty: bool
    versions: dict[str, str]
    date: str
    ceiling_kernel: str = ""
    clock: str = ""

    def signed(self) -> dict[str, Any]:
        """Return the fields that the row digest is taken of; older rows were stored without kernel and clock."""
        later = ("ceiling_kernel", "clock")
        return {name: value for name, value in super().signed().items() if name not in later or value}

    def __post_init__(self) -> None:
        refuse_unwritable(self)
        known(self.kind, KINDS, "kind of timing")
        known(self.clock, CLOCKS, "clock")
        for name in ("plain", "ours", "floor", "ceiling"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"the field {name!r} is {value}; a time is positive")
        moment(self.date)

    @property
    def ratio(self) -> float | None:
        """Speed-up over plain."""
        return None if self.plain is None else self.plain / self.ours

    @property
    def share(self) -> float | None:
        """Share of the floor that is reached: 1 is all of the machine's arithmetic."""
        return None if self.floor is None else self.floor / self.ours


class Awaited(NamedTuple):
    """A line of the benchmark on a GPU, measured or not."""

    kind: str
    metric: str
    setting: str


def read_awaited(results: Path) -> list[Awaited]:
    """Read the lines for a GPU; empty if the folder has no such file.

    `python -m reproduce.benchmark --write-awaited` writes them.

    Raises:
        UserError: the file is not what that command writes.
    """
    path = results / AWAITED
    if not path.exists():
        return []
    again = "write it by " + naming(results, "python -m reproduce.benchmark --write-awaited")
    try:
        lines = json.loads(read_bytes(path).decode())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a list of lines ({error}); {again}") from error
    if not isinstance(lines, list) or not all(_is_a_line(line) for line in lines):
        raise UserError(f"{path} is not a list of lines [{', '.join(Awaited._fields)}]; {again}")
    return [Awaited(*line) for line in lines]


def _is_a_line(value: Any) -> bool:
    """Whether a parsed JSON value is three texts, without the half characters that JSON lets pass."""
    if not isinstance(value, list) or len(value) != len(Awaited._fields):
        return False
    return all(isinstance(word, str) and word.isprintable() for word in value)


def write_awaited(results: Path, lines: Sequence[Awaited]) -> None:
    """Write the lines for a GPU, each on a line of its own."""
    text = ",\n".join(json.dumps(list(line)) for line in lines)
    write_text(results / AWAITED, f"[\n{text}\n]\n")


def newest(rows: Sequence[Timing]) -> list[Timing]:
    """Return the newest row of each kind, metric, setting and device; in the order of their first rows.

    Without lines that are not timed any more (`RETIRED`).
    """
    latest: dict[tuple[str, str, str, str], Timing] = {}
    for row in rows:
        if (row.metric, row.setting) in RETIRED:
            continue
        key = (row.kind, row.metric, row.setting, row.device)
        if key not in latest or moment(row.date) >= moment(latest[key].date):
            latest[key] = row
    return list(latest.values())


def speed_cells(rows: Sequence[Timing], awaited: Sequence[Awaited] = ()) -> list[tuple[str, ...]]:
    """Return the cells of the speed table, the lines of one metric together.

    Args:
        rows: the newest of each line.
        awaited: lines for a GPU; those without a row are shown as not measured.
    """
    shown = [row for row in rows if row.kind != "scale"]
    on_a_gpu = {(row.metric, row.setting) for row in shown if row.device.startswith("cuda")}
    missing = [line for line in awaited if (line.metric, line.setting) not in on_a_gpu]
    cells = []
    for metric in dict.fromkeys(line.metric for line in (*shown, *missing)):
        cells += [_speed_cell(row) for row in shown if row.metric == metric]
        cells += [
            (_named(line), line.setting, "GPU", *[NOT_MEASURED] * 2, *["-"] * 4)
            for line in missing
            if line.metric == metric
        ]
    return cells


def _speed_cell(row: Timing) -> tuple[str, ...]:
    ratio = "-" if row.ratio is None else f"{row.ratio:.2f}x"
    if row.goal is not None and row.ratio is not None and row.ratio < row.goal:
        ratio += " (missed)"
    goal = "-" if row.goal is None else f"{row.goal:g}x"
    share = "-" if row.share is None else f"{100 * row.share:.0f} %"
    times = [
        duration(row.plain),
        Cited(duration(row.ours), (row,)),
        Cited(ratio, (row,)),
        goal,
        duration(row.floor),
        share,
    ]
    return (_named(row), row.setting, _device(row), *times)


def _named(line: Timing | Awaited) -> str:
    return line.metric + (" (extrapolated)" if line.kind == "extrapolated" else "")


def scale_cells(rows: Sequence[Timing]) -> list[tuple[str, ...]]:
    """Return the cells of the scaling table, each line compared with the one above it."""
    cells = []
    before: Timing | None = None
    for row in rows:
        if row.kind == "scale":
            same = before is not None and (before.metric, before.device) == (row.metric, row.device)
            growth = f"{row.ours / before.ours:.2f}" if same and before is not None else "-"
            cells.append((row.metric, row.setting, _device(row), Cited(duration(row.ours), (row,)), growth))
            before = row
    return cells


def reasons(rows: Sequence[Timing]) -> list[str]:
    """Return what bounds each line, where it is known."""
    return [f"{row.metric} ({row.setting}, {_device(row)}): {row.bound}" for row in rows if row.bound]


def duration(seconds: float | None) -> str:
    """Format a time with three digits and a fitting unit: "162 ms", "4.35 s", "83.1 d"; None is "-"."""
    if seconds is None:
        return "-"
    unit = next((name for name, least in LEAST.items() if seconds >= least), "µs")
    scaled = seconds / UNITS[unit]
    return f"{float(f'{scaled:.3g}'):g} {unit}"


def _device(row: Timing) -> str:
    if not row.device.startswith("cpu"):
        return row.device
    return f"{row.device}, {row.threads} thread{'' if row.threads == 1 else 's'}"
