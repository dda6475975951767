"""The layers in numbers, each against one that is known: by hand, in closed form, or computed another way."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from jlebm import data, hierarchy
from jlebm.evaluation import find_extractor
from jlebm.evaluation.inception import open_network
from jlebm.model import JointModel
from jlebm.progress import SILENT
from jlebm.randomness import PerImageNoise
from jlebm.run import open_run
from jlebm.sampling import Samples, gathered
from jlebm.training import initial_state
from reproduce.measuring import representation
from reproduce.measuring.data_root import DataRoot
from reproduce.measuring.judged_latents import judged_latents
from reproduce.measuring.representation import accuracy, encoded, feature_change, pixel_change
from reproduce.measuring.row_store import Rows, Wanted
from reproduce.measuring.sample_sets import Draw, SampleSets
from reproduce.measuring.sampled import SampleMetrics
from reproduce.measuring.session import Session
from reproduce.pipelines.joint import subject_of
from reproduce.presets.extents import Size
from reproduce.results.identity import Of
from tests.small import ladder_experiment

CPU = torch.device("cpu")
ONE = ladder_experiment(dataset="digits")


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    """The rows of a model that is not trained, on digits, of which none is stored yet."""
    session = Session.prepare(
        "digits",
        data.load("digits"),
        Size(images=60, reference_images=100, judged=()),
        DataRoot(tmp_path, False, SILENT),
        CPU,
    )
    with open_run(tmp_path / "runs", ONE, 1) as run:
        return Rows(subject_of(session, run, ONE, initial_state(ONE, 1, CPU)), session, tmp_path / "results")


def model_of() -> JointModel:
    return initial_state(ONE, 1, CPU).evaluated_model()


def test_latents_that_tell_the_class() -> None:
    """A classifier that is judged on what it learned from, or whose share is not in percent, breaks it."""
    generator = np.random.default_rng(0)
    classes = np.repeat(np.arange(4), 50)
    told = np.eye(4)[classes] + 0.1 * generator.standard_normal((200, 4))
    untold = generator.standard_normal((200, 4))
    assert accuracy(told, classes, told, np.roll(classes, 50)) == 0
    assert accuracy(told, classes, told[::-1], classes[::-1]) == 100
    assert accuracy(untold, classes, generator.standard_normal((200, 4)), classes) < 40


def test_pixel_change_by_hand() -> None:
    """Black that turns white in one of four pixels changes by sqrt(1/4); the mean is over draws."""
    frozen, redrawn = np.zeros((2, 1, 2, 2), np.uint8), np.zeros((2, 3, 1, 2, 2), np.uint8)
    assert pixel_change(frozen, redrawn) == 0
    redrawn[0, :, 0, 0, 0] = 255
    assert pixel_change(frozen, redrawn) == pytest.approx(0.25)


@pytest.mark.slow
def test_feature_change_is_a_distance(tmp_path: Path, small_inception: Path) -> None:
    """Equal images are at 0; others at the mean distance of their own features."""
    (tmp_path / small_inception.name).symlink_to(small_inception)
    network = open_network(find_extractor(tmp_path, download=False), ("768",), CPU)
    images = data.load("photos").images[:8]
    frozen, redrawn = images[:2], images[2:].reshape(2, 3, 3, 32, 32)
    assert feature_change(network, frozen, np.repeat(frozen[:, None], 3, axis=1)) == pytest.approx(0, abs=1e-6)
    features = network(torch.from_numpy(np.array(images)))["768"].double()
    distances = [(features[2 + i] - features[i // 3]).norm() for i in range(6)]
    assert feature_change(network, frozen, redrawn) == pytest.approx(float(sum(distances)) / 6, rel=1e-5)


def test_the_kl_is_the_mean_over_the_images(rows: Rows) -> None:
    """Each layer's row is its own KL, of the very images and draws that are told; the same again stores nothing."""
    model, held_out = model_of(), dataclasses.replace(rows.session.dataset, split="test")
    for _ in range(2):
        rows.fill([representation.divergence(rows, model, held_out)])
    assert rows.added == 3
    chosen = representation.posterior_indices(1797, 1000)
    x = torch.from_numpy(np.array(held_out.images[chosen])) / 127.5 - 1
    with torch.no_grad():
        kl = model.backbone.posterior(x, PerImageNoise("posterior", chosen)).kl
    for name, layer in zip(("z3", "z2", "z1"), kl, strict=True):
        reference = f"digits/test, 1000 images, sha256:{held_out.digest[:12]}"
        row = rows.find(Wanted("kl", Of("posterior", name), 1000, reference=reference))
        assert row is not None
        assert row.value == pytest.approx(float(layer.mean()), rel=1e-4)


def test_a_two_sample_test_takes_each_image_once(rows: Rows, tmp_path: Path) -> None:
    """Breaks if a classifier were scored on posterior latents of images that it learned from: 2,500 are of 1,797."""
    draws = {source: Draw(lambda: iter(()), 2_500) for source in ("gaussian-prior", "ebm-prior", "posterior")}
    samples = SampleSets(draws, tmp_path, SILENT)
    parts = [*SampleMetrics(rows, samples).told_apart(Of("ebm-prior"), slice(None))]
    parts += judged_latents(rows, samples, ((2,), (3,), (4,)))
    asked = [wanted for part in parts for wanted in part.wanted]
    assert {wanted.metric for wanted in asked} >= {"latent_auc", "fitted_auc", "fitted_auc_halves"}
    assert {wanted.images for wanted in asked} == {1_797}


def test_training_images_judge_no_classifier(rows: Rows) -> None:
    """Without a test split or without classes there is no accuracy, and it is said why."""
    rows.fill(representation.separation(rows, model_of(), rows.session.dataset))
    assert rows.session.missing["latent_accuracy"].reason == "digits has no test split here"
    rows.session.missing.clear()
    rows.session.dataset = dataclasses.replace(rows.session.dataset, labels=None)
    rows.fill(representation.separation(rows, model_of(), rows.session.dataset))
    assert rows.session.missing["latent_accuracy"].reason == "digits has no classes"
    assert rows.added == 0


@pytest.mark.slow
def test_the_change_of_one_layer(rows: Rows) -> None:
    """Rows of the prior that was sampled, each of the images in which that layer alone was drawn anew."""
    model = model_of()
    rows.fill(representation.change(rows, model, None))
    assert rows.added == 3, "no features: these images are not judged"
    changes = []
    for seed in range(8):
        eps = hierarchy.frozen_noise(model, seed, None)
        with torch.no_grad():
            frozen = model.backbone.decode(model.pushed(eps)).mean[0]
        frozen = ((frozen + 1) * 127.5).round().clamp(0, 255).numpy()
        drawn = gathered(hierarchy.resample(model, eps, [2], range(100 * seed, 100 * seed + 100), None))
        changes.append(np.sqrt((((drawn - frozen) / 255) ** 2).mean()))
    row = rows.find(Wanted("pixel_change", Of("gaussian-prior", "z1"), 800))
    assert row is not None
    assert row.value == pytest.approx(np.mean(changes), rel=1e-3)
    rows.fill(representation.change(rows, model, ONE.prior_chain))
    assert rows.find(Wanted("pixel_change", Of("ebm-prior", "z1"), 800)) is not None


def test_latents_and_kl_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Image i is encoded with noise of its own number, whatever is encoded beside it."""
    images, model = data.load("digits").images, model_of()
    whole, kl = encoded(model, images, range(20))
    monkeypatch.setattr(representation, "BATCH", 7)
    parts, again = encoded(model, images, range(20))
    for one, other in zip((*whole, kl), (*parts, again), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_samples_are_drawn_once(tmp_path: Path) -> None:
    """Breaks if hours of sampling were drawn again after a kill, or samples of other weights or numbers were taken."""
    drawn = []

    def batches(value: int, count: int) -> Iterator[Samples]:
        drawn.append(value)
        yield Samples(torch.full((count, 1, 2, 2), value, dtype=torch.uint8), (torch.zeros(count, 3),))

    def samples(value: int, made: dict[str, int] | None, count: int = 4) -> SampleSets:
        return SampleSets({"ebm-prior": Draw(lambda: batches(value, count), count)}, tmp_path, SILENT, made=made)

    for value, made, count, found in (
        (1, {"seed": 1}, 4, 1),
        (2, {"seed": 1}, 4, 1),  # the same subject: as they were drawn
        (3, {"seed": 2}, 4, 3),
        (4, {"seed": 2}, 5, 4),
        (5, None, 5, 5),  # nobody knows what they follow from
        (6, {"seed": 2}, 5, 6),
    ):
        one = samples(value, made, count)
        assert (one["ebm-prior"].images.shape, one["ebm-prior"].images.max()) == ((count, 1, 2, 2), found)
        assert one.seconds["ebm-prior"] >= 0
    assert drawn == [1, 3, 4, 5, 6]
    (tmp_path / "ebm-prior.json").write_text("{")
    assert samples(7, {"seed": 2}, 5)["ebm-prior"].images.max() == 7
