"""The overview of `check`: counts that add up, failures in full, and each command of the queue once."""

import csv
import dataclasses
import io
import re
from pathlib import Path
from typing import Any

import pytest
import tyro

from reproduce.results import check, held_to_basis, read_all, read_expected, read_paper
from reproduce.results.overview import MEANING, counts, for_want_of_a_gpu, overview, queue
from reproduce.results.rendering import STYLES, render
from reproduce.results.verdict_records import KEYS, answer, as_csv, record
from reproduce.results.verdicts import STATUSES, TO_RUN
from tests.results.test_render import PAPER, verdict
from tests.test_stated_commands import arguments_of, stated

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(scope="module")
def verdicts() -> Any:
    """Judge the repository's own rows."""
    measured = read_all(RESULTS / "measured")
    return held_to_basis(check(measured, read_expected(RESULTS / "expected.toml")), measured)


def test_every_status_is_counted_explained_and_coloured(verdicts: Any) -> None:
    """Would break if a status were left out of the summary, or a verdict counted twice."""
    assert list(counts(verdicts)) == list(STATUSES) == list(MEANING) == list(STYLES)
    assert sum(counts(verdicts).values()) == len(verdicts)
    said = overview(verdicts, PAPER, 10)
    for status, number in counts(verdicts).items():
        assert re.search(rf"^  {status} +{number}  ", said, re.MULTILINE)
    assert f"{for_want_of_a_gpu(verdicts)} for want of a GPU" in said


def test_what_was_measured_is_never_called_never_run(verdicts: Any) -> None:
    """Would break if a result with a mean, or with rows of another configuration, were said not to have been run."""
    for one in verdicts:
        assert (one.mean is None) == (one.status in ("STALE", "NEVER RUN") or one.status == "FAIL")


def test_each_command_stands_once_and_everything_waits_for_one(verdicts: Any) -> None:
    """Would break if a command were printed for each number, or a result that is to be run had none."""
    queued = queue(verdicts)
    assert len({one.command for one in queued}) == len(queued)
    assert sum(len(one.waiting) for one in queued) == sum(one.status in TO_RUN for one in verdicts)
    assert [one.needs_gpu for one in queued] == sorted(one.needs_gpu for one in queued)
    said = overview(verdicts, PAPER, 10, width=60)
    for one in queued:
        assert said.splitlines().count(f"    {one.command}") == 1  # whole at any width, to be copied


@pytest.mark.slow
def test_every_command_that_check_prints_parses(verdicts: Any) -> None:
    """Would break if `check` offered a command that does not exist, or an option that it refuses."""
    text = overview(verdicts, PAPER, 10) + render(verdicts, PAPER, "terminal")
    found = {command for line in text.splitlines() for command in stated(line)}
    assert len(found) > 100
    for module, rest in found:
        import shlex

        tyro.cli(arguments_of(module), args=shlex.split(rest))


def test_failures_are_shown_in_full() -> None:
    """Would break if a failure were counted and its reason, or its command, kept back."""
    some = [verdict("FAIL", reason="4 away", command="nox -s reproduce_x", mean=74.0), verdict("PASS", mean=70.0)]
    said = overview(some, PAPER, 2)
    assert "4 away" in said
    assert "nox -s reproduce_x" in said
    assert "74.00" in said
    assert "70.00, " not in said
    assert "\x1b" not in said


@pytest.mark.parametrize("width", [40, 80, 200])
def test_text_fits_the_terminal(verdicts: Any, width: int) -> None:
    """Would break if a sentence ran beyond a narrow terminal; a command is whole, whatever the width."""
    for line in overview(verdicts, PAPER, 10, width=width).splitlines():
        assert len(line) <= width or line.startswith("    nox -s "), line


def test_records_have_the_documented_keys(verdicts: Any) -> None:
    """Would break if a key were added or left out without a word, or a number were rounded on its way."""
    one = verdict("PASS", mean=70.123456789, spread=0.25, count=3, images=50000)
    found = record(one, PAPER)
    assert list(found) == list(KEYS)
    assert (found["measured"], found["paper"], found["verdict"]) == (70.123456789, 66.32, "PASS")
    whole = answer(verdicts, PAPER, 7, ["a fault"])
    documented = (Path(__file__).parents[2] / "reproduce" / "check.py").read_text()
    for key in whole:
        assert re.search(rf"\b{key}\b", documented), key
    assert (len(whole["verdicts"]), whole["rows"], whole["faults"]) == (len(verdicts), 7, ["a fault"])


def test_csv_reads_back(verdicts: Any) -> None:
    """Would break if a comma or a line end in a reason moved a column, or a number lost digits."""
    odd = dataclasses.replace(verdict("FAIL", mean=1 / 3), reason='a, "b"\nc')
    back = list(csv.DictReader(io.StringIO(as_csv([*verdicts, odd], PAPER), newline="")))
    assert [line["reason"] for line in back] == [one.reason for one in verdicts] + [odd.reason]
    assert float(back[-1]["measured"]) == 1 / 3
    assert back[-1]["spread"] == ""
    assert read_paper(RESULTS / "paper.toml") == PAPER
