"""Rows: nothing is lost, nothing is changed unnoticed, nothing damaged is passed over."""

import dataclasses
import errno
import json
import multiprocessing
import os
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
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    swaps |= {"date": "2026-02-01T12:00:00+00:00", "format": 1, "bits": 4, "variation": {"chain_steps": 3}}
    for name, value in fields.items():
        if name == "row_digest":
            continue
        new: Any = swaps.get(name, value)
        if name in swaps:
            pass
        elif isinstance(value, bool):
            new = not value
        elif isinstance(value, int | float):
            new = value + 1
        elif value is None:
            new = 0.5
        elif isinstance(value, dict):
            new = {**value, "extra": next(iter(value.values()))}
        else:
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
        (lambda fields: {**fields, "seed": "1"}, r"line 1: the field 'seed' must be a whole number, not a text"),
        (lambda fields: {**fields, "dirty": 0}, r"line 1: the field 'dirty' must be true or false, not 0"),
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


def test_half_characters_are_refused(row: Any, tmp_path: Path) -> None:
    """Would break if a lone surrogate, which JSON lets pass, came in by a file or a value and was a traceback."""
    with pytest.raises(UserError, match=r"'commit' has the half character '\\ud800'"):
        row(commit="\ud800")
    with pytest.raises(UserError, match=r"'versions' has the half character"):
        row(versions={"\udfff": "1"})
    path = tmp_path / "a.jsonl"
    append(path, [row()])
    path.write_text(path.read_text().replace('"commit": "', '"commit": "\\ud800'))
    with pytest.raises(UserError, match=r"line 1: the field 'commit' has the half character"):
        read(path)


def test_nesting_and_dates_beyond_what_is_read(row: Any, tmp_path: Path) -> None:
    """Would break if a line of ten thousand brackets, or the year 1 at +23:59, ended in a traceback."""
    path = tmp_path / "a.jsonl"
    for text in ("[" * 100_000, '{"a": ' * 100_000, '{"seed": ' + "9" * 5000 + "}"):
        path.write_text(text + "\n")
        with pytest.raises(UserError, match=r"a\.jsonl, line 1"):
            read(path)
    with pytest.raises(UserError, match="ISO 8601"):
        row(date="0001-01-01T00:00:00+23:59")


def test_a_count_that_cannot_be_is_not_stored(row: Any, tmp_path: Path) -> None:
    """Would break if a value over no image at all were kept."""
    for changes in ({"images": 0}, {"images": -5}, {"steps": -1}):
        with pytest.raises(UserError, match="which no recipe stores"):
            append(tmp_path / "a.jsonl", [row(**changes)])
    assert not (tmp_path / "a.jsonl").exists()


def test_a_row_of_another_dataset_is_no_row_of_this_file(row: Any, tmp_path: Path) -> None:
    """Would break if a row that was moved into another file counted, or its file's own rows did not."""
    append(tmp_path / "mnist.jsonl", [row(dataset="mnist"), row(dataset="cifar10")])
    assert [one.intact for one in read_all(tmp_path)] == [True, False]
    assert read_all(tmp_path)[1].fault == "is a row of 'cifar10' in the file of 'mnist'"


def test_what_stands_already_is_looked_for_under_the_lock(row: Any, tmp_path: Path) -> None:
    """Would break if a row that another process stored a moment ago were stored a second time."""
    path, same = tmp_path / "a.jsonl", lambda old, new: old.metric == new.metric
    (first,) = append(path, [row(seed=1)], stands=same)
    assert first == row(seed=1)
    stored, new = append(path, [row(seed=2), row(seed=3, metric="kid")], stands=same)
    assert (stored.seed, stored.where != "", new.seed) == (1, True, 3)
    assert [one.seed for one in read(path)] == [1, 3]
    append(path, [row(seed=2)])
    assert len(read(path)) == 3


def test_a_link_to_nothing_is_told(row: Any, tmp_path: Path) -> None:
    """Would break if rows behind a dangling link counted as none, and were written over."""
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "elsewhere" / "a.jsonl")
    for use in (lambda: read(tmp_path / "a.jsonl"), lambda: append(tmp_path / "a.jsonl", [row()])):
        with pytest.raises(UserError, match="is a link to a file that is not there"):
            use()


def test_a_file_system_without_locks(row: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would break if rows were written without a lock, or the refusal were a traceback."""
    fcntl = pytest.importorskip("fcntl")
    for number in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):

        def refuse(descriptor: int, operation: int, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", refuse)
        with pytest.raises(UserError, match="has no locks; choose --results on another one"):
            append(tmp_path / "a.jsonl", [row()])
        assert read(tmp_path / "a.jsonl") == []
