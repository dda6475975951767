"""The arrays behind the figures of a hierarchy: which layers a panel draws, what is kept, and what a column is."""

import dataclasses

import numpy as np
import pytest
import torch

from jlebm import hierarchy, sampling
from jlebm.data import Dataset, load
from jlebm.errors import UserError
from jlebm.langevin import Chain
from jlebm.sampling import gathered
from reproduce.pipelines.layer_panels import FROZEN, Pair, groups_of, layers, panel_names, reconstruction
from tests.small import ladder_experiment

CHAIN = Chain.from_two_stage_paper(5, 0.2)
DRAWS = 6


@pytest.fixture(scope="module")
def pair() -> Pair:
    """A ladder of three layers with energies that matter, and its twin of other weights."""
    torch.manual_seed(1)
    model, twin = (ladder_experiment(learning).build() for learning in ("variational", "gaussian"))
    with torch.no_grad():
        for parameter in model.energy.parameters():
            parameter.mul_(3.0)
    return Pair(model, CHAIN, twin, batch_size=4)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


def test_three_panels_from_the_bottom() -> None:
    """A layer in two panels or in none, or a panel order from the top, breaks it."""
    assert groups_of(2) == ((1,), (0,))
    assert groups_of(3) == ((2,), (1,), (0,))
    assert groups_of(7) == ((5, 6), (3, 4), (0, 1, 2))
    assert panel_names(2) == ["z1, bottom", "z2, top"]
    assert panel_names(4) == ["z1, bottom", "z2, middle", "z4 to z3, top"]
    for count in range(2, 40):
        assert sorted(sum(groups_of(count), ())) == list(range(count))
        assert len(panel_names(count)) == len(groups_of(count))


def test_a_single_layer_has_no_panels() -> None:
    """A hierarchy of one layer is refused with a sentence."""
    with pytest.raises(UserError, match="it needs two or more, not 1"):
        groups_of(1)


def test_a_panel_keeps_the_other_layers(pair: Pair) -> None:
    """Its images are those of noise of which all but the panel's layers are the frozen draw's, to the bit."""
    found = layers(pair, DRAWS)
    assert found["names"].tolist() == ["z1, bottom", "z2, middle", "z3, top"]
    for name, (model, chain) in zip(("panels", "twin"), pair.each(), strict=True):
        assert found[name].shape == (3, DRAWS, 1, 8, 8)
        eps = hierarchy.frozen_noise(model, FROZEN, chain)
        for images, group in zip(found[name], groups_of(3), strict=True):
            drawn = hierarchy.resampled(model, eps, group, range(DRAWS), chain)
            for index, (layer, frozen) in enumerate(zip(drawn, eps, strict=True)):
                kept = index not in group
                assert torch.equal(layer, frozen.expand_as(layer)) == kept
            again = sampling.decoded(model, model.pushed(drawn)).images.numpy()
            # The batches are others than the recipe's, and a pixel may be rounded to the level beside it.
            assert np.abs(again.astype(int) - images).max() <= 1
    assert (found["panels"] != found["twin"]).any()


def test_the_twin_runs_no_chain(pair: Pair) -> None:
    """The twin's panels are of its own Gaussian prior: another chain for the model leaves them as they are."""
    longer = dataclasses.replace(pair, chain=dataclasses.replace(CHAIN, steps=9))
    ours, theirs = layers(pair, DRAWS), layers(longer, DRAWS)
    np.testing.assert_array_equal(ours["twin"], theirs["twin"])
    assert (ours["panels"] != theirs["panels"]).any()


def test_columns_of_a_reconstruction(pair: Pair, digits: Dataset) -> None:
    """The image, its plain reconstruction, then less and less of it: at k = L an image of the prior alone."""
    found = reconstruction(pair, digits, rows=4)
    chosen = [int(number) for number in str(found["note"]).partition("numbers ")[2].split(", ")]
    assert str(found["note"]).startswith("training images, digits/train")
    for name, (model, chain) in zip(("images", "twin"), pair.each(), strict=True):
        assert found[name].shape == (4, 5, 1, 8, 8)
        np.testing.assert_array_equal(found[name][:, 0], digits.images[chosen])
        plain = gathered(sampling.reconstruct(model, digits.images, chosen, None, batch_size=4))
        np.testing.assert_array_equal(found[name][:, 1], plain)
        last = gathered(
            hierarchy.reconstruct_from(model, 255 - digits.images, chosen, hierarchy.PartialPosterior(3, chain), 4)
        )
        np.testing.assert_array_equal(found[name][:, -1], last, "nothing of the image is left")


def test_held_out_images_are_called_so(pair: Pair, digits: Dataset) -> None:
    """Training images that pass for held-out ones break it."""
    found = reconstruction(pair, dataclasses.replace(digits, split="test"), rows=1)
    assert str(found["note"]).startswith("held-out images, digits/test")


def test_a_chain_in_latents_is_refused(pair: Pair) -> None:
    """It cannot keep a layer relative to the layers above it."""
    with pytest.raises(UserError, match="in whitened noise"):
        layers(dataclasses.replace(pair, chain=Chain(3, 0.1)), DRAWS)
