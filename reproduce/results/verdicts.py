"""Verdicts: every stored number compared with its expectation."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from jlebm.text import shell_command
from reproduce.results.expectation import CONDITIONS, QUESTION, Expectation, condition, describe, question
from reproduce.results.identity import options
from reproduce.results.measurement import Measurement
from reproduce.results.rows import CHANGED

Key = tuple[object, ...]
Faults = Mapping[str, Sequence[str]]
Status = Literal["PASS", "DRIFT", "FAIL", "NO EXPECTATION", "TOO FEW SEEDS", "STALE", "NEVER RUN"]
STATUSES: tuple[Status, ...] = get_args(Status)
TO_RUN: tuple[Status, ...] = ("TOO FEW SEEDS", "STALE", "NEVER RUN")
"""Statuses that another run of the recipe settles."""
_SAID = {CHANGED: "changed since stored (the row digest does not fit)"}
SELECTORS = ("config_digest", "images", "weights", "complete")


@dataclass(frozen=True)
class Verdict:
    """Verdict of `check` on one expectation.

    Attributes:
        expectation: for rows without one, made of their selectors, without a value.
        status: PASS, DRIFT or FAIL of a measured number; NO EXPECTATION if none is stored; TOO FEW SEEDS if fewer were
            measured than the expectation asks for, with a value or without; STALE if the rows have another
            configuration, number of images or weights than expected, or, after `held_to_basis`, lie without those that
            the expectation was made from; NEVER RUN without a row.
        reason: one clause; "" for a PASS without remarks.
        command: measures or settles it; "" if nothing needs to be run.
        mean: over seeds, of the newest row of each; None without rows.
        spread: sample standard deviation over seeds; None for fewer than two.
        count: number of seeds.
        images: number of images behind each value; 0 without rows.
    """

    expectation: Expectation
    status: Status
    reason: str = ""
    command: str = ""
    mean: float | None = None
    spread: float | None = None
    count: int = 0
    images: int = 0


@dataclass(frozen=True)
class _Alike:
    """Rows that may be averaged, and their keys."""

    rows: Sequence[Measurement]
    question: Key
    place: Key
    """Number of images, weights, and whether training went to its end."""
    time: datetime
    """Date of the newest row."""


def check(measured: Sequence[Measurement], expected: Sequence[Expectation]) -> list[Verdict]:
    """Judge every expectation by the newest row of each seed, then list the rows without an expectation.

    Rows with the same key are all kept in the files; the newest by `date` counts, and of equal dates the last.
    A mean over more seeds than the expectation asks for must lie within the tolerance for as many as it asks for,
    which is the wider one.

    A FAIL is a mean further off than `fail_beyond`, a row with a broken digest (any row with the expectation's
    dataset, preset, learning, metric and source, counted or not), newest rows of another protocol, or rows whose
    extractor, reference, weights or chain differ from each other or from the expectation: those are never averaged.
    NEVER RUN, STALE and TOO FEW SEEDS say what is missing. Rows from a dirty tree count, with a remark.

    An expectation without a value shows the newest rows that no other expectation covers. The remaining rows (another
    configuration, number of images or chain) get a verdict of their own, NO EXPECTATION with their mean, so that no
    older PASS hides a new measurement. They are omitted only if rows at least as new, with the same number of images,
    weights and completeness, have an expectation. If no row has one, the newest rows are shown.

    Rows and expectations are looked up by their question, so the work is linear in their number.
    """
    asked: dict[Key, list[Measurement]] = defaultdict(list)
    alikes: dict[Key, list[Measurement]] = defaultdict(list)
    for row in measured:
        key = alike(row)
        alikes[key].append(row)
        asked[_question_in(key)].append(row)
    faults = {key: found for key, rows in asked.items() if (found := _faults(rows))}
    valued: dict[Key, list[Expectation]] = defaultdict(list)
    for one in expected:
        if one.value is not None:
            valued[question(one)].append(one)

    newest: dict[Key, dict[Key, datetime]] = defaultdict(dict)  # by question and place, of rows with a verdict

    def hold(rows: _Alike) -> None:
        times = newest[rows.question]
        times[rows.place] = max(times.get(rows.place, rows.time), rows.time)

    groups = [_Alike(rows, _question_in(key), _place(rows[0]), _time(rows)) for key, rows in alikes.items()]
    free: dict[Key, list[_Alike]] = defaultdict(list)  # rows without a verdict yet, the newest first
    for rows in sorted(groups, key=lambda rows: rows.time, reverse=True):
        if any(_selected(one, rows.rows[0]) for one in valued[rows.question]):
            hold(rows)
        else:
            free[rows.question].append(rows)
    verdicts = []
    for one in expected:
        key = question(one)
        if one.value is not None:
            verdicts.append(_judge(one, asked[key], faults.get(key, {})))
            continue
        found = next((rows for rows in free[key] if _selected(one, rows.rows[0])), None)
        if found is not None:
            free[key].remove(found)
            hold(found)
        verdicts.append(_unexpected(one, asked[key], faults.get(key, {}), found.rows if found else ()))
    shown = {id(rows) for left in free.values() for rows in _to_show(left, newest, hold)}
    for rows in groups:
        if id(rows) in shown:
            one = _of_rows(rows.rows[0])
            verdicts.append(_unexpected(one, rows.rows, faults.get(rows.question, {}), rows.rows))
    return verdicts


def _to_show(
    free: Sequence[_Alike], newest: Mapping[Key, Mapping[Key, datetime]], hold: Callable[[_Alike], None]
) -> Iterator[_Alike]:
    """Yield the rows of one question, newest first, unless newer rows of the same place have a verdict."""
    for rows in free:
        held = newest.get(rows.question)
        if held is None or rows.place not in held or held[rows.place] < rows.time:
            yield rows
        if not held:
            hold(rows)


def newest_of_each_seed(rows: Sequence[Measurement]) -> list[Measurement]:
    """Return the newest row of each seed by date (the last of equal dates), in the order of the seeds."""
    latest: dict[int, Measurement] = {}
    for row in rows:
        if row.seed not in latest or row.time >= latest[row.seed].time:
            latest[row.seed] = row
    return [latest[seed] for seed in sorted(latest)]


def newest_alike(rows: Sequence[Measurement]) -> list[Measurement]:
    """Return the newest row of each seed, among the rows that may be averaged with the newest of all."""
    if not rows:
        return []
    last = max(rows, key=lambda row: row.time)
    return newest_of_each_seed([row for row in rows if alike(row) == alike(last)])


def summary(latest: Sequence[Measurement]) -> tuple[float, float | None, int]:
    """Return mean, sample standard deviation (None for fewer than two) and number of rows, one for each seed."""
    values = [row.value for row in latest]
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values)


def _judge(one: Expectation, asked: Sequence[Measurement], faults: Faults) -> Verdict:
    if faults:
        return _broken(one, faults)
    if not asked:
        return Verdict(one, "NEVER RUN", f"no row yet; needs {one.needs}", one.command)
    newest = max(asked, key=lambda row: row.time)
    if newest.protocol != one.protocol:
        reason = f"expected.toml is about protocol {one.protocol} and the newest row is of {newest.protocol}"
        return Verdict(one, "FAIL", reason, rewrite(one))
    matching = [row for row in asked if _selected(one, row)]
    if not matching:
        return Verdict(one, "STALE", _why_none(one, newest), one.command)
    return _compare(one, newest_of_each_seed(matching))


def _unexpected(
    one: Expectation, asked: Sequence[Measurement], faults: Faults, found: Sequence[Measurement]
) -> Verdict:
    if faults:
        return _broken(one, faults)
    if not found:
        reason = "no row yet" + f" of {one.images} images" * bool(asked and one.images)
        return Verdict(one, "NEVER RUN", f"{reason}; needs {one.needs}", one.command)
    latest = newest_of_each_seed(found)
    mean, spread, count = summary(latest)
    few = count < one.seeds
    reason = "; ".join([f"{count} of {one.seeds} seeds measured" if few else "no expectation yet", *_remarks(latest)])
    status, command = ("TOO FEW SEEDS", one.command) if few else ("NO EXPECTATION", rewrite(one))
    return Verdict(one, status, reason, command, mean, spread, count, latest[0].images)


def _faults(rows: Sequence[Measurement]) -> dict[str, list[str]]:
    """Return the places of rows that differ from what was stored, by fault."""
    faults: dict[str, list[str]] = {}
    for row in rows:
        if row.fault:
            faults.setdefault(row.fault, []).append(row.where or f"the row of seed {row.seed}")
    return faults


def _broken(one: Expectation, faults: Faults) -> Verdict:
    said = "; ".join(f"{', '.join(places)} {_SAID.get(fault, fault)}" for fault, places in faults.items())
    return Verdict(one, "FAIL", f"{said}; restore it, or remove it and measure again", one.command)


def _compare(one: Expectation, latest: Sequence[Measurement]) -> Verdict:
    value, tolerance, fail_beyond = one.value, one.tolerance, one.fail_beyond
    assert value is not None  # the caller checked it; the other two come with it
    assert tolerance is not None
    assert fail_beyond is not None
    for name in CONDITIONS:
        stated = condition(one, name)
        found = sorted({condition(row, name) for row in latest} | ({stated} if stated else set()), key=str)
        if len(found) > 1:
            reason = f"the {name} differs ({' / '.join(map(repr, found))}); such rows are never averaged or compared"
            return Verdict(one, "FAIL", reason, one.command)
    mean, spread, count = summary(latest)
    remarks = _remarks(latest)
    if count < one.seeds:
        reason = "; ".join([f"{count} of {one.seeds} seeds measured", *remarks])
        return Verdict(one, "TOO FEW SEEDS", reason, one.command, mean, spread, count, latest[0].images)
    off = abs(mean - value)
    status: Status = "PASS" if off <= tolerance else "DRIFT" if off <= fail_beyond else "FAIL"
    if status != "PASS":
        limit = tolerance if status == "DRIFT" else fail_beyond
        remarks.insert(0, f"{off:.4g} away from the expected value, more than {limit:.4g}")
    command = "" if status == "PASS" else one.command
    return Verdict(one, status, "; ".join(remarks), command, mean, spread, count, latest[0].images)


def _remarks(latest: Sequence[Measurement]) -> list[str]:
    remarks = []
    if dirty := sum(row.dirty for row in latest):
        remarks.append(f"{dirty} of {len(latest)} rows from a tree with uncommitted changes")
    if early := [row.steps for row in latest if not row.complete]:
        remarks.append(f"a wall-clock budget ended training early, at step {min(early)} to {max(early)}")
    return remarks


def _selected(one: Expectation, row: Measurement) -> bool:
    """Whether an expectation covers a row; without a value it may leave the number of images and the like open."""
    if one.protocol != row.protocol or not one.asks(row):
        return False
    if one.value is not None:
        return all(getattr(one, name) in ("", getattr(row, name)) for name in SELECTORS)
    stated = ("images", "config_digest", "weights")
    return all(getattr(one, name) in ("", 0, getattr(row, name)) for name in stated)


def alike(row: Measurement) -> Key:
    """Return the key that rows share if they may be averaged."""
    return tuple(condition(row, name) for name in ("protocol", *QUESTION, *SELECTORS, *CONDITIONS))


def judged_by(row: Measurement) -> tuple[object, ...]:
    """Return what two numbers share that can be compared: the number of images, their reference, and the network."""
    return row.images, row.reference, condition(row, "extractor")


def _question_in(key: Key) -> Key:
    """Return the question, as `question` does, from the key of `alike`."""
    return key[1 : 1 + len(QUESTION)]


def _place(row: Measurement) -> Key:
    return row.images, row.weights, row.complete


def _time(rows: Sequence[Measurement]) -> datetime:
    return max(row.time for row in rows)


def _why_none(one: Expectation, newest: Measurement) -> str:
    for name in SELECTORS:
        wanted, found = getattr(one, name), getattr(newest, name)
        if wanted in ("", found):
            continue
        if name == "config_digest":
            return f"stale: the newest row is of configuration {found[:12]}, expected is {wanted[:12]}"
        if name == "complete":
            return "only of runs that " + ("ended early" if wanted else "went to the end") + "; expected are the others"
        return f"the newest row has {name} = {found!r}, expected is {wanted!r}"
    return f"no row of protocol {one.protocol} with this configuration, number of images and weights"


def rewrite(one: Expectation) -> str:
    """Return the command that makes an expectation from the stored rows."""
    # An empty variation or layer is told, too: left out, it would select the rows of every one.
    told = ("variation", "layer") if one.score == "" else ("variation",)
    names = [name for name in (*QUESTION, "images") if name in told or getattr(one, name)]
    selectors = [f"{name}={selected(one, name)}" for name in names]
    return shell_command("python", "-m", "reproduce.check", "--write-expected", *selectors)


def selected(one: Measurement | Expectation, name: str) -> str:
    """Return a field as typed in a selector."""
    value = getattr(one, name)
    return " ".join(options(value)) if isinstance(value, dict) else str(value)


def _of_rows(row: Measurement) -> Expectation:
    """Return an expectation without a value, for rows that have none."""
    names = ("protocol", *QUESTION, "images")
    return Expectation(**{name: getattr(row, name) for name in names}, seeds=1, needs=describe(row), command="")
