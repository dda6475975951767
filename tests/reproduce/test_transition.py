"""Langevin transitions: where they start, what each image is of, that nothing long is kept, the numbers along them."""

import dataclasses
import weakref

import numpy as np
import pytest
import torch

from jlebm import sampling
from jlebm.model import JointModel
from jlebm.randomness import PerImageNoise
from jlebm.sampling import gathered
from reproduce.pipelines.transition import Watched, diversity, drifts, saturated, transition
from reproduce.presets.extents import Length
from tests.reproduce.test_hierarchical import CHAIN
from tests.small import IMAGES, ladder_experiment

SHORT, LONG = Length(6, 2, 3, 5), Length(20, 5, 4, 4)


@pytest.fixture(scope="module")
def model() -> JointModel:
    torch.manual_seed(1)
    return ladder_experiment().build()


@pytest.fixture(scope="module")
def seen(model: JointModel) -> dict[str, np.ndarray]:
    return transition(model, CHAIN, IMAGES, SHORT, LONG)


def test_it_begins_as_a_draw_of_the_gaussian_prior(model: JointModel, seen: dict[str, np.ndarray]) -> None:
    """The first image of a chain is what the Gaussian prior's noise of its number decodes to, with that energy."""
    for name, length in (("short", SHORT), ("long", LONG)):
        plain = gathered(sampling.generate(model, "gaussian-prior", range(length.chains), sampling.Sampler(CHAIN)))
        np.testing.assert_array_equal(seen[f"{name}_images"][:, 0], plain[:3])
        z = model.sample_gaussian(length.chains, PerImageNoise("sample", range(length.chains)))
        np.testing.assert_allclose(seen[f"{name}_energy"][0], model.energies(z).numpy(), rtol=2e-3, atol=1e-4)


def test_each_image_is_of_its_step(model: JointModel, seen: dict[str, np.ndarray]) -> None:
    """Image number n of a chain is the sample that a chain of n times `every` steps ends at; so is the last energy."""
    for name, length in (("short", SHORT), ("long", LONG)):
        assert seen[f"{name}_images"].shape == (3, length.images, 1, 8, 8)
        assert seen[f"{name}_energy"].shape == (length.steps + 1, length.chains, 3)
        for number in range(length.images):
            chain = dataclasses.replace(CHAIN, steps=number * length.every)
            ended = gathered(sampling.generate(model, "ebm-prior", range(length.chains), sampling.Sampler(chain)))
            np.testing.assert_array_equal(seen[f"{name}_images"][:, number], ended[:3])
        whole = dataclasses.replace(CHAIN, steps=length.steps)
        z = model.sample_prior(length.chains, whole, PerImageNoise("sample", range(length.chains)))
        np.testing.assert_allclose(seen[f"{name}_energy"][-1], model.energies(z).numpy(), rtol=2e-3, atol=1e-4)


def test_no_latents_are_kept(model: JointModel) -> None:
    """A position that outlives its step, which 2,500 times would fill the memory, breaks it."""
    start = model.sample_gaussian(4, PerImageNoise("sample", range(4)))
    watched, alive = Watched(model, start, LONG), []

    def observe(index, position, info) -> None:
        watched(index, position, info)
        alive.extend(weakref.ref(layer) for layer in position)

    model.sample_prior(4, dataclasses.replace(CHAIN, steps=20), PerImageNoise("sample", range(4)), observe)
    assert len(alive) == 60
    assert not any(reference() is not None for reference in alive)
    assert len(watched.images) == LONG.images


def test_fewer_chains_where_memory_is_short(model: JointModel) -> None:
    """As many as are drawn at a time, and never fewer than the two that a diversity needs."""
    for batch_size, chains in ((3, 3), (1, 2)):
        found = transition(model, CHAIN, IMAGES, SHORT, LONG, batch_size)
        assert found["short_energy"].shape[1] == found["long_energy"].shape[1] == chains
        assert len(found["long_images"]) == chains


def test_along_the_long_chain(seen: dict[str, np.ndarray]) -> None:
    """A number for each image, and the data's own beside them; as many data images as there are chains."""
    assert seen["saturated"].shape == seen["diversity"].shape == (LONG.images,)
    assert float(seen["saturated_data"]) == pytest.approx(saturated(IMAGES), rel=1e-3)
    assert float(seen["diversity_data"]) == pytest.approx(diversity(IMAGES[::10]), rel=1e-3)
    assert [note.partition(":")[0] for note in seen["notes"]] == ["all layers", "z3", "z2", "z1"]


def test_saturated_and_diverse_by_hand() -> None:
    """Two of six levels lie within one of each end; the distances of black, black and white are 0, 1 and 1."""
    levels = np.array([0, 1, 2, 253, 254, 255], np.uint8).reshape(1, 1, 2, 3)
    assert saturated(levels) == pytest.approx(4 / 6)
    images = np.zeros((3, 1, 2, 2), np.uint8)
    images[2] = 255
    assert diversity(images) == pytest.approx(2 / 3)
    images[1, 0, 0, 0] = 255  # one of four pixels: sqrt(1/4) from black, sqrt(3/4) from white
    assert diversity(images) == pytest.approx((0.5 + 1 + np.sqrt(0.75)) / 3)


def test_the_drift_is_a_slope_in_standard_deviations() -> None:
    """Chains that are 2 apart and all rise by 3 a thousand steps; what comes before the burn-in is nothing."""
    offsets = np.array([-2.0, 0.0, 2.0])  # a standard deviation of 2
    steps = np.arange(501)[:, None]
    energy = (offsets + 3 * steps / 1000)[:, :, None]
    energy[:100] = 1e3
    assert drifts(energy)[1].startswith("z1: the energy drifts by +1.500 ± 0.000 standard deviations per 1,000 steps")
    assert "over steps 100 to 500 of 3 chains" in drifts(energy)[0]


def test_equal_chains_have_no_drift() -> None:
    """Energies that are all zero are said to be equal, and divide nothing by zero."""
    assert drifts(np.zeros((10, 3, 1)))[0] == "all layers: all chains have the same energy"


def test_energies_beyond_half_precision_stay_finite(model: JointModel) -> None:
    """Energies may become huge; an array that would overflow is kept in single precision."""
    steep = JointModel(model.backbone, ladder_experiment().build().energy)
    with torch.no_grad():
        for network in steep.energy.networks:
            network[-1].bias.add_(1e6)
    found = transition(steep, CHAIN, IMAGES, SHORT, LONG)
    assert found["long_energy"].dtype == np.float32
    assert np.isfinite(found["long_energy"]).all()
