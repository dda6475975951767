"""The command of each figure: what is drawn of a run's folder, and what is refused with a sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from figures import (
    energy_trace,
    hierarchical_reconstruction,
    hierarchical_sampling,
    langevin_transition,
    nearest_images,
    samples,
    score_histograms,
    training_curves,
)
from figures.common import main
from reproduce.results import read_artifact, write_artifact
from tests.figures.conftest import NAMES

MakeRun = Callable[..., Path]
SCRIPTS = (
    samples,
    energy_trace,
    hierarchical_sampling,
    hierarchical_reconstruction,
    langevin_transition,
    score_histograms,
)


def command(script: ModuleType, *argv: str) -> int:
    return main(script.DRAWING, script.draw, argv)


@pytest.mark.parametrize(
    ("script", "names"),
    [
        (samples, ["samples", "samples_sheet"]),
        (energy_trace, ["langevin"]),
        (hierarchical_sampling, ["layers", "layers_sheet"]),
        (hierarchical_reconstruction, ["reconstruction"]),
        (langevin_transition, ["transition_short", "transition_long"]),
        (score_histograms, ["ood_svhn"]),
        (nearest_images, ["nearest"]),
    ],
)
def test_a_run_is_drawn_into_its_folder(make_run: MakeRun, script: ModuleType, names: list[str]) -> None:
    """Would break if a figure needed a stored artifact, or went elsewhere than beside the run's own pictures."""
    folder = make_run()
    assert command(script, "--run", str(folder)) == 0
    assert {path.stem for path in folder.glob("*.png")} == set(names)
    assert {path.stem for path in folder.glob("*.pdf")} == set(names)


def test_a_system_of_the_table(make_run: MakeRun, capsys: Any) -> None:
    """Would break if a system's run were no run, its curves were not drawn, or it were taken for a hierarchy."""
    system = {"protocol": "table/1", "dataset": "cifar10", "learning": "ddpm", "model": {"channels": [8]}}
    folder = make_run(**system | {"dataset": "photos"})
    assert command(training_curves, "--run", str(folder)) == 0
    assert {path.name for path in folder.glob("*.p*")} == {"training.png", "training.pdf"}
    assert command(samples, "--run", str(folder)) == 2
    assert "is a run of the model 'system'" in capsys.readouterr().err
    (folder / "training.npz").unlink()
    assert command(training_curves, "--run", str(folder)) == 2
    made = "nox -s reproduce_table -- --systems ddpm --preset cpu --dataset photos --seeds 1"
    assert f"training.npz does not exist; `{made}` makes it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("curves", "said"),
    [
        ({"loss": np.ones((3, 4))}, "loss: floating point (2, records), steps above values"),
        ({"loss": np.ones(4)}, "loss: floating point (2, records)"),
        ({"loss": np.ones((2, 4), np.int64)}, "loss: floating point (2, records)"),
        ({}, "holds no curve; make it again with `nox -s reproduce_table"),
    ],
)
def test_what_is_no_curve(make_run: MakeRun, capsys: Any, curves: dict[str, np.ndarray], said: str) -> None:
    """Would break if an array of another shape or type, or nothing, were drawn as a curve."""
    folder = make_run(protocol="table/1", dataset="cifar10", learning="ddpm", model={"channels": [8]})
    _, made = read_artifact(folder / "training.npz", (), [])
    write_artifact(folder / "training.npz", curves, made)
    assert command(training_curves, "--run", str(folder)) == 2
    assert said in capsys.readouterr().err


def test_a_set_of_samples_is_of_its_run(make_run: MakeRun, tmp_path: Path, capsys: Any) -> None:
    """Would break if two-stage samples, in a folder of their own, were refused, or drawn of another run's weights."""
    config = {"learning": "two-stage", "model": {"num_latent_scales": 1, "num_groups_per_scale": 4}}
    folder = make_run({"config_digest": "e" * 64, "seed": 2, "run_digest": "c" * 64, "run_seed": 1}, **config)
    inner = folder / "cpu-seed2"
    inner.mkdir()
    (folder / "layers.npz").rename(inner / "layers.npz")
    assert command(hierarchical_sampling, "--run", str(folder)) == 2
    assert f"its sets of samples have one, give one of: {inner}" in capsys.readouterr().err
    assert command(hierarchical_sampling, "--run", str(inner), "--out", str(tmp_path / "out")) == 0
    assert (tmp_path / "out" / "layers.pdf").exists()
    arrays, made = read_artifact(inner / "layers.npz", (), [])
    write_artifact(inner / "layers.npz", arrays, made | {"run_digest": "f" * 64})
    assert command(hierarchical_sampling, "--run", str(inner)) == 2
    assert "is of configuration ffffffffffff, seed 1, and the run is of cccccccccccc, seed 1" in capsys.readouterr().err


@pytest.mark.parametrize("changed", [{"config_digest": "e" * 64}, {"seed": 2}])
@pytest.mark.parametrize("script", SCRIPTS)
def test_the_artifact_of_another_run(
    make_run: MakeRun, capsys: Any, script: ModuleType, changed: dict[str, Any]
) -> None:
    """Would break if a file that was copied from another run, or is older than the run, were drawn as its own."""
    folder = make_run(changed)
    assert command(script, "--run", str(folder)) == 2
    assert "and the run is of cccccccccccc, seed 1; make it again with `" in capsys.readouterr().err
    assert not list(folder.glob("*.png"))


@pytest.mark.parametrize(
    ("config", "model"),
    [
        ({"learning": "joint-mle", "model": {"latent_dims": [4, 4], "inference_network": False}}, "two-layer"),
        ({"learning": "backbone", "model": {"num_latent_scales": 1, "num_groups_per_scale": 4}}, "backbone"),
        ({"learning": "gaussian"}, "gaussian"),
        ({"protocol": "anomaly/1"}, "anomaly"),
    ],
)
def test_another_model(make_run: MakeRun, capsys: Any, config: dict[str, Any], model: str) -> None:
    """Would break if a figure of energies upon a hierarchy were asked of a model without them, and got a trace back."""
    folder = make_run(**config)
    assert command(langevin_transition, "--run", str(folder)) == 2
    said = f"is a run of the model {model!r}, and the Langevin transition is drawn of: ladder, two-stage; give such"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("script", [hierarchical_sampling, hierarchical_reconstruction])
def test_too_few_layers(make_run: MakeRun, capsys: Any, script: ModuleType) -> None:
    """Would break if a model of a single layer were drawn as a hierarchy."""
    folder = make_run(learning="two-stage", model={"num_latent_scales": 1, "num_groups_per_scale": 1})
    assert command(script, "--run", str(folder)) == 2
    assert "has 1 layer, and hierarchical" in capsys.readouterr().err


def test_an_artifact_that_is_not_there_names_its_command(make_run: MakeRun, capsys: Any) -> None:
    """Would break if a run without the artifact got a trace back, or a command of another recipe."""
    folder = make_run(protocol="fashion-mnist-ladder/1", dataset="digits28")
    for script, said in (
        (
            hierarchical_sampling,
            "nox -s reproduce_fashion_mnist -- --model ladder --preset cpu --dataset digits28 --seeds 1",
        ),
        (score_histograms, "python -m reproduce.ood --run RUN --outside DATASET"),
    ):
        for path in folder.glob(f"{script.DRAWING.kind}.npz"):
            path.unlink()
        assert command(script, "--run", str(folder)) == 2
        assert f"does not exist; `{said}` makes it" in capsys.readouterr().err


def test_what_is_no_run(make_run: MakeRun, tmp_path: Path, capsys: Any) -> None:
    """Would break if a folder without a configuration, or with a damaged one, or a file as --out left a trace back."""
    assert command(samples, "--run", str(tmp_path)) == 2
    assert "is not the folder of a run: it has no config.json" in capsys.readouterr().err
    folder = make_run()
    assert command(samples, "--run", str(folder), "--out", str(folder / "config.json")) == 2
    assert "is a file; give a folder" in capsys.readouterr().err
    for text in ("{", "[]", json.dumps({"config": {"model": {}}, "digest": "c", "seed": 1})):
        (folder / "config.json").write_text(text)
        assert command(samples, "--run", str(folder)) == 2
        assert "is not a run's configuration" in capsys.readouterr().err


def test_the_command_without_a_run_draws_what_is_stored(results: Path, tmp_path: Path, capsys: Any) -> None:
    """Would break if it drew nothing, or passed a missing artifact over in silence."""
    argv = ("--results", str(results), "--out", str(tmp_path / "out"))
    assert command(hierarchical_sampling, *argv) == 0
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".pdf", ".png"}
    (results / "artifacts" / f"{NAMES['layers']}.npz").unlink()
    assert command(hierarchical_sampling, *argv) == 0
    assert "artifacts holds no *_layers.npz; a recipe's full preset leaves one there" in capsys.readouterr().out


def _last(array: np.ndarray) -> np.ndarray:
    return array[:-1]


@pytest.mark.parametrize(
    ("script", "name", "change", "said"),
    [
        (hierarchical_sampling, "names", _last, "3 panels in 'panels' and the names"),
        (hierarchical_sampling, "names", lambda names: names[[0, 0, 1]], "give each panel its own"),
        (hierarchical_sampling, "twin", _last, "2 panels in 'twin'"),
        (hierarchical_sampling, "panels", lambda panels: panels[0], "and not panels: uint8"),
        (hierarchical_reconstruction, "images", lambda images: images[:, :3], "not (rows, layers + 2"),
        (hierarchical_reconstruction, "twin", _last, "holds twin of shape"),
        (langevin_transition, "saturated", _last, "the level 'saturated pixels' needs"),
        (langevin_transition, "diversity", lambda values: values * np.inf, "the level 'diversity' needs"),
        (langevin_transition, "diversity_data", lambda value: value.astype(np.int64), "and not diversity_data"),
        (langevin_transition, "short_images", lambda images: images[0], "and not short_images"),
        (langevin_transition, "long_energy", lambda energy: energy * np.nan, "long chains: the energy trace is not"),
        (nearest_images, "samples", lambda images: images[0], "and not samples: uint8 (panels, rows, N"),
        (score_histograms, "names", _last, "not as many numbers of each"),
        (score_histograms, "auroc", _last, "not as many numbers of each"),
        (score_histograms, "inside", lambda scores: scores * np.inf, "'L>0' are empty or not finite"),
        (score_histograms, "outside", lambda scores: scores.astype(np.int32), "and not outside: floating point"),
    ],
)
def test_arrays_that_are_none_of_the_figure(
    make_run: MakeRun, capsys: Any, script: ModuleType, name: str, change: Callable[[Any], Any], said: str
) -> None:
    """Would break if an array of another shape, length or type were drawn, or left a trace back."""
    folder = make_run()
    (path,) = folder.glob(f"{script.DRAWING.kind}.npz")
    arrays, made = read_artifact(path, (), [])
    with np.errstate(invalid="ignore"):
        write_artifact(path, {**arrays, name: change(arrays[name])}, made)
    assert command(script, "--run", str(folder)) == 2
    assert said in capsys.readouterr().err
