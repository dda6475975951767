"""The joined tables: reported and measured in columns of their own."""

from pathlib import Path
from typing import Any

from figures.tables import draw, join
from jlebm.results import append, check, expect, read_all, read_expected, read_paper, write_expected


def _measure(results: Path, row: Any, **changes: Any) -> None:
    rows = [row(preset="budget", metric="fid", value=70.0 + seed, seed=seed, **changes) for seed in (1, 2, 3)]
    append(results / "measured" / "cifar10.jsonl", rows)
    entries = read_expected(results / "expected.toml")
    asked = ("budget", "fid", "joint-mle", "ebm-prior")
    old = next(one for one in entries if (one.preset, one.metric, one.learning, one.source) == asked)
    write_expected(results / "expected.toml", [expect(rows, old)])


def _joined(results: Path, table: str) -> dict[str, dict[str, str]]:
    paper = read_paper(results / "paper.toml")
    verdicts = check(read_all(results / "measured"), read_expected(results / "expected.toml"))
    header, rows = join(table, paper, verdicts)
    return {cells[0]: dict(zip(header, cells, strict=True)) for cells in rows}


def test_nothing_measured(results: Path) -> None:
    """Would break if a missing measurement were an empty cell, or a number that the paper lacks were made up."""
    table = _joined(results, "table2")
    assert len(table) == 14
    assert table["ours"]["cifar10 FID, reported"] == "11.34"
    assert table["ours"]["cifar10 FID, measured here"] == "not measured"
    assert table["NCP-VAE"]["cifar10 IS, reported"] == "-"


def test_a_measured_number_has_its_own_column(results: Path, row: Any) -> None:
    """Would break if ours stood under the paper's, without its protocol, or not in the table that repeats it."""
    _measure(results, row)
    for table, system in (("table1", "ours (L=2)"), ("table5", "ours, MCMC posterior")):
        cells = _joined(results, table)[system]
        assert cells["cifar10 FID, reported"] == "66.32"
        assert cells["cifar10 FID, measured here"] == "72.00 ± 1.00, 3 seeds, 2000 images"
        assert cells["protocol of the measured"] == "cifar10/1, preset budget, joint-mle, ebm-prior"
        assert cells["svhn FID, measured here"] == "not measured"
    assert _joined(results, "table1")["VAE"]["cifar10 FID, measured here"] == "not measured"


def test_another_metric_never_stands_there(results: Path, row: Any) -> None:
    """Would break if fid768 were written into the column of FID."""
    append(results / "measured" / "cifar10.jsonl", [row(preset="budget", metric="fid768")])
    assert _joined(results, "table1")["ours (L=2)"]["cifar10 FID, measured here"] == "not measured"


def test_a_changed_row_is_marked(results: Path, row: Any) -> None:
    """Would break if a row that was changed by hand reached a table as if it were measured."""
    _measure(results, row)
    path = results / "measured" / "cifar10.jsonl"
    path.write_text(path.read_text().replace('"value": 71.0', '"value": 61.0'))
    assert _joined(results, "table1")["ours (L=2)"]["cifar10 FID, measured here"] == "- (FAIL)"


def test_both_formats_are_written(results: Path, tmp_path: Path) -> None:
    """Would break if a form lost a system or was not escaped."""
    draw(results, tmp_path / "out")
    for name, star in (("table2.md", r"NVAE\* |"), ("table2.tex", "NVAE* &")):
        text = (tmp_path / "out" / name).read_text()
        assert star in text
        assert text.count("not measured") == 26
