"""The table of systems: what is averaged into a line, what stands beside it, and what was not run."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from jlebm.errors import UserError
from reproduce.results import Measurement, append, read, read_paper
from reproduce.results.comparison import HEADER, NOT_RUN, comparison, not_run, sources
from reproduce.results.table_lines import BASELINES, SYSTEMS

ROOT = Path(__file__).resolve().parents[2]
PAPER = read_paper(ROOT / "results/paper.toml")


@pytest.fixture
def ddpm(row: Any) -> Any:
    """Make a row of DDPM that differs in the given fields."""

    def make(**changes: Any) -> Measurement:
        plain = {"protocol": "table/1", "preset": "cpu", "learning": "ddpm", "source": "samples", "images": 10_000}
        return row(**{**plain, "wall_seconds": {"train": 300.0, "sample": 200.0}, **changes})

    return make


def line(measured: list[Measurement], title: str) -> dict[str, str]:
    (found,) = (cells for cells in comparison(measured, PAPER, "cifar10", "cpu") if cells[0] == title)
    return dict(zip(HEADER, found, strict=True))


def test_a_line_is_the_mean_over_seeds_with_what_it_cost(ddpm: Any) -> None:
    """A mean over the wrong rows, or a time of other rows than the value's, breaks this."""
    measured = [ddpm(seed=seed, value=1.0 + seed) for seed in (1, 2, 3)]
    measured += [ddpm(seed=seed, metric="parameters", value=640_620.0, extractor="") for seed in (1, 2, 3)]
    cells = line(measured, "DDPM")
    assert cells["paper reports"] == "IS 9.46, FID 3.17"
    assert cells["measured here"] == "fid768 3.0000 ± 1.0000 (3 seeds, 10000 images, inception-2015-12-05)"
    assert cells["training"] == "5 min, cpu-avx2"
    assert cells["parameters"] == "640,620"
    assert cells["sampling 1,000 images"] == "20 s"
    assert cells["classes"] == "unconditional"
    assert line(measured, "BigGAN")["classes"] == "class-conditional"


@pytest.mark.parametrize(
    "other",
    [{"protocol": "table/2"}, {"config_digest": "e" * 64}, {"images": 2000}, {"extractor": "another, sha256:1"}],
    ids=str,
)
def test_rows_made_otherwise_are_never_averaged(ddpm: Any, other: dict[str, Any]) -> None:
    """The line is of the rows that were measured last, and of nothing beside them."""
    later = {"value": 9.0, "seed": 2, "date": "2026-02-01T12:00:00+00:00"}
    cells = line([ddpm(value=1.0), ddpm(**other, **later)], "DDPM")
    assert cells["measured here"].startswith("fid768 9.0000 (1 seed")


@pytest.mark.parametrize(
    "other", [{"learning": "ncsn"}, {"preset": "tiny"}, {"dataset": "photos"}, {"source": "ebm-prior"}], ids=str
)
def test_rows_of_something_else_are_not_a_systems(ddpm: Any, other: dict[str, Any]) -> None:
    """Another system, size, dataset or source of samples leaves the line as not run."""
    assert line([ddpm(**other)], "DDPM")["measured here"] == NOT_RUN


def test_what_was_not_run_has_its_command(ddpm: Any) -> None:
    """Every line without a row has the command that makes it, the two-stage ones that of their recipe."""
    missing = dict(not_run([ddpm()], "cifar10", "cpu"))
    assert missing.keys() == {system.title for system in SYSTEMS} - {"DDPM"}
    assert missing["NCSN"] == "nox -s reproduce_table -- --systems ncsn --preset cpu --seeds 1"
    assert missing["ours, two-stage"] == "nox -s reproduce_cifar10 -- --model two-stage --preset cpu --seeds 1"
    assert all(command.endswith("--dataset photos --seeds 1") for _, command in not_run([], "photos", "tiny"))


def test_both_priors_of_a_backbone_are_lines_of_their_own(ddpm: Any) -> None:
    """The recipe's rows are picked up by their source: the same weights without and with energies."""
    shared = {"learning": "two-stage", "protocol": "cifar10-two-stage/1"}
    measured = [ddpm(source="gaussian-prior", value=2.0, **shared), ddpm(source="ebm-prior", value=1.0, **shared)]
    assert "fid768 2.0000" in line(measured, "NVAE, Gaussian prior")["measured here"]
    assert "fid768 1.0000" in line(measured, "ours, two-stage")["measured here"]


def test_an_early_end_is_told(ddpm: Any) -> None:
    """A training that the clock ended is not shown as one that went to its end."""
    assert "ended by the clock at step 100" in line([ddpm(complete=False)], "DDPM")["measured here"]


def test_a_row_changed_by_hand_is_refused(ddpm: Any, tmp_path: Path) -> None:
    """No number of the table is by hand."""
    path = tmp_path / "cifar10.jsonl"
    append(path, [ddpm()])
    path.write_text(path.read_text().replace('"value": 1.25', '"value": 0.25'))
    with pytest.raises(UserError, match="line 1 was changed"):
        comparison(read(path), PAPER, "cifar10", "cpu")


def test_what_did_not_learn_says_so(ddpm: Any) -> None:
    """A line no better than independent pixels at the same preset is told apart; one that is better is not."""
    pixels = [ddpm(learning="pixels", value=value, seed=seed) for seed, value in ((1, 2.0), (2, 3.0))]
    assert "did not learn" in line([ddpm(value=2.5), *pixels], "DDPM")["measured here"]
    assert "did not learn" not in line([ddpm(value=2.4), *pixels], "DDPM")["measured here"]
    assert "did not learn" not in line(pixels, "independent pixels: nothing learned")["measured here"]
    assert "did not learn" not in line([ddpm(value=9.0)], "DDPM")["measured here"], "nothing to hold it to"
    fewer = [dataclasses.replace(one, images=768) for one in pixels]
    assert "did not learn" not in line([ddpm(value=9.0), *fewer], "DDPM")["measured here"], "judged on other images"


def test_a_likelihood_says_of_which_levels_it_is(ddpm: Any) -> None:
    """Bits of images of other levels are other numbers; without the levels nobody could compare them."""
    glow = {"learning": "glow", "extractor": ""}
    bits = {"metric": "bits_per_dimension", "source": "held-out", "images": 1000, "bits": 5}
    cells = line([ddpm(**glow | {"metric": "parameters", "value": 9.0}), ddpm(**glow | bits | {"value": 1.25})], "GLOW")
    assert cells["measured here"] == "bits per dimension 1.250 (1 seed, 1000 of cifar10/train, 5 bits a colour)"


def test_systems_and_sources(ddpm: Any) -> None:
    """Fourteen systems that papers report, and others; all but two trained by the same command; the papers' sources."""
    assert len([system for system in SYSTEMS if system.paper]) == 14
    assert len(BASELINES) == len(SYSTEMS) - 2
    assert len({(system.learning, system.source) for system in SYSTEMS}) == len(SYSTEMS)
    assert [system.name for system in SYSTEMS if system.conditional] == ["biggan"]
    assert all("Table 2" in source for source in sources(PAPER))
    assert dataclasses.replace(ddpm(), learning="stylegan2").learning == "stylegan2"
