"""The report: one file with everything stored, in which a stored text never acts."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from figures import report
from figures.exploring import Curve, Exploration
from figures.registry import FIGURES
from figures.report import assembling, claim, contents, gallery, tabular
from figures.report.__main__ import main
from figures.report.waiting import waiting
from figures.summaries import headline
from jlebm.errors import UserError
from reproduce.results import check, read_all, read_expected, write_artifact
from reproduce.results.cited import Cited
from tests.figures.conftest import RUN, pictures
from tests.figures.report_pages import HOSTILE, data_in, elements, toy_results

RESULTS = Path(__file__).parents[2] / "results"
LOADING = ("src", "href", "srcset", "poster", "data", "action")


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_results(tmp_path_factory.mktemp("report") / "results")


@pytest.fixture(scope="module")
def page(toys: Path) -> str:
    return assembling.page_of(report.all_results(toys))


@pytest.fixture(scope="module")
def everything() -> tuple[contents.Contents, str]:
    """The page of the repository's own results."""
    found = report.all_results(RESULTS)
    return found, assembling.page_of(found)


def test_nothing_is_loaded_from_anywhere(page: str) -> None:
    """Breaks if the page needs a server or a network: a script, a style or a picture by its address."""
    for tag, attributes in elements(page):
        for name in LOADING:
            value = attributes.get(name) or ""
            assert not value or value.startswith(("#", "data:")), (tag, name, value[:80])
        assert not any(name.startswith("on") for name in attributes), tag  # no handler beside an element
    styles = "".join(re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL))
    assert all(url.startswith("data:") for url in re.findall(r"url\([\"']?([^)]*)", styles))
    assert "@import" not in styles
    assert page.count("<script") == 2  # the data, and one module


def test_the_same_results_give_the_same_bytes(toys: Path, page: str, tmp_path: Path) -> None:
    """Breaks if the page says when it was made, or its order is that of a set."""
    size = report.write_page(report.all_results(toys), tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == page.encode()
    assert size == len(page.encode())


def test_a_stored_text_stays_a_text(page: str) -> None:
    """Breaks if a row's text can end a script, or brings its control characters along."""
    assert "</script><script>window" not in page
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", page)
    told = json.dumps(data_in(page))
    assert "window.stolen=1" in told
    assert r"\\x1b[2J" in told


def test_a_name_in_the_template_is_escaped(toys: Path, tmp_path: Path) -> None:
    """Breaks if the template writes what a folder is called as markup."""
    found = report.all_results(toys)
    named = type(found)(**{**vars(found), "title": HOSTILE, "run": HOSTILE})
    written = assembling.page_of(named)
    assert written.count("<script") == 2
    assert not any(attributes.get("onerror") for _, attributes in elements(written))
    assert "\x1b" not in written


def test_every_kind_of_figure_can_be_explored(page: str) -> None:
    """Breaks if a figure's script draws, and the page has only its drawing, or nothing of it."""
    assert all(figure.explore is not None for figure in FIGURES)
    kinds = {one["kind"] for one in data_in(page)["figures"]}
    assert kinds == {figure.drawing.title for figure in FIGURES}
    for one in data_in(page)["figures"]:
        count = len(one["positions"])
        assert count == 1 or one["slider"], one["title"]
        assert len(one["marks"]) in (0, count)
        for picture in one["pictures"]:
            assert len(picture["frames"]) in (1, count)
            assert all(frame.startswith("data:image/webp;base64,") for frame in picture["frames"])


def test_a_slider_shows_another_picture_at_each_position(page: str) -> None:
    """Breaks if the step of a chain, the layer drawn anew or the layers kept move nothing."""
    moving = [one for one in data_in(page)["figures"] if len(one["positions"]) > 1 and one["pictures"]]
    assert {"Langevin step", "the layer drawn anew", "layers kept"} == {one["slider"] for one in moving}
    for one in moving:
        changing = [picture for picture in one["pictures"] if len(picture["frames"]) > 1]
        assert changing
        for picture in changing:
            assert len(set(picture["frames"])) == len(picture["frames"]), one["title"]


@pytest.mark.slow
def test_a_figure_without_an_exploration_is_shown_as_it_is_drawn(toys: Path, monkeypatch: Any) -> None:
    """Breaks if a new kind of figure is missing from the page until somebody writes more than its script."""
    bare = [figure._replace(explore=None) if figure.draw else figure for figure in FIGURES]
    monkeypatch.setattr(contents, "FIGURES", bare)
    found = gallery.gallery(report.all_results(toys))
    assert {one["kind"] for one in found} == {figure.drawing.title for figure in FIGURES}
    assert all(len(one["pictures"]) == 1 for one in found if one["kind"] == "samples")


def test_both_energies_of_a_layer_share_a_plot(tmp_path: Path) -> None:
    """Breaks if posterior and prior of one layer stand in two panels, where nobody sees their gap."""
    curve = np.array([[1.0, 11.0], [2.0, 1.0]])
    names = ("energy_posterior/z1", "energy_prior/z1", "energy_posterior/z2", "energy_prior/z2", "reconstruction")
    write_artifact(tmp_path / "artifacts/a_training.npz", dict.fromkeys(names, curve), RUN)
    (one,) = gallery.gallery(report.all_results(tmp_path))
    told = {plot["title"]: ([curve["label"] for curve in plot["curves"]], plot["gap"]) for plot in one["plots"]}
    assert told == {
        "energy E(z), layer z2": (["posterior", "prior"], True),
        "energy E(z), layer z1": (["posterior", "prior"], True),
        "reconstruction error": (["value"], False),
    }


def test_a_long_curve_keeps_its_ends() -> None:
    """Breaks if thinning drops the start or the end of a curve, or tears the band from its line."""
    x = np.arange(5000, dtype=np.float64)
    thin = Curve("energy", x, x**2, x).thinned(100)
    assert (len(thin.x), thin.x[0], thin.x[-1]) == (100, 0, 4999)
    assert thin.band is not None
    np.testing.assert_array_equal(thin.y, thin.band**2)


def test_a_picture_is_small_and_exact_where_its_pixels_are_seen() -> None:
    """Breaks if small images are blurred by compression, or the gaps between them are not transparent."""
    import base64
    import io

    from PIL import Image

    images = pictures(4, side=8)
    url = gallery.image_url(images, 2)
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        pixels = np.asarray(image.convert("RGBA"))
    assert pixels.shape == (18, 18, 4)
    np.testing.assert_array_equal(pixels[:8, :8, :3], images[0].transpose(1, 2, 0))
    np.testing.assert_array_equal(pixels[10:, 10:, :3], images[3].transpose(1, 2, 0))
    assert not pixels[8:10, :, 3].any()


def test_a_value_that_is_not_finite_is_a_gap() -> None:
    """Breaks if a diverged training's curve makes the page's JSON unreadable."""
    assert gallery._rounded(np.array([1.0, np.nan, np.inf, 123456.789])) == [1.0, None, None, 123460.0]
    assert "NaN" not in assembling.script_json(gallery._encoded(Exploration("x", plots=())))


@pytest.mark.parametrize(
    ("gaussian", "ebm", "outcome"),
    [
        ((1.5, 1.51), (1.2, 1.21), "nearer"),
        ((1.5, 1.9), (1.4, 1.6), "not nearer"),  # within the spread
        ((1.2, 1.21), (1.5, 1.51), "not nearer"),
        ((1.5,), (1.2,), "one seed"),
    ],
)
def test_the_claim_is_judged_by_means_and_spread(row: Any, gaussian: Any, ebm: Any, outcome: str) -> None:
    """Breaks if a difference within the spread over seeds, or on one seed, is called more than that."""
    one, other = (
        Cited("x", [row(seed=seed, value=value) for seed, value in enumerate(some)]) for some in (gaussian, ebm)
    )
    assert claim.outcome(one, other) == outcome


@pytest.mark.slow
def test_the_claim_is_what_the_rows_say(everything: tuple[contents.Contents, str]) -> None:
    """Breaks if a number of the claim is typed, or is not the one of the tables."""
    found, written = everything
    rows = read_all(RESULTS / "measured")
    verdicts = check(rows, read_expected(RESULTS / "expected.toml"))
    lines = [
        line for line in headline([row for row in rows if row.complete], verdicts) if "-" not in (line[2], line[3])
    ]
    told = claim.comparisons(found)
    assert [(one.model, *one.cells, one.seeds, one.images, one.verdict) for one in told] == [
        (f"{line[0]}, {line[1]}", *line[2:]) for line in lines
    ]
    assert claim.sentence(told) in written
    for one in told:
        for cell in one.cells:
            assert f">{cell.partition(' ± ')[0]}</button>" in written, cell


@pytest.mark.slow
def test_every_row_and_every_artifact_is_there_once(everything: tuple[contents.Contents, str]) -> None:
    """Breaks if a stored row or an array file is left out, or stands twice."""
    _, written = everything
    data = data_in(written)
    (table,) = [one for one in data["tables"] if one["name"] == "rows"]
    places = [cell["r"][0] for line in table["lines"] for cell in line if isinstance(cell, dict) and "r" in cell]
    fields = [dict(zip(data["fields"][kind], values, strict=True)) for kind, _, values in data["rows"]]
    digests = [fields[place]["row digest"] for place in places]
    assert sorted(digests) == sorted(row.row_digest for row in read_all(RESULTS / "measured"))
    assert {one["artifact"] for one in data["figures"]} >= {path.stem for path in (RESULTS / "artifacts").glob("*.npz")}
    for told, (_, command, _) in zip(fields, data["rows"], strict=True):
        assert command.startswith("nox -s ")
        assert {"commit", "device", "versions", "date", "row digest"} <= told.keys()


@pytest.mark.slow
def test_every_mean_knows_its_rows(everything: tuple[contents.Contents, str]) -> None:
    """Breaks if a number of the verdicts has no provenance, or that of other rows."""
    found, _ = everything
    for one in found.judged:
        assert len(one.rows) == one.verdict.count
        if one.verdict.mean is not None:
            assert sum(row.value for row in one.rows) / len(one.rows) == pytest.approx(one.verdict.mean, rel=1e-12)


@pytest.mark.slow
def test_what_was_never_run_has_a_command(everything: tuple[contents.Contents, str]) -> None:
    """Breaks if a number that nobody measured is not in the queue, or stands there twice."""
    found, written = everything
    queue = waiting(found)
    assert len({one.command for one in queue}) == len(queue)
    wanted = [number for one in queue for number in one.numbers if one.recipe != "bench"]
    assert len(wanted) == sum(one.verdict.mean is None for one in found.judged)
    copied = {attributes["data-copy"] for _, attributes in elements(written) if "data-copy" in attributes}
    assert copied == {one.command for one in queue}


@pytest.mark.slow
def test_a_page_of_everything_is_small(everything: tuple[contents.Contents, str]) -> None:
    """Breaks if the page outgrows what a mail or a browser takes."""
    assert len(everything[1].encode()) < assembling.LARGEST


@pytest.mark.parametrize(
    ("text", "value"),
    [("1.2594 ± 0.0551", 1.2594), ("10,000", 10_000), ("162 ms", 0.162), ("2.5 h, cpu-avx2", 9000),
     ("4.35x (missed)", 4.35),
     ("-0.108", -0.108), ("3e-4", 3e-4), ("cpu", None), ("-", None), ("2 layers", 2)],
)  # fmt: skip
def test_a_cell_sorts_by_its_number(text: str, value: float | None) -> None:
    """Breaks if milliseconds sort above hours, or 10,000 below 9."""
    assert tabular.value_of(text) == (pytest.approx(value) if value is not None else None)


def test_a_page_of_one_run(toys: Path, make_run: Any) -> None:
    """Breaks if the page of a run shows rows or pictures of another one, or is of a folder that is none."""
    folder = make_run()
    found = report.of_run(folder, toys)
    assert {row.config_digest for row in found.rows} == {"c" * 64}
    assert {row.seed for row in found.rows} == {1}
    data = data_in(assembling.page_of(found))
    assert {one["title"] for one in data["figures"]} >= {"Hierarchical sampling", "Training curves"}
    assert len(data["tables"][-1]["lines"]) == len(found.rows)
    other = report.of_run(folder, toys.parent / "nothing")
    assert not other.rows
    with pytest.raises(UserError, match=r"is not the folder of a run: it has no config\.json"):
        report.of_run(folder.parent, toys)


def test_commands_of_a_page_name_its_results(toys: Path, make_run: Any) -> None:
    """Breaks if what a page offers to copy measures into the repository's rows, where those of another folder stand."""
    for found in (report.all_results(toys), report.of_run(make_run(), toys)):
        data = data_in(assembling.page_of(found))
        commands = [command for _, command, _ in data["rows"]]
        commands += [one["command"] for part in ("verdicts", "figures") for one in data[part]]
        recipes = {command for command in commands if command.startswith("nox -s reproduce_")}
        assert recipes
        assert {command for command in recipes if not command.endswith(f" --results {toys}")} == set()
        queue = {one.command for one in waiting(found) if one.recipe != "bench"}
        assert {command for command in queue if not command.endswith(f" --results {toys}")} == set()


def test_the_command(toys: Path, make_run: Any, tmp_path: Path, capsys: Any) -> None:
    """Breaks if the command writes elsewhere than it says, or bad input ends in a traceback."""
    run = make_run()
    assert main(["--results", str(toys), "--run", str(run)]) == 0
    assert str(run / "report.html") in capsys.readouterr().out
    assert (run / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert main(["--results", str(tmp_path / "nowhere")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main(["--results", str(toys), "--out", str(tmp_path)]) == 2
    assert "is a folder; give the name of an HTML file" in capsys.readouterr().err
