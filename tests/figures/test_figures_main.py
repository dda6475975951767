"""python -m figures: draws what is stored, says what is missing, refuses what is damaged."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import figures.__main__
from figures import registry, system_samples
from figures.__main__ import main
from figures.page_tables import FIGURES_HEADER, kinds_of_figures
from figures.pages import PAGES
from figures.registry import FIGURES, Figure, draw_stored
from figures.tables import TABLES
from jlebm.errors import UserError
from reproduce.results import Measurement, append, read_artifact, write_artifact
from reproduce.results.rendering import markdown
from tests.figures.conftest import DDPM, NAMES, RUN

SAMPLES, LANGEVIN = NAMES["samples"], NAMES["langevin"]
ROOT = Path(__file__).parents[2]


def run(results: Path, out: Path) -> int:
    return main(["--results", str(results), "--out", str(out)])


@pytest.mark.slow
def test_everything_is_drawn(results_with_twin: Path, tmp_path: Path, capsys: Any) -> None:
    """Would break if a figure or table were left out though its artifact is there."""
    assert run(results_with_twin, tmp_path / "out") == 0
    drawn = {path.name for path in (tmp_path / "out").iterdir()}
    several = {"samples": ("", "_sheet", "_front"), "layers": ("", "_sheet"), "transition": ("_short", "_long")}
    stems = {f"{name}{part}" for kind, name in NAMES.items() for part in several.get(kind, ("",))}
    stems.add("cifar10_cpu_systems")
    figures = {f"{stem}{suffix}" for stem in stems for suffix in (".pdf", ".png")}
    tables = {f"{name}{suffix}" for name in TABLES for suffix in (".md", ".tex", ".csv")}
    assert drawn == figures | tables | {f"{name}.md" for names in PAGES.values() for name in names}
    assert "not drawn" not in capsys.readouterr().out


def test_the_pictures_of_the_pages_are_the_drawn_ones(results: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Would break if a page's picture were another than the figure of its name, or more were copied than are shown."""
    for name in set(NAMES.values()) - {SAMPLES}:
        (results / "artifacts" / f"{name}.npz").unlink()
    root = tmp_path / "checkout"
    (root / "docs").mkdir(parents=True)
    (root / "README.md").write_text(f"![Samples]({Path('docs', 'pictures', SAMPLES)}.png)")
    (root / "docs" / "page.md").write_text(f"![S](pictures/{SAMPLES}_sheet.png) and ![N](pictures/other.png)")
    monkeypatch.setattr(figures.__main__, "ROOT", root)
    assert main(["--results", str(results), "--out", str(tmp_path / "out"), "--pictures"]) == 0
    copies = sorted((root / "docs" / "pictures").iterdir())
    assert [copy.name for copy in copies] == [f"{SAMPLES}.png", f"{SAMPLES}_sheet.png"]
    for copy in copies:
        assert copy.read_bytes() == (tmp_path / "out" / copy.name).read_bytes()


def test_the_sheet_of_all_systems(
    results: Path, row: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Would break if a system's images or score were another's, or one without images hid the others."""
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(system_samples, "image_rows", lambda rows, columns: drawn.update(rows))
    monkeypatch.setattr(system_samples, "save", lambda figure, stem: [stem])
    priors = enumerate(("gaussian_prior", "ebm_prior"))
    images = {name: np.full((40, 3, 8, 8), level, np.uint8) for level, name in priors}
    two_stage = {**RUN, "protocol": "cifar10-two-stage/1", "learning": "two-stage"}
    for dataset in ("cifar10", "celeba64"):  # a dataset without any other system has no sheet
        path = results / "artifacts" / f"{dataset}_two_stage_cpu_samples.npz"
        write_artifact(path, images, two_stage | {"dataset": dataset})
    noise = {"samples": np.full((40, 3, 8, 8), 7, np.uint8)}
    write_artifact(results / "artifacts" / "cifar10_ddpm_cpu_samples.npz", noise, DDPM)
    scores = [row(**DDPM | {"source": "samples", "seed": seed, "value": value}) for seed, value in ((1, 1.0), (2, 2.5))]
    append(results / "measured" / "cifar10.jsonl", scores)
    assert system_samples.draw_sheets(results, tmp_path) == [tmp_path / "cifar10_cpu_systems"]
    levels = {name: (len(some), some.min(), some.max()) for name, some in drawn.items()}
    assert list(levels.items()) == [
        ("NVAE, Gaussian prior\nnot measured", (12, 0, 0)),
        ("ours, two-stage\nnot measured", (12, 1, 1)),
        ("DDPM\nfid768 1.75", (12, 7, 7)),
    ]
    assert system_samples.main(["--results", str(results), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'cifar10_cpu_systems'}\n"
    write_artifact(results / "artifacts" / "cifar10_own_cpu_samples.npz", noise, DDPM | {"learning": "own"})
    with pytest.raises(UserError, match="is of 'own', which is no system of the table"):
        system_samples.draw_sheets(results, tmp_path)


def test_every_stored_artifact_is_drawn(tmp_path: Path, monkeypatch: Any) -> None:
    """Would break if an array file of the repository were of no figure."""
    claimed: dict[str, list[str]] = {}

    def note(figure: Figure) -> Figure:
        def draw(artifact: Any, results: Path, out: Path) -> list[Path]:
            claimed.setdefault(artifact.name, []).append(figure.command)
            return []

        def sheets(results: Path, out: Path) -> list[Path]:
            return [path for one in figure.drawing.stored(results) for path in draw(one, results, out)]

        return figure._replace(**({"draw": draw} if figure.draw else {"sheets": sheets}))

    monkeypatch.setattr(registry, "FIGURES", [note(figure) for figure in FIGURES])
    _, missing = draw_stored(ROOT / "results", tmp_path)
    assert not missing
    assert claimed.keys() == {path.stem for path in (ROOT / "results/artifacts").glob("*.npz")}


@pytest.mark.slow
def test_an_artifact_of_no_figure_is_named(results: Path, tmp_path: Path, capsys: Any) -> None:
    """Would break if an array file that nothing draws were passed over in silence."""
    for path in (results / "artifacts").iterdir():
        path.unlink()
    write_artifact(results / "artifacts" / "cifar10_joint_mle_cpu_other.npz", {"values": np.zeros(3)}, RUN)
    assert run(results, tmp_path / "out") == 0
    assert "cifar10_joint_mle_cpu_other.npz belongs to no kind of figure" in capsys.readouterr().out


def test_every_script_that_draws_is_in_the_registry() -> None:
    """Would break if a script beside the others were left out of `python -m figures`."""
    scripts = {path.stem for path in (ROOT / "figures").glob("*.py") if "\nDRAWING = " in path.read_text()}
    assert {f"figures.{name}" for name in scripts} == {figure.command for figure in FIGURES}


def test_the_page_of_figures_lists_the_registry() -> None:
    """Would break if docs/figures named other figures than there are; `python -m figures.pages` writes it anew."""
    page = (ROOT / "docs/figures.md").read_text()
    assert markdown(FIGURES_HEADER, kinds_of_figures()) in page


@pytest.mark.slow
def test_a_kind_without_an_artifact_says_what_leaves_one(results: Path, tmp_path: Path, capsys: Any) -> None:
    """Would break if a figure that was never made were passed over in silence, or stopped the others."""
    (results / "artifacts" / f"{SAMPLES}.npz").unlink()
    (results / "artifacts" / f"{NAMES['ood']}.npz").unlink()
    assert run(results, tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert "not drawn: samples: " in out
    assert "holds no *_samples.npz; a recipe's full preset leaves one there" in out
    assert "holds no *_ood_*.npz; `python -m reproduce.ood --run RUN --outside DATASET` leaves one there" in out
    assert (tmp_path / "out" / f"{LANGEVIN}.pdf").exists()


def test_damage_gets_a_sentence(results: Path, tmp_path: Path, capsys: Any) -> None:
    """Would break if a cut artifact were drawn, or left a trace back."""
    path = results / "artifacts" / f"{SAMPLES}.npz"
    path.write_bytes(path.read_bytes()[:1000])
    assert run(results, tmp_path / "out") == 2
    assert f"{SAMPLES}.npz is not a whole artifact" in capsys.readouterr().err


def test_another_run_gets_a_sentence(results: Path, row: Any, tmp_path: Path, capsys: Any) -> None:
    """Would break if a figure were drawn from another configuration than the stored numbers."""
    stored: Measurement = row(preset="cpu", config_digest="e" * 64)
    append(results / "measured" / "cifar10.jsonl", [stored])
    assert run(results, tmp_path / "out") == 2
    assert "is of configuration cccccccccccc" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "array", "value"),
    [
        (SAMPLES, "data", np.zeros((2, 32, 32), np.uint8)),
        (SAMPLES, "data", np.zeros((2, 3, 32, 32), np.float32)),
        (SAMPLES, "data", np.zeros((2, 2, 32, 32), np.uint8)),
        (SAMPLES, "data", np.zeros((0, 3, 32, 32), np.uint8)),
        (LANGEVIN, "energy", np.zeros((2, 3))),
        (LANGEVIN, "energy", np.full((2, 3, 1), np.nan)),
        (LANGEVIN, "energy", np.zeros((2, 3, 1), np.int64)),
    ],
)
@pytest.mark.slow
def test_arrays_of_another_shape(
    results: Path, tmp_path: Path, capsys: Any, name: str, array: str, value: np.ndarray
) -> None:
    """Would break if an array that is no image or trace were drawn as one."""
    path = results / "artifacts" / f"{name}.npz"
    arrays, provenance = read_artifact(path, (), [])
    write_artifact(path, {**arrays, array: value}, provenance)
    assert run(results, tmp_path / "out") == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_the_measured_table_is_written(results: Path, row: Any, tmp_path: Path) -> None:
    """Would break if the file were empty, or left out a number without expectation or called it NOT RUN."""
    append(results / "measured" / "cifar10.jsonl", [row()])
    shutil.rmtree(results / "artifacts")
    assert run(results, tmp_path / "out") == 0
    what = "| cifar10, tiny | two-layer joint-mle | fid768 | ebm-prior |"
    line = f"{what} 1.2500, 1 seed, 2000 images | - | no expectation yet |"
    text = (tmp_path / "out" / "measured.md").read_text()
    assert line in text.splitlines()
    assert "NOT RUN" not in text


@pytest.mark.slow
def test_figures_never_load_models() -> None:
    """Would break if drawing needed the models: figures are drawn from stored artifacts alone."""
    code = (
        "import sys, figures.__main__\n"
        "known = ('langevin', 'learning', 'backbones', 'energies', 'training', 'sampling', 'evaluation', 'model')\n"
        "print([name for name in known if f'jlebm.{name}' in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"
