"""How the work of `check` grows with the number of rows: counted, not timed."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reproduce.results import Measurement, append, check, held_to_basis, read_all, read_expected

RESULTS = Path(__file__).parents[2] / "results"


def calls_of(work: Callable[[], object]) -> int:
    """Count the calls of functions, Python's and C's, that a piece of work makes."""
    count = 0

    def see(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def copies(rows: list[Measurement], number: int) -> list[Measurement]:
    """Return the rows with as many others: half of them of other seeds, half that no other row may be averaged with."""
    made = list(rows)
    for copy in range(1, number):
        for row in rows:
            images = row.images + (copy + 1) // 2 * (copy % 2)
            made.append(dataclasses.replace(row, seed=row.seed + 1000 * copy, images=images, row_digest=""))
    return made


@pytest.mark.slow
def test_the_work_grows_with_the_number_of_rows() -> None:
    """Breaks if each row, or each group of rows, is compared with every other one: four times the rows, 16 the work."""
    expected = read_expected(RESULTS / "expected.toml")
    rows = read_all(RESULTS / "measured")[:400]
    check(rows, expected)  # what is imported late is
    some, many = copies(rows, 2), copies(rows, 8)
    growth = calls_of(lambda: check(many, expected)) / calls_of(lambda: check(some, expected))
    assert growth < 1.15 * len(many) / len(some)


@pytest.mark.slow
def test_reading_grows_with_the_number_of_rows(tmp_path: Path) -> None:
    """Breaks if reading, or holding expectations to their rows, looks at all rows for each one."""
    rows = [row for row in read_all(RESULTS / "measured") if row.dataset == "cifar10"][:100]
    expected = read_expected(RESULTS / "expected.toml")

    def work(folder: Path) -> None:
        measured = read_all(folder)
        held_to_basis(check(measured, expected), measured)

    counted = []
    for number in (4, 16):
        folder = tmp_path / str(number)
        append(folder / "cifar10.jsonl", copies(rows, number))
        work(folder)
        counted.append(calls_of(lambda folder=folder: work(folder)))
    assert counted[1] < 1.15 * 4 * counted[0]
