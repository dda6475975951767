"""The two-stage recipe from its command line: the whole way on a small hierarchy, variations, a given backbone."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import jlebm
from figures import hierarchical_sampling
from jlebm.backbones.nvae import NVAEConfig, digest_of, load_nvae
from jlebm.backbones.topdown import TopDownConfig
from jlebm.energies import ConvEnergy
from jlebm.errors import UserError, exit_on_user_error
from jlebm.experiment import Experiment
from jlebm.langevin import Chain
from jlebm.learning.backbone import AdamaxConfig, ELBOConfig
from jlebm.learning.trainable import TrainingConfig
from jlebm.learning.two_stage import EnergyOptimizer
from jlebm.weights import save_model
from reproduce import cifar10, results
from reproduce.pipelines.arguments import Arguments, Variation
from reproduce.pipelines.plans import affected, planned
from reproduce.pipelines.recipe import run_recipe
from reproduce.presets.extents import SOURCES, Extent, Length
from reproduce.presets.recipes import Recipe, recipes
from reproduce.presets.staged import StageOne, StageTwo, TwoStagePreset, top_down, two_stage
from tests.figures.report_pages import data_in
from tests.public_numbers import nvae

PLAN = two_stage(
    "photos-two-stage/1",
    "photos",
    "tiny",
    StageOne(
        NVAEConfig(32, 4, 4, 1, 2, 2, num_preprocess_cells=1, num_postprocess_cells=1, num_mixture_dec=1),
        ELBOConfig(warmup_steps=2, spectral=0.1),
        AdamaxConfig(ema_decay=0.5),
        TrainingConfig(4, 8),
    ),
    StageTwo(ConvEnergy(2, 3), EnergyOptimizer(1e-3), TrainingConfig(3, 8), Chain.from_two_stage_paper(2, 0.04)),
    test=Chain.from_two_stage_paper(3, 0.04),
)
CPU = torch.device("cpu")
FILES = {"backbone": "backbone.safetensors", "two-stage": "weights.safetensors"}
EXTENT = Extent(4, 2, Length(4, 2, 3, 5), Length(6, 2, 3, 4))
PRESET = TwoStagePreset(PLAN, images=60, reference_images=100, kept=False, extent=EXTENT)
RECIPE = Recipe("photos", {}, "photos", two_stage={"tiny": PRESET})
RECIPES = [recipe for recipe in recipes().values() if recipe.two_stage]


def places(folder: Path) -> list[str]:
    """Make a results folder of its own, and return arguments that keep everything in it."""
    (folder / "results/measured").mkdir(parents=True)
    for name in ("paper.toml", "expected.toml"):
        (folder / "results" / name).write_text("")
    (folder / "root").mkdir()
    return [
        "--runs", str(folder / "runs"), "--results", str(folder / "results"),
        "--data-root", str(folder / "root"), "--no-download", "--device", "cpu",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of a run of the whole recipe, and the arguments of that run."""
    folder = tmp_path_factory.mktemp("two-stage")
    arguments = places(folder)
    assert run_recipe(RECIPE, arguments, "") == 0
    return folder, arguments


def rows(folder: Path, preset: str = "tiny") -> list[results.Measurement]:
    return [row for row in results.read_all(folder / "results/measured") if row.label == preset]


def of_stage(folder: Path, learning: str) -> Path:
    (run,) = (folder / "runs").glob(f"photos-{learning}-*")
    return run


def weights(folder: Path) -> dict[str, str]:
    """Return a digest of every checkpoint of both stages."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in ("checkpoint.pt", "*.safetensors")
        for path in (folder / "runs").glob(f"*/{name}")
    }


@pytest.mark.slow
def test_the_whole_way(trained: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    """Both stages are trained, both priors and each group have rows; the same command again changes nothing."""
    folder, arguments = trained
    measured = rows(folder)
    priors = ("gaussian-prior", "ebm-prior")
    assert sorted((row.metric, row.of.name) for row in measured) == sorted(
        [
            ("reconstruction_mse", "posterior"),
            *(("latent_auc", f"{prior}{layer}") for prior in priors for layer in ("", "/z2", "/z1")),
            *(("parameters", prior) for prior in priors),
        ]
    )
    counted = {row.of.name: row.value for row in measured if row.metric == "parameters"}
    upon, above = (load_file(of_stage(folder, stage) / name) for stage, name in FILES.items())
    energies = (each.numel() for name, each in above.items() if name.startswith("energy."))
    assert counted["ebm-prior"] - counted["gaussian-prior"] == sum(energies)
    assert 0 < counted["gaussian-prior"] <= sum(each.numel() for each in upon.values())  # with its buffers
    for row in measured:
        assert (row.learning, row.steps, row.images, row.weights) == ("two-stage", 3, 60, "raw")
        assert row.complete
        assert row.intact
        assert ("3 steps" in row.chain) == row.of.name.startswith("ebm-prior")
    upon = json.loads((of_stage(folder, "two-stage") / "config.json").read_text())["config"]["backbone"]
    assert upon.startswith(json.loads((of_stage(folder, "backbone") / "config.json").read_text())["digest"])
    shown = {path.name for path in (of_stage(folder, "two-stage") / "tiny-seed1").iterdir()}
    assert {"samples.png", "energy.png", "training.png", "diagnostics.json", "ebm-prior.npy"} <= shown
    assert (of_stage(folder, "backbone") / "backbone.safetensors").exists()
    page = data_in((of_stage(folder, "two-stage") / "report.html").read_text(encoding="utf-8"))
    assert len(page["tables"][-1]["lines"]) == len(measured), "of samples of the run's weights, with a digest of theirs"
    assert "Hierarchical reconstruction" in {one["title"] for one in page["figures"]}
    with np.load(of_stage(folder, "two-stage") / "layers.npz") as layers:
        assert layers["panels"].shape == layers["twin"].shape == (2, 4, 3, 32, 32)
        assert (layers["panels"] != layers["twin"]).any(), "the twin runs no chain"
    with np.load(of_stage(folder, "two-stage") / "reconstruction.npz") as shown:
        assert shown["images"].shape == (2, 4, 3, 32, 32)
        np.testing.assert_array_equal(shown["images"][:, 1], shown["twin"][:, 1], "k = 0 is of the backbone alone")
    with np.load(of_stage(folder, "two-stage") / "transition.npz") as seen:
        assert seen["long_energy"].shape == (7, 4, 2)
    (artifact,) = hierarchical_sampling.DRAWING.of_run(of_stage(folder, "two-stage"))
    assert "panels" in artifact.load(folder / "results"), "its provenance names this very run"

    before = weights(folder)
    assert run_recipe(RECIPE, arguments, "") == 0
    assert "its rows are kept" in capsys.readouterr().err
    assert rows(folder) == measured
    assert weights(folder) == before


@pytest.mark.slow
def test_the_weights_file_alone_gives_the_recipes_samples(trained: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Breaks if the file lacks the backbone or the chain, or if frozen weights come back with other bits."""
    run = of_stage(trained[0], "two-stage")
    moved = Path(shutil.copy(run / "weights.safetensors", tmp_path / "elsewhere.safetensors"))
    model = jlebm.load(moved)
    for prior in ("ebm-prior", "gaussian-prior"):
        np.testing.assert_array_equal(model.sample(range(60), prior), np.load(run / f"tiny-seed1/{prior}.npy"))


@pytest.mark.slow
def test_the_weights_keep_the_recipes_sampler_and_not_a_variations(tmp_path: Path) -> None:
    """Breaks if the first command, a variation, leaves its own chain or statistics in the file."""
    arguments = places(tmp_path)
    assert run_recipe(RECIPE, [*arguments, "--chain-steps", "1", "--batch-norm", "re-estimated"], "") == 0
    model = jlebm.load(of_stage(tmp_path, "two-stage"))
    assert model.sampler == PLAN.sampler
    assert run_recipe(RECIPE, arguments, "") == 0
    stored = np.load(of_stage(tmp_path, "two-stage") / "tiny-seed1/ebm-prior.npy")
    np.testing.assert_array_equal(model.sample(range(60)), stored)


@pytest.mark.slow
def test_re_estimated_statistics_are_in_the_weights(tmp_path: Path) -> None:
    """Breaks if a recipe whose own sampler re-estimates batch norms stores the network of before."""
    arguments = [*places(tmp_path), "--set", "sampler.batch_norm=re-estimated"]
    assert run_recipe(RECIPE, arguments, "") == 0
    run = of_stage(tmp_path, "two-stage")
    np.testing.assert_array_equal(jlebm.load(run).sample(range(60)), np.load(run / "custom-seed1/ebm-prior.npy"))


@pytest.mark.parametrize(
    ("option", "in_words"),
    [
        (("--chain-steps", "1"), ("1 steps, epsilon 0.02", "", "")),
        (("--drift", "released"), ("released drift", "", "")),
        (("--no-chain-noise",), ("temperature 0", "", "")),
        (("--chain-precision", "bf16"), ("networks in bf16", "", "")),
        (("--temperature", "0.8"), ("at temperature 0.8", "at temperature 0.8", "")),
        (("--batch-norm", "re-estimated"), ("batch norm re-estimated",) * 3),
        (("--decoding", "sample"), ("decoder's sample",) * 3),
    ],
)
@pytest.mark.slow
def test_a_variation_trains_nothing(
    trained: tuple[Path, list[str]], option: tuple[str, ...], in_words: tuple[str, str, str]
) -> None:
    """Its rows have a preset with the flag in its name and say it of the sources that it is of; no weight moves."""
    folder, arguments = trained
    plain, before = rows(folder), weights(folder)
    pictures = (of_stage(folder, "two-stage") / "tiny-seed1/samples.png").read_bytes()
    assert run_recipe(RECIPE, [*arguments, *option], "") == 0
    varied = rows(folder, " ".join(("tiny", *option)))
    assert {(row.metric, row.of.name) for row in varied} == {(row.metric, row.of.name) for row in plain}
    assert not {row.config_digest for row in varied} & {row.config_digest for row in plain}
    for source, words in zip(("ebm-prior", "gaussian-prior", "posterior"), in_words, strict=True):
        before_words, after = (next(row.chain for row in each if row.of.name == source) for each in (plain, varied))
        assert words in after
        assert (words == "") == (after == before_words)
    assert weights(folder) == before
    assert rows(folder) == plain
    assert (of_stage(folder, "two-stage") / "tiny-seed1/samples.png").read_bytes() == pictures


@pytest.mark.slow
def test_a_variation_keeps_arrays_of_its_own(trained: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Would break if the arrays of longer chains, or of other energies, took the place of the preset's own."""
    folder = tmp_path / "copy"
    shutil.copytree(trained[0], folder)
    arguments = [argument.replace(str(trained[0]), str(folder)) for argument in trained[1]]
    keeping = dataclasses.replace(RECIPE, two_stage={"tiny": dataclasses.replace(PRESET, kept=True)})
    artifacts = folder / "results/artifacts"
    assert run_recipe(keeping, arguments, "") == 0
    plain = {path: path.read_bytes() for path in artifacts.iterdir()}
    assert artifacts / "photos_two_stage_tiny_samples.npz" in plain
    for option in (("--chain-steps", "1"), ("--energies-seed", "2")):
        assert run_recipe(keeping, [*arguments, *option], "") == 0
        name = "_".join(option).strip("-").replace("-", "_")
        assert (artifacts / f"photos_two_stage_tiny_{name}_samples.npz").is_file()
    assert {path: path.read_bytes() for path in plain} == plain
    for path in artifacts.iterdir():
        results.read_artifact(path, (), results.read_all(folder / "results/measured"))


@pytest.mark.slow
def test_kept_weights_are_measured_and_nothing_is_trained(trained: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Would break if they were sampled otherwise than a training's, or passed for one; a file of others is refused."""
    source = of_stage(trained[0], "two-stage") / "weights.safetensors"
    arguments = [*places(tmp_path), "--kept-weights"]
    path = tmp_path / "results/artifacts/photos_two_stage_tiny_weights.safetensors"
    with pytest.raises(UserError, match=f"there is no {path}; leave --kept-weights out"):
        run_recipe(RECIPE, arguments, "")
    path.parent.mkdir(exist_ok=True)
    shutil.copy(source, path)
    for option in (("--backbone-checkpoint", "x"), ("--energies-seed", "1"), ("--decoder", "mixture")):
        with pytest.raises(UserError, match=f"{option[0]} applies to a training"):
            run_recipe(RECIPE, [*arguments, *option], "")
    for change in ("energies.training.steps=4", "backbone.training.steps=3", "backbone.optimizer.ema_decay=0.4"):
        with pytest.raises(UserError, match="are of another configuration; leave --set and --budget out"):
            run_recipe(RECIPE, [*arguments, "--set", change], "")
    with pytest.raises(UserError, match="are of another configuration; leave --set and --budget out"):
        run_recipe(RECIPE, [*arguments, "--budget", "9s"], "")
    with pytest.raises(UserError, match="are of training seed 1; give --training-seed 1"):
        run_recipe(RECIPE, [*arguments, "--training-seed", "2"], "")
    with pytest.raises(UserError, match="are 'trained'; leave --batch-norm out"):
        run_recipe(RECIPE, [*arguments, "--batch-norm", "re-estimated"], "")
    model = jlebm.load(source)
    assert model.sampler is not None
    for name, value in (("seed", "one"), ("step", None), ("weights", "new")):
        save_model(path, model.model, model.header | {name: value}, model.sampler)
        with pytest.raises(UserError, match="does not say its seed, steps and weights"):
            run_recipe(RECIPE, arguments, "")
    shutil.copy(source, path)
    assert not list(tmp_path.glob("runs/**/*.npy")), "all of these were refused before anything was drawn"

    assert run_recipe(RECIPE, arguments, "") == 0
    assert not list(tmp_path.glob("runs/**/checkpoint.pt"))
    (kept,) = (tmp_path / "runs/kept").glob("*/*")
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(kept.parent.name)
    assert kept.name == of_stage(trained[0], "two-stage").name
    for prior in ("ebm-prior", "gaussian-prior"):
        ours, theirs = kept / "tiny--kept-weights-seed1", of_stage(trained[0], "two-stage") / "tiny-seed1"
        np.testing.assert_array_equal(np.load(ours / f"{prior}.npy"), np.load(theirs / f"{prior}.npy"))
    measured = {(row.metric, row.of.name): row for row in rows(tmp_path, "tiny --kept-weights")}
    plain = {(row.metric, row.of.name): row for row in rows(trained[0])}
    assert measured.keys() == plain.keys()
    for name, row in measured.items():
        assert row.wall_seconds["train"] == 0
        assert row.config_digest != plain[name].config_digest
        assert row.value == plain[name].value
    stored = rows(tmp_path, "tiny --kept-weights")
    assert run_recipe(RECIPE, arguments, "") == 0
    assert rows(tmp_path, "tiny --kept-weights") == stored


@pytest.mark.slow
def test_energies_of_another_seed_stand_upon_the_same_backbone(trained: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Would break if another training of the energies trained its backbone too, or its rows passed for the first's."""
    folder = tmp_path / "copy"
    shutil.copytree(trained[0], folder)
    arguments = [argument.replace(str(trained[0]), str(folder)) for argument in trained[1]]
    plain, before = rows(folder), weights(folder)
    assert run_recipe(RECIPE, [*arguments, "--energies-seed", "1"], "") == 0
    assert (rows(folder), weights(folder)) == (plain, before), "the seed that it has anyway names nothing"
    assert run_recipe(RECIPE, [*arguments, "--energies-seed", "2"], "") == 0
    after = weights(folder)
    assert before.items() < after.items()
    assert {Path(path).parent.name for path in after.keys() - before.keys()} == {
        of_stage(trained[0], "two-stage").name.replace("-seed1", "-seed2")
    }
    anew = rows(folder, "tiny --energies-seed 2")
    assert {(row.metric, row.of.name, row.seed) for row in anew} == {
        (row.metric, row.of.name, row.seed) for row in plain
    }
    assert not {row.config_digest for row in anew} & {row.config_digest for row in plain}
    first, second = ({row.of.name: row for row in each if row.metric == "latent_auc"} for each in (plain, anew))
    assert second["gaussian-prior"].value == first["gaussian-prior"].value
    first, second = sorted((folder / "runs").glob("photos-two-stage-*/weights.safetensors"))
    assert first.read_bytes() != second.read_bytes()


@pytest.mark.slow
def test_energies_on_a_top_down_hierarchy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks if stage two asked more of a backbone than its protocol: any has all rows and pictures."""
    model = TopDownConfig(widths=(4, 4, 4, 4), maps=(3, 2, 1, 0), last_width=3)
    plan = top_down("photos-two-stage/1", "photos", model, (4, 5))
    preset = dataclasses.replace(PRESET, plan=dataclasses.replace(plan, preset="long"))
    recipe = Recipe("photos", {}, "photos", two_stage={"long": preset})
    arguments = [*places(tmp_path), "--preset", "long"]
    assert run_recipe(recipe, arguments, "") == 0
    measured = rows(tmp_path, "long")
    assert {row.of.name for row in measured if row.metric == "latent_auc"} >= {f"ebm-prior/z{n}" for n in range(1, 6)}
    assert {row.learning for row in measured} == {"two-stage"}
    assert any("adapted to each layer, up to 0.5" in row.chain for row in measured)
    folder = of_stage(tmp_path, "two-stage")
    assert (folder / "layers.npz").exists()
    loaded = jlebm.load(folder)
    np.testing.assert_array_equal(loaded.sample(range(5)), np.load(folder / "long-seed1/ebm-prior.npy")[:5])
    assert jlebm.load(of_stage(tmp_path, "gaussian")).sample(range(2), prior="gaussian-prior").shape == (2, 3, 32, 32)
    assert run_recipe(recipe, arguments, "") == 0
    assert "its rows are kept" in capsys.readouterr().err
    assert rows(tmp_path, "long") == measured
    for option, name in (("--decoder", "mixture"), ("--batch-norm", "re-estimated")):
        with pytest.raises(UserError, match=f"is no NVAE .*; leave {option} out"):
            run_recipe(recipe, [*arguments, option, name], "")


def test_another_decoder_is_a_plan_of_its_own() -> None:
    """Both stages have it, under a name that says so; the preset's own decoder by name changes nothing."""
    plan = RECIPE.two_stage["tiny"].plan
    changed, variation = planned(plan, Arguments(variation=Variation(decoder="mixture")), "photos", CPU)
    assert variation == {"decoder": "mixture"}
    assert changed.backbone.model.num_mixture_dec == changed.energies.model.num_mixture_dec == 10
    assert changed.backbone.digest() != plan.backbone.digest()
    same, plain = (
        planned(plan, Arguments(variation=Variation(decoder=name)), "photos", CPU) for name in ("gaussian", None)
    )
    assert same == plain
    with pytest.raises(UserError, match="leave it or --backbone-checkpoint out"):
        planned(plan, Arguments(variation=Variation(Path("checkpoint.pt"), decoder="mixture")), "photos", CPU)


def test_inception_judges_again_what_a_variation_changes() -> None:
    """Breaks if a variation's rows lacked images that it changes, or the preset's own chain counted as a variation."""
    plan = RECIPE.two_stage["tiny"].plan
    for asked, judged in (
        (Variation(), SOURCES),
        (Variation(chain_steps=plan.sampler.chain.steps), SOURCES),
        (Variation(chain_steps=7), ("ebm-prior",)),
        (Variation(energies_seed=2), ("ebm-prior",)),
        (Variation(training_seed=2), SOURCES),
        (Variation(training_seed=2, chain_noise=False), ("ebm-prior",)),
        (Variation(temperature=0.8, chain_steps=7), ("gaussian-prior", "ebm-prior")),
        (Variation(temperature=0.8, decoding="sample"), SOURCES),
    ):
        _, variation = planned(plan, Arguments(variation=asked), "photos", CPU)
        assert set(affected(variation, SOURCES)) == set(judged), asked


def test_samples_of_seed_0_have_no_numbers_on_a_gpu() -> None:
    """Breaks if negative numbers of noise were refused only after hours of training."""
    plan = RECIPE.two_stage["tiny"].plan
    planned(plan, Arguments(seeds=(0, 1)), "photos", CPU)
    with pytest.raises(UserError, match="seeds of samples begin at 1 with --noise philox/1"):
        planned(plan, Arguments(seeds=(0, 1), noise="philox/1"), "photos", CPU)


def test_the_chain_at_test_time_has_the_options_that_change_it() -> None:
    """Breaks if an option is lost, or one that asks for what the preset has anyway names a variation."""
    plan = top_down("photos-two-stage/1", "photos", TopDownConfig(), (4, 5))
    asked = Variation(chain_steps=8, chain_leapfrog=4, chain_precision="bf16", drift="exact")
    changed, variation = planned(plan, Arguments(variation=asked), "photos", CPU)
    expected = dataclasses.replace(plan.sampler.chain, steps=8, leapfrog=4, precision="bf16")
    assert changed.sampler.chain == expected
    assert variation == {"chain_steps": 8, "chain_leapfrog": 4, "chain_precision": "bf16"}
    assert changed.energies == plan.energies, "training keeps its own chain"
    same = Variation(chain_steps=plan.sampler.chain.steps, chain_leapfrog=1, chain_precision="float32")
    assert planned(plan, Arguments(variation=same), "photos", CPU) == (plan, {})
    with pytest.raises(UserError, match="60 steps are no whole number of trajectories of 7"):
        planned(plan, Arguments(variation=Variation(chain_leapfrog=7)), "photos", CPU)


@pytest.mark.slow
def test_no_steps_give_the_gaussian_prior(trained: tuple[Path, list[str]]) -> None:
    """A chain that starts elsewhere than the Gaussian prior's own samples of the same seeds breaks it."""
    folder, arguments = trained
    assert run_recipe(RECIPE, [*arguments, "--chain-steps", "0", "--seeds", "2"], "") == 0
    samples = of_stage(folder, "two-stage") / "tiny--chain-steps0-seed2"
    for name in ("", "-latents"):
        pair = [np.load(samples / f"{prior}-prior{name}.npy") for prior in ("gaussian", "ebm")]
        np.testing.assert_array_equal(*pair)
    first = np.load(of_stage(folder, "two-stage") / "tiny-seed1/gaussian-prior.npy")
    assert not (np.load(samples / "gaussian-prior.npy") == first).all(), "another seed has other samples"


@pytest.mark.slow
def test_a_given_backbone(tmp_path: Path) -> None:
    """A published checkpoint is named by its weights in the configuration and in the rows, and is not trained."""
    arguments = places(tmp_path)
    path, _ = nvae("cifar10_gaussian", tmp_path)
    digest = digest_of(load_nvae(path))
    assert run_recipe(RECIPE, [*arguments, "--backbone-checkpoint", str(path), "--images", "50"], "") == 0
    (run,) = (tmp_path / "runs").iterdir()
    config = json.loads((run / "config.json").read_text())["config"]
    assert config["backbone"] == f"sha256:{digest}"
    assert config["model"]["num_groups_per_scale"] == 4, "the sizes are the checkpoint's"
    measured = rows(tmp_path, f"tiny --backbone-checkpoint sha256:{digest[:10]}")
    assert {row.of.name for row in measured if row.of.name.startswith("ebm-prior/")} == {
        f"ebm-prior/z{layer}" for layer in (1, 2, 3, 4)
    }


@exit_on_user_error
def command(recipe: Recipe, arguments: list[str]) -> int:
    """Run a recipe as its main function does."""
    return run_recipe(recipe, arguments, "")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--learning", "variational"], "--learning is that of the two-layer model"),
        (["--set", "energies.precision=tf32"], "an arithmetic that a CPU does not have"),
        (["--set", "energies.model.num_groups_per_scale=3"], "energies follow the backbone"),
        (["--set", "energies.backbone=mine"], "--set does not change 'energies.backbone'"),
        (["--set", "backbone.preset=mine"], "--set does not change 'backbone.preset'"),
        (["--set", "sampler.temprature=1"], "the nearest known one is 'sampler.temperature'"),
        (["--temperature", "-1"], "temperature must be 0 or more, not -1"),
        (["--temperature", "nan"], "temperature must be 0 or more, not nan"),
        (["--model", "two-layer"], "the recipe photos has no two-layer model"),
        (["--backbone-checkpoint", "nowhere.pt"], "there is no checkpoint nowhere.pt"),
        (["--dataset", "photos64"], "the dataset's are (3, 64, 64)"),
    ],
)
def test_bad_input_is_a_sentence(
    tmp_path: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every mistake is named, with exit code 2."""
    assert command(RECIPE, [*places(tmp_path), *arguments]) == 2
    assert sentence in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_backbone_for_other_images_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint of 32 pixels is not put upon images of 64."""
    path, _ = nvae("cifar10_gaussian", tmp_path)
    arguments = [*places(tmp_path), "--backbone-checkpoint", str(path), "--dataset", "photos64"]
    assert command(RECIPE, arguments) == 2
    assert "makes images of (3, 32, 32), and those of the dataset are (3, 64, 64)" in capsys.readouterr().err


def test_its_options_are_refused_elsewhere(tmp_path: Path) -> None:
    """An option of the two-stage model that does nothing in a joint training breaks it."""
    with pytest.raises(UserError, match="need --model two-stage"):
        run_recipe(cifar10.RECIPE, [*places(tmp_path), "--preset", "tiny", "--temperature", "0.7"], "")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_presets_are_whole(recipe: Recipe) -> None:
    """A preset under another name, of another image size, or whose energies or schedule could not run breaks it."""
    from jlebm.data.catalogue import CATALOGUE

    assert {"tiny", "paper"} <= set(recipe.two_stage)
    assert CATALOGUE[recipe.name].shape == CATALOGUE[recipe.fallback].shape
    for name, preset in recipe.two_stage.items():
        plan = preset.plan
        assert {plan.preset, plan.energies.preset} == {name}
        shared = recipe.two_stage[plan.backbone.preset].plan  # another preset's backbone is the very same
        assert plan.backbone == shared.backbone
        assert plan.backbone.model == plan.energies.model
        assert plan.backbone.model.image_shape[1:] == CATALOGUE[recipe.name].shape[:2]
        assert plan.backbone.protocol == plan.energies.protocol == f"{recipe.name}-two-stage/1"
        if preset.nvae is None:
            assert isinstance(plan.backbone, Experiment)
            assert plan.backbone.learning == "gaussian"
            assert plan.backbone.kl_warmup < plan.backbone.training.steps
            continue
        assert plan.backbone.elbo.warmup_steps < plan.backbone.training.steps
        halvings = plan.backbone.model.num_preprocess_blocks + plan.backbone.model.num_latent_scales - 1
        assert plan.backbone.model.image_size / 2**halvings >= 8, "convolutional energies end at 4 x 4"


@pytest.mark.slow
def test_a_dataset_that_is_small_or_absent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without its dataset a recipe runs its first look on the embedded one; rows that need more images say so."""
    preset = dataclasses.replace(PRESET, reference_images=None, batch_size=30)
    recipe = Recipe("cifar10", {}, "photos", two_stage={"tiny": preset})
    assert run_recipe(recipe, places(tmp_path), "") == 0
    assert "this tiny run uses the embedded 'photos'" in capsys.readouterr().err
    assert {row.dataset for row in rows(tmp_path)} == {"photos"}
