"""The table of the ladder of priors: which rows stand in a line, and what a share of a gap is of."""

from pathlib import Path
from typing import Any

from figures.ladder_of_priors import HEADER, PAPERS, ladder_of_priors
from figures.summaries import headline, layers, priors
from reproduce.results import Measurement, read_paper
from reproduce.results.prior_lines import LADDER

PAPER = read_paper(Path(__file__).resolve().parents[2] / "results" / "paper.toml")
LINES = {line.name: line for line in LADDER}


def rows_of(row: Any, name: str, value: float, posterior: float, **changes: Any) -> list[Measurement]:
    line = LINES[name]
    asked = {
        "protocol": "priors/1",
        "recipe": "priors",
        "model": name,
        "learning": line.learning,
        "preset": "cpu",
        "variation": line.variation,
        "complete": False,
        **changes,
    }
    made = [row(source=line.source, value=value, **asked), row(source="posterior", value=posterior, chain="", **asked)]
    return [*made, row(source="posterior", metric="reconstruction_mse", value=0.01, **asked)]


def test_a_line_for_every_prior_and_a_share_of_its_own_twins_gap(row: Any) -> None:
    """Would break if energies were judged against another learning's twin, or rows that the clock ended were lost."""
    rows = [*rows_of(row, "gaussian-chains", 3.0, 1.5), *rows_of(row, "joint-chains", 2.0, 1.0)]
    rows += rows_of(row, "gaussian-inference", 9.0, 1.0)
    lines = [cells for cells in ladder_of_priors(rows, PAPER) if cells[0] == "cifar10"]
    assert [cells[1] for cells in lines] == [line.title for line in LADDER]
    shown = dict(zip([line.name for line in LADDER], lines, strict=True))
    gap, fid = (HEADER.index(name) for name in ("gap to its Gaussian twin closed", "fid768"))
    assert shown["joint-chains"][gap] == "0.500"  # (3 - 2) / (3 - 1)
    assert shown["gaussian-chains"][gap] == "-"
    assert [shown[name][fid] for name in ("lebm", "joint-chains")] == ["not measured", "2.0000"]
    assert [shown[name][-1] for name in ("vae", "lebm", "joint-chains", "joint-inference")] == [
        "106.37",
        "70.15",
        "66.32",
        "68.45",
    ]


def test_a_gap_is_of_equally_many_images(row: Any) -> None:
    """Would break if a share were of distances over different numbers of images, of which more are always nearer."""
    gap = HEADER.index("gap to its Gaussian twin closed")
    ours = rows_of(row, "joint-chains", 2.0, 1.0)
    for changes, shown in (({}, "0.500"), ({"images": 10_000}, "-"), ({"reference": "cifar10/train, 9 images"}, "-")):
        lines = ladder_of_priors([*rows_of(row, "gaussian-chains", 3.0, 1.5, **changes), *ours], PAPER)
        (cells,) = (cells for cells in lines if cells[:2] == ("cifar10", LINES["joint-chains"].title))
        assert cells[gap] == shown


def test_two_hours_stand_below_ten_minutes(row: Any) -> None:
    """Would break if two sizes were averaged, or a twin of another size judged the energies."""
    rows = [*rows_of(row, "gaussian-chains", 3.0, 1.5), *rows_of(row, "joint-chains", 2.0, 1.0)]
    rows += rows_of(row, "gaussian-chains", 1.8, 0.5, preset="long")
    rows += rows_of(row, "joint-chains", 1.2, 0.6, preset="long")
    lines = ladder_of_priors(rows, PAPER)
    fid, gap = (HEADER.index(name) for name in ("fid768", "gap to its Gaussian twin closed"))
    assert [(cells[fid], cells[gap]) for cells in lines if cells[0] == "cifar10, long"] == [
        ("1.8000", "-"),
        ("1.2000", "0.500"),  # (1.8 - 1.2) / (1.8 - 0.6)
    ]
    assert [cells for cells in lines if cells[0] != "cifar10, long"] == ladder_of_priors(rows[:6], PAPER)


def test_a_dataset_without_rows_is_one_line() -> None:
    """Would break if a table of nothing had a line for every prior, or none."""
    assert [cells[:3] for cells in ladder_of_priors([], PAPER)] == [
        (dataset, f"all {len(LADDER)}", "not measured") for dataset in PAPERS
    ]


def test_the_newest_configuration_and_the_size_of_the_table_alone(row: Any) -> None:
    """Would break if `tiny`, another noise or an older configuration were averaged into a line."""
    later = {"config_digest": "e" * 64, "date": "2026-02-01T12:00:00+00:00"}
    rows = [*rows_of(row, "abp", 9.0, 1.0), *rows_of(row, "abp", 5.0, 1.0, **later)]
    rows += rows_of(row, "abp", 1.0, 1.0, preset="tiny")
    rows += rows_of(row, "abp", 1.0, 1.0, variation={**LINES["abp"].variation, "noise": "philox/1"})
    (line,) = [cells for cells in ladder_of_priors(rows, PAPER) if cells[1] == LINES["abp"].title]
    assert line[2] == "5.0000"


def test_the_other_tables_do_not_take_them(row: Any) -> None:
    """Would break if a prior of the ladder stood for the model of a recipe of the same size and learning."""
    rows = [*rows_of(row, "joint-chains", 2.0, 1.0), *rows_of(row, "gaussian-inference", 3.0, 1.0)]
    complete = [one for one in rows if one.recipe == "priors"]
    assert headline(complete, []) == []
    assert layers(complete) == []
    assert priors(complete) == priors([])
