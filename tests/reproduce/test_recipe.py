"""The recipe from its command line: the whole way on a small model, and a sentence for every bad input."""

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import jlebm
from jlebm import data
from jlebm.backbones.conv import ConvConfig
from jlebm.errors import UserError, exit_on_user_error
from jlebm.evaluation import fidelity, find_extractor
from jlebm.evaluation.reference import ReferenceSet, reference_subset
from jlebm.langevin import Chain
from jlebm.learning.joint_mle import JointMLE
from jlebm.learning.trainable import TrainingConfig
from jlebm.progress import SILENT
from jlebm.run import open_run
from jlebm.training import initial_state
from reproduce import cifar10, results
from reproduce.measuring.data_root import DataRoot
from reproduce.measuring.row_store import Rows
from reproduce.measuring.sample_sets import posterior_indices
from reproduce.measuring.sampled import SampleMetrics
from reproduce.measuring.session import Session
from reproduce.pipelines.arguments import parse_duration
from reproduce.pipelines.joint import samples_of, subject_of
from reproduce.pipelines.recipe import run_recipe
from reproduce.presets.extents import Size
from reproduce.presets.recipes import Preset, Recipe
from tests.commands import instead
from tests.figures.report_pages import data_in
from tests.small import experiment

SMALL = dataclasses.replace(
    experiment(),
    protocol="digits/1",
    dataset="digits",
    model=ConvConfig(image_shape=(1, 8, 8), latent_dims=(3, 4), channels=(6, 5), conditional_hidden=(8,)),
    prior_chain=Chain.from_joint_paper(4, 0.4),
    training=TrainingConfig(steps=20, batch_size=20),
)
RECIPE = Recipe("digits", {"tiny": Preset(SMALL, images=120, reference_images=100, kept=False)}, fallback="photos")


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """A results folder of its own, and arguments that keep everything in the test's folder."""
    (tmp_path / "results/measured").mkdir(parents=True)
    for name in ("paper.toml", "expected.toml"):
        (tmp_path / "results" / name).write_text("")
    (tmp_path / "root").mkdir()
    return [
        "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results"),
        "--data-root", str(tmp_path / "root"), "--no-download", "--device", "cpu",
    ]  # fmt: skip


def rows(tmp_path: Path) -> list[results.Measurement]:
    return results.read_all(tmp_path / "results/measured")


@pytest.mark.parametrize("learning", ["joint-mle", "variational"])
@pytest.mark.slow
def test_the_whole_way(tmp_path: Path, folders: list[str], learning: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Train, sample, measure, store, compare, draw; the same command again changes nothing."""
    arguments = [*folders, "--seeds", "1", "2", "--learning", learning]
    assert run_recipe(RECIPE, arguments, "") == 0
    out = capsys.readouterr()
    assert "preset tiny: the largest that a CPU" in out.err
    assert "data: digits, 1797 images, embedded" in out.err
    assert out.err.count("prior chain: z1 moved by") == 2
    assert "latent AUC" in out.out
    assert "not measured: fid768, fid, is, kid, precision, recall: there are no Inception weights" in out.out
    assert f"--only dataset=digits preset=tiny --results {tmp_path / 'results'}\n" in out.out

    measured = rows(tmp_path)
    assert {(row.metric, row.of.name, row.seed) for row in measured} == {
        (metric, source, seed)
        for seed in (1, 2)
        for metric, source in (
            ("reconstruction_mse", "posterior"),
            ("latent_auc", "gaussian-prior"),
            ("latent_auc", "ebm-prior"),
        )
    }
    for row in measured:
        assert (row.dataset, row.preset, row.learning, row.steps) == ("digits", "tiny", learning, 20)
        assert row.images == 120
        assert row.weights == "ema"
        assert row.complete
        assert row.intact
        assert ("epsilon" in row.chain) == (
            row.of.name == "ebm-prior" or (row.of.name == "posterior" and learning == "joint-mle")
        )
    for folder in (tmp_path / "runs").iterdir():
        names = {path.name for path in folder.iterdir()}
        assert {"samples.png", "energy.png", "training.png", "weights.safetensors", "events.jsonl"} <= names
        page = data_in((folder / "report.html").read_text(encoding="utf-8"))
        assert len(page["tables"][-1]["lines"]) == sum(row.seed == 1 for row in measured)
        assert {one["kind"] for one in page["figures"]} == {
            "samples",
            "the energy along prior chains",
            "what a training recorded",
        }
        told = json.loads((folder / "diagnostics.json").read_text())
        assert [layer["name"] for layer in told["layers"]] == ["z2", "z1"]
        assert json.loads((folder / "events.jsonl").read_text().splitlines()[-1]) == {"step": 20, "diagnostics": told}
        samples = np.load(folder / "samples/ebm-prior.npy", mmap_mode="r")
        assert samples.shape == (120, 1, 8, 8)
        np.testing.assert_array_equal(jlebm.load(folder).sample(range(120)), samples)
    assert not (tmp_path / "results/artifacts").exists(), "a first look is not kept as the repository's figure"

    assert run_recipe(RECIPE, arguments, "") == 0
    assert "its rows are kept" in capsys.readouterr().err
    assert rows(tmp_path) == measured


@pytest.mark.slow
def test_variational_learning_takes_its_own_experiment(tmp_path: Path, folders: list[str]) -> None:
    """Would break if a preset's variational experiment were left out, or reached the other learning too."""
    colder = dataclasses.replace(SMALL, prior_chain=Chain(3, epsilon=0.01, start="ancestral"))
    tiny = dataclasses.replace(RECIPE.presets["tiny"], variational=colder)
    recipe = dataclasses.replace(RECIPE, presets={"tiny": tiny})
    for learning in ("joint-mle", "variational"):
        assert run_recipe(recipe, [*folders, "--learning", learning], "") == 0
    configs = [json.loads(path.read_text())["config"] for path in tmp_path.glob("runs/*/config.json")]
    assert {config["learning"]: config["prior_chain"]["steps"] for config in configs} == {
        "joint-mle": SMALL.prior_chain.steps,
        "variational": 3,
    }


@pytest.mark.slow
def test_with_an_extractor(
    tmp_path: Path, folders: list[str], small_inception: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every source is judged by its own samples, the halves once for all seeds, and what stands is not done again."""
    weights = tmp_path / "root" / small_inception.name
    run_recipe(RECIPE, folders, "")  # before there are weights
    assert "not measured: fid768, fid" in capsys.readouterr().out
    before = rows(tmp_path)
    weights.symlink_to(small_inception)
    run_recipe(RECIPE, [*folders, "--seeds", "1", "2"], "")
    measured = rows(tmp_path)
    assert measured[: len(before)] == before, "what was measured without an extractor stands"

    judged = [row for row in measured if row.metric == "fid768"]
    assert sorted((row.of.name, row.seed) for row in judged if row.of.name != "training-halves") == [
        (source, seed) for source in ("ebm-prior", "gaussian-prior", "posterior") for seed in (1, 2)
    ]
    assert [(row.images, row.weights) for row in judged if row.of.name == "training-halves"] == [(50, "")]
    dataset = data.load("digits")
    extractor = find_extractor(tmp_path / "root", download=False)
    (folder,) = (tmp_path / "runs").glob("*seed2")
    for row in judged:
        assert row.reference == "digits/train, 100 images, sha256:" + dataset.digest[:12]
        if row.seed == 2 and row.of.name != "training-halves":
            samples = np.load(folder / f"samples/{row.of.name}.npy")
            reference = ReferenceSet(dataset, tmp_path / "another-cache", 100)
            (score,) = fidelity.evaluate(samples, reference, extractor, torch.device("cpu"), metrics=["fid768"])
            assert isinstance(score, fidelity.Score)
            assert row.value == pytest.approx(score.value, rel=1e-9)
            assert row.images == 120


@pytest.mark.slow
def test_a_preset_may_spare_a_source(
    tmp_path: Path, folders: list[str], small_inception: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What goes through Inception is the preset's; the gap that needs all three is said to be missing, and why."""
    (tmp_path / "root" / small_inception.name).symlink_to(small_inception)
    tiny = dataclasses.replace(RECIPE.presets["tiny"], judged=("gaussian-prior", "ebm-prior"))
    assert run_recipe(dataclasses.replace(RECIPE, presets={"tiny": tiny}), folders, "") == 0
    judged = {row.of.name for row in rows(tmp_path) if row.metric == "fid768"}
    assert judged == {"gaussian-prior", "ebm-prior", "training-halves"}
    assert (
        "not measured: prior_gap_closed: the images of the posterior do not go through Inception here"
        in capsys.readouterr().out
    )


@pytest.mark.slow
def test_prior_gap_closed(tmp_path: Path, folders: list[str], small_inception: Path) -> None:
    """(a - b) / (a - c) of the same weights; where the posterior is no better than the prior there is no gap."""
    (tmp_path / "root" / small_inception.name).symlink_to(small_inception)
    size, device = Size(images=120, reference_images=100), torch.device("cpu")
    root = DataRoot(tmp_path / "root", False, SILENT)
    prepared = Session.prepare("digits", data.load("digits"), size, root, device)
    cases = (((1.5, 1.2, 1.0), 0.6), ((1.5, 1.6, 1.0), -0.2), ((1.0, 0.9, 1.0), None), ((1, 1, 2), None))
    for number, (values, expected) in enumerate(cases):
        session, folder = dataclasses.replace(prepared, missing={}), tmp_path / f"{number}"
        with open_run(folder / "runs", SMALL, 1) as run:
            state = initial_state(SMALL, 1, device)
            stored = Rows(subject_of(session, run, SMALL, state), session, folder / "results")
            for source, value in zip(("gaussian-prior", "ebm-prior", "posterior"), values, strict=True):
                stored.add("fid768", source, float(value), 120, {}, **session.judged_by())
            metrics = SampleMetrics(stored, samples_of(run, SMALL, state, stored))
            stored.fill(metrics.gap())
            stored.fill(metrics.gap())
        found = [row.value for row in rows(folder) if row.metric == "prior_gap_closed"]
        assert found == ([] if expected is None else [pytest.approx(expected)]), values
        assert ("prior_gap_closed" in session.missing) == (expected is None)


@pytest.mark.slow
def test_more_images_of_the_same_weights(tmp_path: Path, folders: list[str]) -> None:
    """Measuring a finished run on more images adds rows under the same configuration and trains nothing."""
    run_recipe(RECIPE, folders, "")
    run_recipe(RECIPE, [*folders, "--images", "150"], "")
    counts = {(row.images, row.config_digest) for row in rows(tmp_path)}
    assert {count for count, _ in counts} == {120, 150}
    assert len({digest for _, digest in counts}) == 1
    (events,) = [path.read_text() for path in tmp_path.glob("runs/*/events.jsonl")]
    assert events.count("diagnostics") == 1, "the same chains of the same weights are told once"


@pytest.mark.slow
def test_rows_of_somebody_else_are_told_apart(
    tmp_path: Path, folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if a training whose rows are in the checkout already passes for one that was measured here."""
    stood = "not measured again (--results FOLDER measures them anew)"
    run_recipe(RECIPE, folders, "")
    said = capsys.readouterr().err
    assert "stored 3 rows in" in said
    assert stood not in said
    path = tmp_path / "results/measured/digits.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    for expected in ("stored 1 row in", "the rows stood already in"):
        shutil.rmtree(tmp_path / "runs")
        run_recipe(RECIPE, folders, "")
        said = capsys.readouterr().err
        assert expected in said
        assert stood in said
        assert ("; 2 more stood there already and were" in said) == (expected == "stored 1 row in")


@pytest.mark.slow
def test_reconstruction_error_is_of_the_right_images(tmp_path: Path, folders: list[str]) -> None:
    """The row's mean squared error is that of the decoded images against the very images they were made from."""
    from jlebm.data import load

    run_recipe(RECIPE, folders, "")
    (folder,) = (tmp_path / "runs").iterdir()
    decoded = np.load(folder / "samples/posterior.npy") / 255
    truth = load("digits").images[posterior_indices(1797, 120)] / 255
    (row,) = [row for row in rows(tmp_path) if row.metric == "reconstruction_mse"]
    assert row.value == pytest.approx(((decoded - truth) ** 2).mean())


def test_posterior_images_stand_between_the_references() -> None:
    """Posterior samples are of other images than the reference's where there are enough, and spread over all."""
    for total, references, count in ((50_000, 10_000, 10_000), (50_000, 10_000, 2_000), (5_000, 800, 800)):
        chosen = posterior_indices(total, count)
        assert len(set(chosen)) == count
        assert max(chosen) < total
        indices = np.arange(total)[:, None, None, None].view(np.uint8)  # each image is its own index
        reference = reference_subset(indices, references).view(np.int64).ravel()
        assert len(reference) == references
        assert not set(reference.tolist()) & set(chosen)


def test_more_posterior_images_than_there_are() -> None:
    """All images as often as they go into the count, then some at even distances, and no number twice."""
    chosen = posterior_indices(100, 250)
    assert chosen[:200] == list(range(200))
    assert len(set(chosen)) == 250
    assert [index - 200 for index in chosen[200:]] == posterior_indices(100, 50)


def answer(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the real command, expect exit code 2, return its sentence."""
    assert cifar10.main(arguments) == 2
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert sentence.startswith("error: ")
    return sentence


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--preset", "tinny"], "unknown preset 'tinny'; the nearest known one is 'tiny'"),
        (["--dataset", "foto"], "nearest known one is 'photos'"),
        (["--set", "training.step=3"], "unknown configuration key 'training.step'; the nearest known one is"),
        (["--set", "prior_chain.epsilon=0"], "step size epsilon must be positive"),
        (["--budget", "-5m"], "budget must be positive"),
        (["--budget", "0s"], "budget must be positive"),
        (["--budget", "soon"], "not a time such as 90s, 20m or 1.5h"),
        (["--seeds", "1", "1"], "each only once"),
        (["--images", "49"], "--images must be at least 50"),
        (["--preset", "cpu"], "cifar10"),
        (["--set", "dataset=digits"], "--set does not change 'dataset'"),
        (["--dataset", "digits"], "images of"),
        (["--device", "cpu", "--set", "model.precision=tf32"], "an arithmetic that a CPU does not have"),
        (["--device", "cpu", "--preset", "budget", "--dataset", "photos"], "add --set model.precision=float32"),
    ],
)
def test_bad_input_is_a_sentence_and_exit_code_2(
    folders: list[str], arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every mistake is named, with the nearest known word, before anything is written."""
    assert sentence in answer(instead(folders, arguments), capsys)


def test_missing_dataset_says_what_to_put_where(
    tmp_path: Path, folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without CIFAR-10 a full preset names the file and the folder."""
    sentence = answer([*folders, "--preset", "budget"], capsys)
    assert "cifar10-32x32.zip" in sentence
    assert str(tmp_path / "root") in sentence


def test_unknown_flag_names_the_nearest(folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt flag ends with exit code 2 and the flag that was probably meant."""
    with pytest.raises(SystemExit) as ended:
        cifar10.main([*folders, "--presset", "tiny"])
    assert ended.value.code == 2
    assert "--preset" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_where_there_is_none(folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Asking for a GPU that is not there never falls back silently."""
    assert "no CUDA device" in answer(instead(folders, ["--device", "cuda"]), capsys)


@pytest.mark.slow
def test_another_configuration_in_the_folder_is_refused(tmp_path: Path, folders: list[str]) -> None:
    """A config.json that was changed by hand is noticed, and nothing is overwritten."""
    run_recipe(RECIPE, folders, "")
    (folder,) = (tmp_path / "runs").iterdir()
    changed = json.loads((folder / "config.json").read_text()) | {"seed": 9}
    (folder / "config.json").write_text(json.dumps(changed))
    before = (folder / "checkpoint.pt").read_bytes()
    with pytest.raises(UserError, match="another experiment or seed"):
        run_recipe(RECIPE, folders, "")
    assert (folder / "checkpoint.pt").read_bytes() == before


@pytest.mark.slow
def test_a_damaged_checkpoint_is_a_sentence(tmp_path: Path, folders: list[str]) -> None:
    """Half a checkpoint in the run's folder is named; the file stays for whoever wants to look at it."""
    run_recipe(RECIPE, folders, "")
    (folder,) = (tmp_path / "runs").iterdir()
    whole = (folder / "checkpoint.pt").read_bytes()
    (folder / "checkpoint.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cut short or damaged"):
        run_recipe(RECIPE, folders, "")
    assert (folder / "checkpoint.pt").read_bytes() == whole[: len(whole) // 2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_of_that_step(
    tmp_path: Path, folders: list[str], number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first signal ends the training after its step, and the same command makes the rest: the same weights."""
    steps = iter(range(100))
    update = JointMLE.update

    def interrupted(self: JointMLE, *arguments):
        if next(steps) == 7:
            os.kill(os.getpid(), number)
        return update(self, *arguments)

    monkeypatch.setattr(JointMLE, "update", interrupted)
    assert exit_on_user_error(run_recipe)(RECIPE, folders, "") == 130
    assert rows(tmp_path) == []
    assert run_recipe(RECIPE, folders, "") == 0
    (folder,) = (tmp_path / "runs").iterdir()
    stopped = (folder / "weights.safetensors").read_bytes()
    assert next(steps) == 20, "eight steps, then the other twelve"
    elsewhere = instead(folders, ["--runs", str(tmp_path / "whole")])
    assert run_recipe(RECIPE, elsewhere, "") == 0
    assert stopped == next((tmp_path / "whole").glob("*/weights.safetensors")).read_bytes()


def test_durations() -> None:
    """Seconds, minutes and hours."""
    assert [parse_duration(text) for text in ("90s", "20m", "1.5h")] == [90, 1200, 5400]


def test_errors_carry_their_exit_code() -> None:
    """A run that diverged is told apart from bad input by its exit code."""
    from jlebm.guard import Diverged

    def fail(error: UserError):
        @exit_on_user_error
        def main() -> None:
            raise error

        return main()

    assert (fail(UserError("a")), fail(Diverged("b"))) == (2, 3)
