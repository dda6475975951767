"""The README's small tables: what is averaged into a cell, what stands beside it, and what was not measured."""

from pathlib import Path
from typing import Any

import pytest

from figures import detection_tables, pages, paper_map, summaries
from figures.stored import Stored
from jlebm.errors import UserError
from reproduce.results import Expectation, Measurement, append, check, comparison, expect, read_paper
from reproduce.results.table_lines import BASELINES, SYSTEMS, System

PAPER = read_paper(Path(__file__).resolve().parents[2] / "results" / "paper.toml")


@pytest.fixture
def two_stage(row: Any) -> Any:
    """Make a row of the two-stage model at the size of the tables that differs in the given fields."""

    def make(**changes: Any) -> Measurement:
        return row(**{"protocol": "cifar10-two-stage/1", "preset": "cpu", "learning": "two-stage", **changes})

    return make


def both_priors(make: Any, **changes: Any) -> list[Measurement]:
    """Return three seeds of Gaussian 3, 4, 5 and EBM 2.5, 3.5, 4.5, and one of the posterior, 2."""
    rows = [make(source="posterior", value=2.0, **changes)]
    for seed in (1, 2, 3):
        rows.append(make(source="gaussian-prior", seed=seed, value=2.0 + seed, **changes))
        rows.append(make(source="ebm-prior", seed=seed, value=1.5 + seed, **changes))
    return rows


def by(header: tuple[str, ...], lines: list[Any], *names: str) -> list[list[str]]:
    return [[cells[header.index(name)] for name in names] for cells in lines]


def test_priors_of_one_backbone_stand_side_by_side(two_stage: Any) -> None:
    """Would break if a mean, spread or share were another than by hand, or a system without rows were left out."""
    other = {"protocol": "table/1", "learning": "ncp-vae", "source": "samples", "config_digest": "e" * 64}
    rows = [*both_priors(two_stage), two_stage(value=3.75, **other)]
    assert [cells[1:] for cells in summaries.priors(rows)] == [
        ("4.0000 ± 1.0000", "3", "2000", "0.000"),
        ("3.7500", "1", "2000", "0.125"),
        ("not measured", "-", "-", "-"),
        ("3.5000 ± 1.0000", "3", "2000", "0.250"),
        ("2.0000", "1", "2000", "1.000"),
    ]
    assert [cells[1] for cells in summaries.priors([])] == ["not measured"] * 5


def test_energies_of_one_hierarchy_share_its_gap(two_stage: Any) -> None:
    """Breaks if a line took an end over other images or of another dataset or backbone, or one preset hid another."""
    unmeasured = ("-", "-", "not measured", "-", "-", "-", "-")
    assert summaries.longer([]) == [("cifar10", *unmeasured), ("celeba64", *unmeasured)]
    rows = both_priors(two_stage, preset="long")
    path = {"preset": "long-path", "config_digest": "e" * 64, "date": "2026-02-01T12:00:00+00:00"}
    rows += [
        two_stage(source="ebm-prior", value=3.0, **path),
        two_stage(source="posterior", value=9.0, images=5, **path),
    ]
    chains = {
        "preset": "long-chains",
        "variation": {"chain_steps": 9},
        "config_digest": "f" * 64,
        "source": "ebm-prior",
    }
    rows += [two_stage(value=2.5, **chains), two_stage(value=9.0, **{**chains, "variation": {}, "images": 1_000})]
    rows += [two_stage(value=1.0, **{**chains, "variation": {"energies_seed": 2}, "images": 9_000})]
    rows += [two_stage(source="gaussian-prior", value=99.0, preset="cpu", date="2026-03-01T12:00:00+00:00")]
    faces = path | {"dataset": "celeba64", "preset": "long-chains", "images": 700}
    ends = zip(("gaussian-prior", "ebm-prior", "posterior"), (5.0, 4.0, 1.0), strict=True)
    rows += [two_stage(source=source, value=value, **faces) for source, value in ends]
    gaussian = "4.0000 ± 1.0000"
    assert summaries.longer(rows) == [
        ("cifar10", "long", gaussian, "3.5000 ± 1.0000", "0.250", "2.0000", "3", "2000"),
        ("cifar10", "long-path", gaussian, "3.0000", "0.500", "2.0000", "1", "2000"),
        ("cifar10", "long-chains --chain-steps 9", gaussian, "2.5000", "0.750", "2.0000", "1", "2000"),
        ("celeba64", "long-chains", "5.0000", "4.0000", "0.250", "1.0000", "1", "700"),
    ]


def test_trainings_of_the_energies_have_a_line(two_stage: Any) -> None:
    """Would break if seeds of samples were taken for trainings, or an older row for the newest of its training."""
    later = {"source": "ebm-prior", "seed": 1, "date": "2026-02-01T12:00:00+00:00"}
    rows = [
        *both_priors(two_stage),
        two_stage(preset="cpu", variation={"energies_seed": 2}, value=9.0, source="ebm-prior", seed=1),
    ]
    rows += [
        two_stage(preset="cpu", variation={"energies_seed": seed}, value=2.5 * seed - 2, **later) for seed in (2, 3)
    ]
    rows += [two_stage(preset="cpu", variation={"energies_seed": 2}, value=8.0, **later | {"seed": 2})]
    rows += [two_stage(preset="cpu", variation={"energies_seed": 4, "drift": "released"}, value=99.0, **later)]
    rows += [two_stage(preset="tiny", variation={"energies_seed": 2}, value=99.0, **later)]
    rows += [two_stage(preset="cpu", variation={"energies_seed": 5}, value=99.0, chain="1 step", **later)]
    first = next(row.value for row in rows if (row.source, row.seed, row.metric) == ("ebm-prior", 1, "fid768"))
    (line,) = [cells for cells in summaries.priors(rows) if cells[0] == summaries.RETRAINED]
    assert line[1].startswith(f"{(first + 3.0 + 5.5) / 3:.4f} ± ")
    assert line[2:4] == ("3", "2000")
    assert not [cells for cells in summaries.variations(rows) if "energies-seed" in cells[0]], "no other sampling"


@pytest.mark.parametrize(
    "other", [{"images": 1000}, {"reference": "cifar10/test"}, {"extractor": "another, sha256:1"}], ids=str
)
def test_a_prior_judged_otherwise_is_not_held_to_the_others(two_stage: Any, other: dict[str, Any]) -> None:
    """Would break if a number of fewer images, or of another evaluator, had a share of a gap that is not its own."""
    alone = two_stage(learning="vaebm", source="samples", value=3.0, **other)
    lines = summaries.priors([*both_priors(two_stage), alone])
    assert [cells[1] for cells in lines][1:3] == ["not measured", "not measured"]
    assert lines[5:] == [("VAEBM", "3.0000", "1", str(alone.images), "-")]
    again = summaries.priors([*both_priors(two_stage), alone, *both_priors(two_stage, **other)])
    assert [cells[-1] for cells in again if cells[0] == "VAEBM"][-1] == "0.500"


def test_a_line_is_of_the_newest_configuration_and_the_most_images(two_stage: Any) -> None:
    """Would break if two configurations or numbers of images met in one line."""
    later = {"config_digest": "e" * 64, "date": "2026-02-01T12:00:00+00:00"}
    more = {"images": 5000, "date": "2026-01-30T12:00:00+00:00"}
    rows = [*both_priors(two_stage), two_stage(source="posterior", value=1.0, **more)]
    rows += [
        two_stage(source=f"{name}-prior", value=value, **more) for name, value in (("gaussian", 3.0), ("ebm", 2.0))
    ]
    line = by(summaries.HEADLINE_HEADER, summaries.headline(rows, []), "EBM prior", "gap closed", "seeds", "images")
    assert line == [["2.0000", "0.500", "1", "5000"]]
    rows += [two_stage(source=f"{name}-prior", value=9.0, **later) for name in ("gaussian", "ebm")]
    line = by(summaries.HEADLINE_HEADER, summaries.headline(rows, []), "EBM prior", "posterior", "gap closed")
    assert line == [["9.0000", "-", "-"]]


def test_the_headline_has_the_verdict_of_the_ebm_prior(two_stage: Any) -> None:
    """Would break if a line bore the verdict of another number, or of none said NOT RUN."""
    rows = both_priors(two_stage)
    twin = two_stage(protocol="cifar10-ladder/1", learning="gaussian", source="gaussian-prior", value=6.0)
    entries: list[Expectation] = []
    for status in ("no expectation yet", "PASS"):
        lines = summaries.headline([*rows, twin], check([*rows, twin], entries))
        assert by(summaries.HEADLINE_HEADER, lines, "model", "verdict") == [
            ["two-stage", status],
            ["Gaussian twin", "no expectation yet"],
        ]
        assert by(summaries.HEADLINE_HEADER, lines, "Gaussian prior", "EBM prior")[1] == ["6.0000", "-"]
        entries = [expect([one for one in rows if one.source == "ebm-prior"])]


def test_a_variation_stands_below_the_plain_preset_of_its_seeds(two_stage: Any) -> None:
    """Would break if the plain line were of other seeds or images, or ten steps stood below a hundred."""
    flags = [two_stage(preset="cpu", variation={"chain_steps": count}, value=5.0) for count in (100, 10)]
    flags.append(two_stage(preset="cpu", variation={"chain_steps": 10}, metric="latent_auc", value=0.75))
    rows = [*both_priors(two_stage), *both_priors(two_stage, images=9000), *flags]
    assert summaries.variations(rows) == [
        ("cpu", "3.0000", "2.5000", "2.0000", "-", "1", "2000"),
        ("cpu --chain-steps 10", "-", "5.0000", "-", "0.7500", "1", "2000"),
        ("cpu --chain-steps 100", "-", "5.0000", "-", "-", "1", "2000"),
    ]
    assert summaries.variations(rows[:-3]) == []
    faces = [two_stage(dataset="celeba64", variation={"chain_steps": 10}, value=4.0)]
    faces.append(two_stage(dataset="celeba64", variation={"chain_steps": 10}, source="training-halves", images=500))
    assert summaries.variations([*faces, *rows]) == [
        *summaries.variations(rows),
        ("celeba64, cpu", "-", "-", "-", "-", "-", "2000"),
        ("celeba64, cpu --chain-steps 10", "-", "4.0000", "-", "-", "1", "2000"),
    ]


def test_each_layer_beside_its_twin(row: Any) -> None:
    """Would break if a number stood at another layer, the twin's as the model's, or one of few images for more."""

    def layer(learning: str, metric: str, of: str, value: float, **changes: Any) -> Measurement:
        said = {"protocol": "mnist-ladder/1", "model": "ladder", "dataset": "mnist", "preset": "cpu", **changes}
        source, _, name = of.partition("/")
        return row(learning=learning, metric=metric, source=source, layer=name, value=value, **said)

    rows = [
        layer("variational", "kl", "posterior/z1", 7.0),
        layer("variational", "latent_auc", "gaussian-prior/z1", 0.9),
        layer("variational", "latent_auc", "ebm-prior/z1", 0.6),
        layer("variational", "latent_auc", "ebm-prior/z10", 0.7),
        layer("variational", "latent_auc", "ebm-prior/z10", 0.5, images=100, date="2026-02-01T12:00:00+00:00"),
        layer("variational", "latent_auc", "ebm-prior", 0.8),
        layer("variational", "latent_accuracy", "posterior/z1", 50.0),
        layer("variational", "pixel_change", "ebm-prior/z1", 0.25),
        layer("gaussian", "latent_auc", "gaussian-prior/z1", 0.85),
        layer("gaussian", "pixel_change", "gaussian-prior/z1", 0.125),
    ]
    assert [cells[1:] for cells in summaries.layers(rows)] == [
        ("z10", "-", "-", "0.7000", "-", "-", "-", "-", "1", "2000"),
        ("z1", "7.00", "0.9000", "0.6000", "0.8500", "50.00", "0.2500", "0.1250", "1", "2000"),
        ("all", "-", "-", "0.8000", "-", "-", "-", "-", "1", "2000"),
    ]
    assert {cells[0] for cells in summaries.layers(rows)} == {"mnist, ladder"}


def test_anomalies_of_a_digit_beside_the_reported_ones(row: Any) -> None:
    """Would break if a digit's or a score's number stood under another, or a digit without rows were left out."""
    said = {"protocol": "anomaly/1", "dataset": "mnist", "preset": "cpu", "metric": "auprc", "learning": "variational"}
    rows = [row(**said, source="anomaly", target="4", score="L>0", seed=seed, value=0.1 * seed) for seed in (1, 2, 3)]
    rows += [
        row(**said, source="anomaly", target="4", score="E", value=0.75),
        row(**{**said, "metric": "auroc"}, source="anomaly", target="5", score="E"),
    ]
    header, lines = detection_tables.anomalies(rows, PAPER)
    names = ("digit", "L>0, here", "E, here", "L>0, here, Gaussian twin", "ours, reported", "VAE, reported")
    table = {cells[0]: cells for cells in by(header, lines, *names)}
    assert list(table) == ["1", "4", "5", "7", "9"]
    assert table["4"][1:] == ["0.200 ± 0.100", "0.750", "not measured", "0.941 ± 0.001", "0.337"]
    assert table["5"][1:5] == ["not measured", "not measured", "not measured", "0.964 ± 0.003"]


def test_another_papers_score_shares_no_line_with_ours(row: Any) -> None:
    """Would break if a score of our layers stood beside one of a model with other layers as if they were the same."""
    said = {"protocol": "ood/1", "dataset": "cifar10", "preset": "cpu", "learning": "variational"}
    one = row(**said, metric="auroc", source="out-of-distribution", target="svhn", score="L>0", value=0.25)
    lines = detection_tables.out_of_distribution([one], PAPER)
    pair = [cells for cells in lines if cells[0] == "cifar10 in, svhn out"]
    assert pair[0][1:] == ("L>0", "0.250", "-", "1", "2000")
    assert pair[1][1:4] == ("ours, L^(>0) (this paper)", "-", "0.087")
    longer = row(**said | {"preset": "long"}, metric="auroc", source="out-of-distribution", target="svhn", score="L>0")
    lines = detection_tables.out_of_distribution([longer, one], PAPER)
    assert lines[0] == pair[0], "sizes are not averaged"
    assert [cells[1:3] for cells in lines if cells[0] == "cifar10 in, svhn out, long"] == [("L>0", "1.250")]
    nothing = [cells[2] for cells in detection_tables.out_of_distribution([], PAPER) if cells[1] == "-"]
    assert nothing == ["not measured"] * len({cells[0] for cells in lines if not cells[0].endswith(", long")})


def test_the_written_tables_refuse_what_was_changed(results: Path, two_stage: Any, tmp_path: Path) -> None:
    """Would break if a number by hand reached a page, a run that ended early a small table, or NOT RUN a system."""
    path = results / "measured" / "cifar10.jsonl"
    append(path, [*both_priors(two_stage), two_stage(value=9.0, complete=False, date="2026-02-01T12:00:00+00:00")])
    tables = pages.texts(results)
    assert "| ours, joint EBM prior | 3.5000 ± 1.0000 | 3 | 2000 | 0.250 |" in tables["priors"]
    assert "9.0000" in tables["measured"]
    assert not any("NOT RUN" in text for text in tables.values())
    assert tables["systems"].count("not measured") == 13
    other = results / "measured" / "mnist.jsonl"
    append(other, [two_stage(dataset="mnist", value=4.5)])  # which no table of systems would refuse
    other.write_text(other.read_text().replace('"value": 4.5', '"value": 0.5'))
    with pytest.raises(UserError, match="was changed since it was stored"):
        pages.texts(results)


def test_a_page_keeps_what_stands_around_its_tables(tmp_path: Path) -> None:
    """Would break if writing a table lost prose, or a page without its marks were passed over."""
    page, mark = tmp_path / "README.md", pages.Mark.of("priors")
    page.write_text(f"before\n{mark.begin}old\n{mark.end}after\n")
    pages.update(page, {"priors": "new\n"})
    assert page.read_text() == f"before\n{mark.begin}new\n{mark.end}after\n"
    with pytest.raises(UserError, match="has no place for a table, between <!-- layers"):
        pages.update(page, {"layers": "new\n"})


def test_the_pages_of_a_checkout_are_rewritten(results: Path, two_stage: Any) -> None:
    """Breaks if the command wrote into another checkout than the one named, or left a page of it out."""
    root = results.parent
    for page, names in pages.PAGES.items():
        (root / page).parent.mkdir(exist_ok=True)
        (root / page).write_text("".join("{0.begin}{0.end}".format(pages.Mark.of(name)) for name in names))
    append(results / "measured" / "cifar10.jsonl", both_priors(two_stage))
    assert pages.main(["--root", str(root)]) == 0
    tables = pages.texts(results)
    for page, names in pages.PAGES.items():
        assert all(tables[name] in (root / page).read_text() for name in names)


def test_anomalies_of_the_split_stand_beside_what_is_possible_there(results: Path, row: Any) -> None:
    """Breaks if a row of the official test set or of a development run stood in the table, or sizes were averaged.

    Or if the VAE row, which no ranking of this test set reaches, stood there without a word.
    """
    said = {"protocol": "anomaly-80-20/1", "dataset": "mnist", "metric": "auprc", "source": "anomaly", "target": "1"}
    said |= {"model": "two-layer", "learning": "two-stage", "score": "L>0", "preset": "long"}
    rows = [row(**said, seed=seed, value=0.1 * seed) for seed in (4, 5, 6)]
    rows += [
        row(**said | {"preset": "cpu"}, value=0.9),
        row(**said | {"preset": "tiny"}, value=0.95),
        row(**said, variation={"development": True}, value=0.8),
        row(**said | {"protocol": "anomaly/1"}, value=0.7),
        row(**said | {"learning": "gaussian"}, value=0.3),
    ]
    header, lines = detection_tables.anomalies_of_split(rows, read_paper(results / "paper.toml"))
    assert header == ("model", "score", *(f"digit {digit}" for digit in (1, 4, 5, 7, 9)), "seeds")
    table = {line[:2]: line[2:] for line in lines}
    assert table["two-layer, two-stage, long", "L>0"] == ("0.500 ± 0.100", *"----", "3")
    assert table["two-layer, two-stage, cpu", "L>0"] == ("0.900", *"----", "1")
    assert table["two-layer, gaussian, long", "L>0"] == ("0.300", *"----", "1")
    assert table["chance", "-"] == ("0.388", "0.351", "0.331", "0.368", "0.356", "-")
    assert table["least possible", "-"] == ("0.226", "0.200", "0.188", "0.212", "0.204", "-")
    assert table["VAE, reported, impossible on this test set", "-"][0] == "0.063"
    assert table["ours, reported", "-"][0].startswith("0.470")
    assert len(lines) == 3 + 2 + 6


def test_the_status_of_a_line_is_that_of_its_own_rows(row: Any, tmp_path: Path) -> None:
    """Would break if rows of another protocol or size told the status of the official test images in the map."""
    said = {"protocol": "anomaly/1", "dataset": "mnist", "metric": "auprc", "source": "anomaly", "score": "L>0"}
    said |= {"preset": "cpu", "learning": "variational", "model": "ladder"}
    official = [row(**said, target=str(digit), value=0.1 * digit) for digit in (1, 4, 5, 7, 9)]
    other = row(**said | {"protocol": "anomaly-80-20/1", "preset": "long"}, target="1", value=0.7)
    expected = [expect([one]) for one in official]
    verdicts = check([*official, other], expected)
    assert {one.status for one in verdicts} == {"PASS", "NO EXPECTATION"}
    stored = Stored(tmp_path, [*official, other], verdicts, PAPER, (), ())
    (line,) = [one for one in paper_map.LINES if one.place == "The same, official test images"]
    assert line.said(stored) == ("AUPRC 0.100, 0.400, 0.500, 0.700, 0.900", "PASS")


def test_the_map_counts_the_systems_that_the_paper_reports(
    row: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a system of one's own behind the last, as in docs/extending, counts as one of Table 2."""
    own = System("one-spread", "one spread for all pixels", "")
    monkeypatch.setattr(paper_map, "BASELINES", (*BASELINES, own))
    monkeypatch.setattr(comparison, "SYSTEMS", (*SYSTEMS, own))
    said = {"protocol": "table/1", "preset": "cpu", "metric": "fid768", "source": "samples"}
    values = {"ddpm": 1.0, "vaebm": 2.0, "pixels": 9.0}
    rows = [row(**said, learning=name, value=value) for name, value in values.items()]
    (line,) = [one for one in paper_map.LINES if one.place == "Table 2, twelve others"]
    stored = Stored(tmp_path, rows, [], PAPER, (), ())
    assert line.said(stored) == ("fid768 1.0000 to 2.0000, 2 of 12 systems", "measured")
