"""The joined tables: reported and measured in columns of their own."""

from pathlib import Path
from typing import Any

from figures.tables import TABLES, draw, join
from reproduce.results import Expectation, append, check, expect, read_all, read_expected, read_paper, write_expected
from reproduce.results.expectation import QUESTION


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
        assert cells["protocol of the measured"] == "cifar10/1, preset budget, two-layer joint-mle, ebm-prior"
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


def test_anomalies_stand_beside_the_reported_ones(results: Path, row: Any) -> None:
    """Would break if a digit's number stood under another digit, or Table 4 were left out."""
    one = row(
        dataset="mnist",
        protocol="anomaly/1",
        preset="cpu",
        metric="auprc",
        source="anomaly",
        target="4",
        score="L>0",
        value=0.5,
    )
    entry = Expectation(
        **{name: getattr(one, name) for name in ("protocol", *QUESTION)},
        seeds=1,
        needs="a CPU",
        command="python -m reproduce.anomaly",
        paper="table4.mnist-4.ours",
    )
    write_expected(results / "expected.toml", [entry])
    append(results / "measured" / "mnist.jsonl", [one])
    cells = _joined(results, "table4")["ours"]
    assert cells["mnist, digit 4 held out AUPRC, reported"] == "0.941 ± 0.001"
    assert cells["mnist, digit 4 held out AUPRC, measured here"] == "0.500, 1 seed, 2000 images"
    assert cells["mnist, digit 5 held out AUPRC, measured here"] == "not measured"
    assert "table4" in TABLES


def test_scores_of_other_layers_stand_below_the_papers(results: Path, row: Any) -> None:
    """Would break if LLR>2 of a model of three layers were printed as the paper's LLR>9, or not at all."""
    found = {"preset": "cpu", "protocol": "ood/1", "learning": "variational"}
    scores = [
        row(metric=metric, source="out-of-distribution", target=outside, score="LLR>2", value=value, **found)
        for metric, outside, value in (("auroc", "svhn", 0.75), ("auprc", "svhn", 0.5), ("auroc", "mnist", 0.25))
    ]
    append(results / "measured" / "cifar10.jsonl", scores)
    table = _joined(results, "ood")
    assert table["ours, L^(>0)"]["cifar10 in, svhn out AUROC, reported"] == "0.087"
    assert not any(
        cells[f"cifar10 in, svhn out {metric}, measured here"][0].isdigit()
        for system, cells in table.items()
        for metric in ("AUROC", "AUPRC")
        if "LLR>2" not in system
    )
    cells = table["LLR>2, this project's model"]
    assert [cells[f"cifar10 in, svhn out {metric}, measured here"][:5] for metric in ("AUROC", "AUPRC")] == [
        "0.750",
        "0.500",
    ]
    assert cells["cifar10 in, svhn out AUROC, reported"] == "-"
    assert (
        cells["protocol of the measured"] == "ood/1, preset cpu, two-layer variational, out-of-distribution/svhn/LLR>2"
    )
    assert not any("this project" in system for table in ("table1", "table4") for system in _joined(results, table))


def test_both_formats_are_written(results: Path, tmp_path: Path) -> None:
    """Would break if a form lost a system or was not escaped."""
    draw(results, tmp_path / "out")
    for name, star in (("table2.md", r"NVAE\* |"), ("table2.tex", "NVAE* &"), ("table2.csv", "NVAE*,")):
        text = (tmp_path / "out" / name).read_text()
        assert star in text
        assert text.count("not measured") == 26
