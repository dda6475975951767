"""Anomaly detection from its command line: whom it trains on, what it calls positive, and what a row says."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from jlebm import data
from jlebm.errors import UserError
from jlebm.hierarchy import PartialPosterior, PosteriorTerms
from jlebm.learning.trainable import TrainingConfig
from jlebm.progress import SILENT
from jlebm.run import open_run
from jlebm.training import LoopControl, fit
from reproduce import anomaly, results
from reproduce.measuring import anomaly_scores
from reproduce.measuring.anomaly_split import Official
from reproduce.measuring.detection import METRICS
from reproduce.pipelines import anomaly_training
from reproduce.pipelines.fitting import Given, milestone_steps, milestones
from reproduce.presets import anomaly_sizes
from reproduce.presets.anomaly_sizes import Plan
from reproduce.results.anomaly_names import OFFICIAL
from tests.small import ladder_experiment

SMALL = Plan("ladder", ladder_experiment(protocol=OFFICIAL, dataset="mnist"), draws=2, images=120)
LABELS = data.every(data.load("digits"), 5).labels


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put a small model in the place of `tiny`, and keep everything in the test's folder."""
    monkeypatch.setitem(anomaly_sizes.PRESETS, "tiny", SMALL)
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


@pytest.mark.parametrize("learning", ["variational", "gaussian"])
@pytest.mark.slow
def test_the_whole_way(tmp_path: Path, command: list[str], learning: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Train, score, store and compare for two digits; the same command again trains and stores nothing."""
    arguments = [*command, "--digits", "1", "9", "--learning", learning]
    assert anomaly.main(arguments) == 0
    out = capsys.readouterr()
    assert "this tiny run uses the embedded 'digits'" in out.err
    measured = rows(tmp_path)
    scores = ("L>0", "E") if learning == "variational" else ("L>0",)
    asked = {(metric, f"anomaly/{digit}/{score}") for metric in METRICS for digit in (1, 9) for score in scores}
    assert {(row.metric, row.of.name) for row in measured} == asked
    assert all(source in out.out for _, source in asked)
    for row in measured:
        assert (row.dataset, row.protocol, row.learning, row.images) == ("digits", "anomaly/1", learning, 120)
        assert row.chain == ""
    assert len({row.config_digest for row in measured}) == 2
    folders = sorted(path.name.partition("-tiny-")[0] for path in (tmp_path / "runs").iterdir())
    assert folders == [f"digits-without-1-{learning}", f"digits-without-9-{learning}"]

    assert anomaly.main(arguments) == 0
    assert rows(tmp_path) == measured
    assert capsys.readouterr().err.count("measured before; its rows are kept") == 2


def test_a_row_is_made_of_the_stored_scores(tmp_path: Path, command: list[str]) -> None:
    """The AUPRC is that of the artifact's scores, and both say how many images there are of each kind."""
    assert anomaly.main([*command, "--digits", "4"]) == 0
    measured = rows(tmp_path)
    (path,) = (tmp_path / "runs").glob("*/scores.npz")
    arrays, _ = results.read_artifact(path, ("positive", "negative", "names"), measured)
    assert arrays["names"].tolist() == ["L>0", "E"]
    assert LABELS is not None
    share = int((LABELS[1::3] == 4).sum())
    stored = {row.of.name: row for row in measured if row.metric == "auprc"}
    scores = zip(
        ("L>0", "E"), ("-L>0", "E(z), the energies alone"), arrays["positive"], arrays["negative"], strict=True
    )
    for name, said, positive, negative in scores:
        assert (len(positive), len(negative)) == (share, 120 - share)
        auprc = average_precision_score([1] * share + [0] * (120 - share), np.concatenate([positive, negative]))
        row = stored[f"anomaly/4/{name}"]
        assert row.value == pytest.approx(auprc, abs=1e-6)
        assert row.reference == (
            f"positive: digit 4, held out, {share} images of digits/test; negative: the other digits, {120 - share}; "
            f"score: {said}, mean of 2 posterior samples"
        )


@pytest.mark.parametrize(("likelihood", "found"), [(-100.0, True), (100.0, False)])
def test_an_unlikely_digit_is_an_anomaly(
    tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, likelihood: float, found: bool
) -> None:
    """A held-out digit less likely than every other is found without an error; more likely, as badly as can be.

    So it is with one of higher energy. A score of the wrong sign, or the other class as the positive one, breaks it.
    """
    assert LABELS is not None
    sevens = LABELS[1::3] == 7

    def terms(model, images, chosen, latents, draws) -> PosteriorTerms:
        assert (latents, draws, chosen) == (PartialPosterior(0, None), 2, list(range(1, 360, 3)))
        density = np.where(sevens, likelihood, np.arange(120) / 120)
        return PosteriorTerms(density, density, -density, density)

    monkeypatch.setattr(anomaly_scores, "posterior_terms", terms)
    assert anomaly.main([*command, "--digits", "7"]) == 0
    for row in rows(tmp_path):
        if row.metric == "auroc":
            assert row.value == float(found)
        if row.metric == "auprc":
            assert row.value == pytest.approx(1.0 if found else sevens.mean())  # all sevens tie, at the bottom


def test_training_never_sees_the_digit_nor_a_test_image(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is trained on are the training images of the other nine digits, all of them and nothing else."""
    whole = data.load("digits")
    assert whole.labels is not None
    wanted = [index for index in range(len(whole.images)) if index % 5 and whole.labels[index] != 3]
    seen = []

    def spy(run, images, *rest):
        seen.append(np.array(images))
        return fitted(run, images, *rest)

    fitted = anomaly_training.fitted
    monkeypatch.setattr(anomaly_training, "fitted", spy)
    assert anomaly.main([*command, "--digits", "3"]) == 0
    (images,) = seen
    assert np.array_equal(images, whole.images[wanted])


def test_development_leaves_the_test_images_alone(
    tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings chosen on images of the reported numbers, or those rows under the preset's own name, break this."""
    train, _ = data.held_out("digits")
    judged, trained = [], []

    def spy(model, images, *rest, **more):
        judged.append(np.array(images))
        return posterior_terms(model, images, *rest, **more)

    def fit_spy(run, images, *rest):
        trained.append(len(images))
        return fitted(run, images, *rest)

    posterior_terms, fitted = anomaly_scores.posterior_terms, anomaly_training.fitted
    monkeypatch.setattr(anomaly_scores, "posterior_terms", spy)
    monkeypatch.setattr(anomaly_training, "fitted", fit_spy)
    assert anomaly.main([*command, "--digits", "2", "--development"]) == 0
    assert np.array_equal(judged[0], train.images[::6])
    assert train.labels is not None
    assert trained == [int((np.delete(train.labels, np.s_[::6]) != 2).sum())]
    assert {row.label for row in rows(tmp_path)} == {"tiny --development"}


def test_a_set_key_makes_a_preset_of_its_own(tmp_path: Path, command: list[str]) -> None:
    """Rows of a changed configuration are called custom, so that they never stand beside the preset's."""
    assert anomaly.main([*command, "--digits", "1", "--set", "training.steps=5"]) == 0
    assert {(row.preset, row.steps) for row in rows(tmp_path)} == {("custom", 5)}


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (["--digits", "10"], "digits has no class 10 that could be held out"),
        (["--digits", "1", "-1"], "digits has no class -1 that could be held out"),
        (["--digits", "1", "1"], "--digits needs at least one number, each only once"),
        (["--seeds"], "--seeds needs at least one seed, each only once and none negative, not nothing"),
        (["--images", "0"], "--images must be between 1 and 360"),
        (["--images", "361"], "what digits holds out, not 361"),
        (["--preset", "cpy"], "anomaly/1 has no preset 'cpy'; the nearest known one is 'cpu'"),
        (["--preset", "long"], "anomaly/1 has no preset 'long'; --protocol 80-20 has it"),
        (["--model", "one-layer"], "anomaly/1 has no model 'one-layer'; --protocol 80-20 has it"),
        (["--learning", "two-stage"], "anomaly/1 has no learning 'two-stage'; --protocol 80-20 has it"),
        (
            ["--protocol", "80-20", "--model", "ladder"],
            "no model 'ladder'; --protocol official has it",
        ),
        (["--no-oracle"], "the official protocol has no oracle"),
        (["--protocol", "80-20", "--development", "--digits", "4"], "all images of 4 are test images"),
        (["--set", "dataset=x"], "--set does not change 'dataset'"),
        (["--set", "model.precision=tf32"], "an arithmetic that a CPU does not have"),
        (["--preset", "cpu"], "mnist (train) is not in the data root"),
    ],
)
def test_bad_input_is_a_sentence(
    tmp_path: Path, command: list[str], said: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and one sentence, before anything is trained."""
    assert anomaly.main([*command, *said]) == 2
    assert sentence in capsys.readouterr().err
    assert not list((tmp_path / "runs").glob("*/checkpoint.pt"))


def test_the_presets_differ_in_the_digit_alone() -> None:
    """Two digits are two digests, one digit is one: nothing else moves with it."""
    whole = data.load("digits")
    one, nine = (
        anomaly_training.without_digit(anomaly_sizes.CPU, data.without(whole, digit), False, ()).experiment
        for digit in (1, 9)
    )
    assert one.digest() != nine.digest()
    assert dataclasses.replace(one, dataset="") == dataclasses.replace(nine, dataset="")
    assert Official.id == OFFICIAL == one.protocol


def test_checkpoints_are_judged_once_for_each_set_of_images(tmp_path: Path) -> None:
    """Breaks if the best of some images were told of others, a missing milestone went unnoticed, or damage crashed."""
    path, model = tmp_path / "checkpoints.json", torch.nn.Linear(1, 1)

    def judge(test: str, steps: Sequence[int], last: int = 20) -> float | None:
        judged = anomaly_training._Checkpoints(path, test)
        for step in steps:
            state = SimpleNamespace(step=step, evaluated_model=lambda: model)
            judged.judge(state, lambda model, step=step: step / 100)  # pyright: ignore
        return judged.best(20, last)

    due = milestone_steps(20, anomaly_training.CHECKPOINTS)
    assert due == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]
    assert judge("some", [*due[:4], 9, *due[5:]]) is None  # step 9 stands in for nothing
    assert judge("some", [10]) == 0.2
    assert judge("others", [20]) is None
    assert judge("some", []) == 0.2
    assert judge("clock", [2, 4, 5], last=5) == 0.05  # the clock ended it there
    for damage in ("{", "[]", '{"some": {"2": "high"}}', '{"2": 0.5}'):
        path.write_text(damage)
        with pytest.raises(UserError, match=r"checkpoints\.json is damaged, or older"):
            judge("some", [])


def test_milestones_of_a_resumed_training(tmp_path: Path) -> None:
    """Breaks if a training that goes on between two milestones yields the ones behind it, or a step of its own."""
    experiment, device = ladder_experiment(training=TrainingConfig(steps=10, batch_size=5)), torch.device("cpu")
    images = np.random.default_rng(0).integers(0, 256, (8, *experiment.model.image_shape), dtype=np.uint8)
    with open_run(tmp_path, experiment, 1) as run:
        fit(run, images, device, LoopControl(until=5))
        found = [state.step for state in milestones(run, Given(images, device), 5, SILENT)]
        assert found == [6, 8, 10]
        assert [state.step for state in milestones(run, Given(images, device), 5, SILENT)] == [10]
