"""Rows: nothing is lost, nothing is changed unnoticed, nothing damaged is passed over."""

import dataclasses
import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jlebm.errors import UserError
from reproduce.results import Measurement, append, read, read_all

number = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(max_size=20)


@given(
    changes=st.fixed_dictionaries(
        {
            "value": number,
            "spread": st.none() | number,
            "seed": st.integers(),
            "chain": text,
            "reference": text,
            "dirty": st.booleans(),
            "versions": st.dictionaries(text, text, max_size=3),
            "wall_seconds": st.dictionaries(text, number, max_size=3),
        }
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip(row: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Would break if any value came back rounded, or a text with odd line ends cut a row in two."""
    path = tmp_path / "rows.jsonl"
    path.unlink(missing_ok=True)
    rows = [row(**changes), row()]
    append(path, rows[:1])
    append(path, rows[1:])
    back = read(path)
    assert back == rows
    assert all(one.intact and one.row_digest for one in back)
    assert path.read_text(encoding="utf-8").count("\n") == 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_is_refused(row: Any, bad: float) -> None:
    """Would break if NaN or infinity could be stored, in a field or within one."""
    with pytest.raises(UserError, match="'value' is"):
        row(value=bad)
    with pytest.raises(UserError, match="'wall_seconds' is"):
        row(wall_seconds={"train": bad})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"metric": "fid786"}, "nearest known one is 'fid768'"),
        ({"source": "ebm"}, "nearest known one is 'ebm-prior'"),
        ({"learning": "joint-mlf"}, "nearest known one is 'joint-mle'"),
        ({"weights": "rw"}, "nearest known one is 'raw'"),
        ({"date": "yesterday"}, "ISO 8601"),
        ({"date": "2026-01-31T12:00:00"}, "time zone"),
    ],
)
def test_unknown_names_are_refused(row: Any, changes: dict[str, str], sentence: str) -> None:
    """Would break if a misspelt name made a row that no expectation ever finds."""
    with pytest.raises(UserError, match=sentence):
        row(**changes)


def _stored(path: Path, row: Measurement) -> dict[str, Any]:
    append(path, [row])
    return json.loads(path.read_text())


def test_every_field_is_under_the_digest(row: Any, tmp_path: Path) -> None:
    """Would break if some field could be edited by hand without the digest noticing."""
    fields = _stored(tmp_path / "a.jsonl", row())
    swaps = {"metric": "fid", "source": "posterior", "learning": "variational", "weights": "ema"}
    swaps["date"] = "2026-02-01T12:00:00+00:00"
    for name, value in fields.items():
        if name == "row_digest":
            continue
        new: Any = swaps.get(name, value)
        if isinstance(value, bool):
            new = not value
        elif isinstance(value, int | float):
            new = value + 1
        elif value is None:
            new = 0.5
        elif isinstance(value, dict):
            new = {**value, "extra": next(iter(value.values()))}
        elif name not in swaps:
            new = value + "x"
        path = tmp_path / "b.jsonl"
        path.write_text(json.dumps({**fields, name: new}) + "\n")
        assert not read(path)[0].intact, name


def test_changed_row_is_not_stored_again(row: Any, tmp_path: Path) -> None:
    """Would break if reading a hand-edited row and appending it gave it a good digest."""
    path = tmp_path / "a.jsonl"
    append(path, [row()])
    changed = dataclasses.replace(read(path)[0], value=0.1)
    with pytest.raises(UserError, match="line 1 was changed"):
        append(tmp_path / "b.jsonl", [changed])


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda fields: {**fields, "seedd": 1}, r"line 1: 'seedd' is not a field.*nearest known one is 'seed'"),
        (lambda fields: {k: v for k, v in fields.items() if k != "seed"}, r"line 1: the field 'seed' is missing"),
        (lambda fields: {**fields, "seed": "1"}, r"line 1: the field 'seed' is a text, where a whole number"),
        (lambda fields: {**fields, "dirty": 0}, r"line 1: the field 'dirty' is a whole number, where true or false"),
        (lambda fields: {**fields, "value": True}, r"line 1: the field 'value'"),
        (lambda fields: {**fields, "value": float("nan")}, r"line 1: the field 'value' is nan"),
        (lambda fields: {**fields, "value": 10**400}, r"line 1: the field 'value' is too large"),
        (lambda fields: {**fields, "versions": []}, r"line 1: the field 'versions'"),
        (lambda fields: {**fields, "row_digest": ""}, r"line 1: the field 'row_digest' is missing"),
        (lambda fields: {**fields, "where": "x"}, r"line 1: 'where' is not a field"),
        (lambda fields: [fields], r"line 1: a row is a JSON object"),
    ],
)
def test_a_wrong_field_is_named(row: Any, tmp_path: Path, edit: Any, sentence: str) -> None:
    """Would break if a wrong row were accepted, or refused without file, line and field."""
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(edit(_stored(path, row()))) + "\n")
    with pytest.raises(UserError, match=r"a\.jsonl, " + sentence):
        read(path)


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_torn_last_line_is_told(row: Any, tmp_path: Path, cut: int) -> None:
    """Would break if a crash's half line were dropped, or if new rows were appended behind it."""
    path = tmp_path / "a.jsonl"
    append(path, [row(), row(seed=2)])
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"\n") + 1 + cut])
    torn = path.read_bytes()
    for use in (lambda: read(path), lambda: append(path, [row(seed=3)])):
        with pytest.raises(UserError, match=r"a\.jsonl, line 2: the last row is cut short"):
            use()
    assert path.read_bytes() == torn


def test_damage_in_the_middle_is_told(row: Any, tmp_path: Path) -> None:
    """Would break if a damaged or doubled field before the end were skipped."""
    path = tmp_path / "a.jsonl"
    append(path, [row(), row(seed=2)])
    first, second, _ = path.read_text().split("\n")
    path.write_text(f"{first[:40]}\n{second}\n")
    with pytest.raises(UserError, match="line 1: this row is not JSON"):
        read(path)
    path.write_text(first.replace("{", '{"seed": 7, ', 1) + f"\n{second}\n")
    with pytest.raises(UserError, match="stands twice"):
        read(path)


def test_a_missing_last_line_end_is_no_loss(row: Any, tmp_path: Path) -> None:
    """Would break if an editor that strips the last line end made the next row join the one before."""
    path = tmp_path / "a.jsonl"
    append(path, [row()])
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    append(path, [row(seed=2)])
    assert [one.seed for one in read(path)] == [1, 2]


def _append_many(path: Path, row: Measurement, seeds: range) -> None:
    for seed in seeds:
        append(path, [dataclasses.replace(row, seed=seed)])


def test_two_processes_keep_all_rows(row: Any, tmp_path: Path) -> None:
    """Would break if two runs that end at the same time overwrote each other's rows."""
    path = tmp_path / "a.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append_many, args=(path, row(), range(start, start + 20))) for start in (0, 100)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert sorted(one.seed for one in read(path)) == [*range(20), *range(100, 120)]
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.jsonl", ".lock"}


def test_read_all(row: Any, tmp_path: Path) -> None:
    """Would break if a dataset's file were missed, or a missing folder were an error."""
    append(tmp_path / "b.jsonl", [row(seed=2)])
    append(tmp_path / "a.jsonl", [row(seed=1)])
    assert [one.seed for one in read_all(tmp_path)] == [1, 2]
    assert read_all(tmp_path / "nowhere") == []
