"""The ladder's recipe from its command line: model and twin the whole way at a miniature size, and bad input."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import jlebm
from jlebm import data
from jlebm.backbones.ladder import LadderConfig
from jlebm.data.catalogue import CATALOGUE
from jlebm.errors import exit_on_user_error
from jlebm.langevin import Chain
from jlebm.progress import SILENT
from reproduce import results
from reproduce.measuring.data_root import DataRoot, unseen
from reproduce.pipelines.recipe import run_recipe
from reproduce.presets.extents import Extent, Length
from reproduce.presets.ladder_sizes import ADAM, LadderPreset, Updates, ladder, twin_of
from reproduce.presets.recipes import Recipe, recipes
from reproduce.results import read_artifact
from reproduce.terminal.console import ConsoleReporter

SMALL = dataclasses.replace(
    ladder(
        "digits28",
        "cpu",
        LadderConfig((1, 28, 28), (2, 3, 4), channels=(6, 5, 4), conditional_hidden=(7,), features=9),
        Updates(20, 20, warmup=8),
        dataclasses.replace(ADAM, ema_decay=0.9),
        energy_units=6,
    ),
    prior_chain=Chain.from_two_stage_paper(4, 0.2),
)
EXTENT = Extent(5, 2, Length(6, 2, 3, 5), Length(12, 3, 4, 4))
RECIPE = Recipe("digits28", {}, "photos", ladder={"cpu": LadderPreset(SMALL, images=60, extent=EXTENT)})
LAYERS = ("z3", "z2", "z1")
KINDS = ("layers", "reconstruction", "transition", "samples", "langevin")
RECIPES = [recipe for recipe in recipes().values() if recipe.ladder]


def places(folder: Path) -> list[str]:
    """Make a results folder of its own, and return arguments that keep everything in it."""
    (folder / "results/measured").mkdir(parents=True)
    for name in ("paper.toml", "expected.toml"):
        (folder / "results" / name).write_text("")
    (folder / "root").mkdir()
    return [
        "--runs", str(folder / "runs"), "--results", str(folder / "results"), "--preset", "cpu",
        "--data-root", str(folder / "root"), "--no-download", "--device", "cpu",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of a run of the whole recipe, and the arguments of that run."""
    folder = tmp_path_factory.mktemp("ladder")
    arguments = places(folder)
    assert run_recipe(RECIPE, arguments, "") == 0
    return folder, arguments


def rows(folder: Path) -> list[results.Measurement]:
    return results.read_all(folder / "results/measured")


def run_of(folder: Path, learning: str) -> Path:
    (run,) = (folder / "runs").glob(f"digits28-{learning}-*")
    return run


@pytest.mark.slow
def test_both_have_their_rows(trained: tuple[Path, list[str]]) -> None:
    """A twin that is not measured, a layer without its numbers, or a row of a prior that a model has not, breaks it."""
    folder, _ = trained
    measured = rows(folder)
    for learning, priors in (("variational", ("gaussian-prior", "ebm-prior")), ("gaussian", ("gaussian-prior",))):
        ours = [row for row in measured if row.learning == learning]
        assert sorted((row.metric, row.of.name) for row in ours) == sorted(
            [
                ("reconstruction_mse", "posterior"),
                ("latent_accuracy", "posterior"),
                *(("latent_auc", f"{prior}{layer}") for prior in priors for layer in ("", *(f"/{z}" for z in LAYERS))),
                *((metric, f"posterior/{z}") for metric in ("kl", "latent_accuracy") for z in LAYERS),
                *(("pixel_change", f"{priors[-1]}/{z}") for z in LAYERS),
            ]
        )
        for row in ours:
            assert (row.steps, row.complete, row.weights, row.intact) == (20, True, "ema", True)
            assert ("epsilon" in row.chain) == row.of.name.startswith("ebm-prior")
            assert row.reference.startswith("digits28/test") == (row.metric in ("kl", "latent_accuracy"))
    assert len({row.config_digest for row in measured}) == 2


@pytest.mark.slow
def test_loaded_models_draw_the_recipes_samples(trained: tuple[Path, list[str]]) -> None:
    """Breaks if model or twin come back with other weights, or the model with another chain."""
    for learning, priors in (("variational", ("gaussian-prior", "ebm-prior")), ("gaussian", ("gaussian-prior",))):
        run = run_of(trained[0], learning)
        model = jlebm.load(run)
        for prior in priors:
            np.testing.assert_array_equal(model.sample(range(60), prior), np.load(run / f"samples/{prior}.npy"))


@pytest.mark.slow
def test_what_the_repository_keeps(trained: tuple[Path, list[str]]) -> None:
    """Every artifact is named after the pair, is of the model's configuration, and names its twin's."""
    folder, _ = trained
    for kind in KINDS:
        path = folder / f"results/artifacts/digits28_ladder_cpu_{kind}.npz"
        arrays, run = read_artifact(path, (), rows(folder))
        assert (run["learning"], run["config_digest"]) == ("variational", SMALL.digest())
        assert run["twin_digest"] == twin_of(SMALL).digest()
        with np.load(run_of(folder, "variational") / f"{kind}.npz") as own:
            assert set(own.files) - {"provenance"} == set(arrays)
    samples, _ = read_artifact(folder / "results/artifacts/digits28_ladder_cpu_samples.npz", (), rows(folder))
    assert set(samples) == {"gaussian_prior", "ebm_prior", "posterior", "data", "twin"}
    np.testing.assert_array_equal(
        samples["twin"], np.load(run_of(folder, "gaussian") / "samples/gaussian-prior.npy")[:32]
    )


@pytest.mark.slow
def test_the_same_command_again_changes_nothing(
    trained: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows or pictures that are made twice break it; of a picture that is lost, that one alone is made again."""
    folder, arguments = trained
    run, measured = run_of(folder, "variational"), rows(folder)
    before = {path: path.stat().st_mtime_ns for path in run.glob("*.npz")}
    assert run_recipe(RECIPE, arguments, "") == 0
    assert "its rows are kept" in capsys.readouterr().err
    assert rows(folder) == measured
    assert {path: path.stat().st_mtime_ns for path in run.glob("*.npz")} == before

    kept = (run / "layers.npz").read_bytes()
    (run / "layers.npz").unlink()
    assert run_recipe(RECIPE, arguments, "") == 0
    assert [line for line in capsys.readouterr().err.splitlines() if "drawing" in line] == ["drawing layers"]
    assert (run / "layers.npz").read_bytes() == kept
    assert rows(folder) == measured


def test_model_and_twin_differ_in_their_prior_alone() -> None:
    """A twin of other sizes, another length or another rate breaks it."""
    ours, twins = SMALL.to_json(), twin_of(SMALL).to_json()
    differ = {name for name in ours.keys() | twins.keys() if ours.get(name) != twins.get(name)}
    assert differ == {"learning", "energy_hidden", "conditional_gradient"}
    assert (ours["conditional_gradient"], "conditional_gradient" in twins) == ("posterior", False)


@exit_on_user_error
def command(recipe: Recipe, arguments: list[str]) -> int:
    """Run a recipe as its main function does."""
    return run_recipe(recipe, arguments, "")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--learning", "variational"], "--learning is that of the two-layer model; leave it out with --model ladder"),
        (["--set", "model.precision=tf32"], "an arithmetic that a CPU does not have"),
        (["--temperature", "0.8"], "the options of the two-stage model need --model two-stage"),
        (["--set", "model.latent_dims=[8]"], "a ladder needs at least two layers"),
        (["--set", "model.latent_dims=[8,16]"], "energy_hidden names 3 layers, model.latent_dims 2"),
        (["--set", "prior_chain.space=latents"], "leave prior_chain.space at 'noise'"),
        (["--set", "learning=gaussian"], "--set does not change 'learning'"),
        (["--model", "two-layer"], "the recipe digits28 has no two-layer model"),
        (["--dataset", "photos"], "the dataset's are (3, 32, 32)"),
    ],
)
def test_bad_input_is_a_sentence(
    tmp_path: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every mistake is named, with exit code 2, before anything is trained."""
    assert command(RECIPE, [*places(tmp_path), *arguments]) == 2
    assert sentence in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list(tmp_path.glob("runs/*/checkpoint.pt"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_presets_are_whole(recipe: Recipe) -> None:
    """A preset under another name, of another image size, or whose warm-up outlasts its training breaks it."""
    height, width, channels = CATALOGUE[recipe.name].shape
    assert CATALOGUE[recipe.fallback].shape == (height, width, channels)
    assert list(recipe.ladder) == ["tiny", "cpu", *(["long"] if channels == 1 else []), "budget"]
    for name, preset in recipe.ladder.items():
        one = preset.experiment
        assert (one.preset, one.dataset, one.protocol) == (name, recipe.name, f"{recipe.name}-ladder/1")
        assert (one.learning, one.prior_chain.space) == ("variational", "noise")
        assert one.model.image_shape == (channels, height, width)
        assert one.kl_warmup < one.training.steps / 2
        assert bool(preset.judged) == (channels == 3 and name != "tiny"), "no Inception for grey images"
        assert twin_of(one).digest() != one.digest()


def test_held_out_images(capsys: pytest.CaptureFixture[str]) -> None:
    """A test split is taken where there is one; without, the very training images, which is said."""
    digits, photos = data.load("digits28"), data.load("photos")
    assert unseen(DataRoot(None, False, SILENT), digits).split == "test"
    assert unseen(DataRoot(None, False, ConsoleReporter()), photos) is photos
    assert "photos has no test split: training images are used as held-out images" in capsys.readouterr().err
