import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from jlebm.errors import UserError
from jlebm.evaluation.extractor import LAYERS, find_extractor, open_extractor
from jlebm.evaluation.inception import features_of, fixed_images, open_network, self_check

CPU = torch.device("cpu")


@pytest.mark.slow
def test_features_are_torch_fidelitys_own(random_weights: Path) -> None:
    """Breaks if the resize, batch norm's folding, the layout or the order of layers changes a feature by 1e-5."""
    upstream = FeatureExtractorInceptionV3("upstream", list(LAYERS), str(random_weights))
    network = open_network(open_extractor(random_weights), LAYERS, CPU)
    generator = torch.Generator().manual_seed(0)
    for shape in ((3, 32, 32), (1, 28, 28), (3, 64, 48), (3, 320, 64)):
        images = torch.randint(0, 256, (2, *shape), dtype=torch.uint8, generator=generator)
        expected = upstream.convert_features_tuple_to_dict(upstream(images.expand(-1, 3, -1, -1)))
        features = network(images)
        assert features.keys() == expected.keys()
        for layer in LAYERS:
            assert expected[layer].std() > 1e-3
            assert (features[layer] - expected[layer]).norm() < 1e-5 * expected[layer].norm(), (layer, shape)


@pytest.mark.slow
def test_features_do_not_depend_on_the_batch(random_weights: Path) -> None:
    """Breaks if an image has other features beside other images: a metric would depend on the batch size."""
    network = open_network(open_extractor(random_weights), ["64", "768"], CPU)
    images = torch.from_numpy(fixed_images())
    together = network(images)
    for index in range(len(images)):
        for layer, features in network(images[index : index + 1]).items():
            torch.testing.assert_close(features[0], together[layer][index], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_batches_at_once_give_the_features_of_batches_in_turn(random_weights: Path) -> None:
    """Breaks if threads change a bit of a feature, the order or the start, or leave torch with another thread count."""
    network = open_network(open_extractor(random_weights), ["64"], CPU)
    network.batch_size = 2
    images = np.concatenate([fixed_images(), 255 - fixed_images()])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        at_once = list(features_of(network, images, start=1))
        assert torch.get_num_threads() == 3
        unfinished = features_of(network, images)
        next(unfinished)
        del unfinished  # a consumer that has seen enough
        assert torch.get_num_threads() == 3
        torch.set_num_threads(1)
        in_turn = list(features_of(network, images, start=1))
    finally:
        torch.set_num_threads(before)
    assert [first for first, _ in at_once] == [first for first, _ in in_turn] == [1, 3, 5, 7]
    for (_, mine), (_, theirs) in zip(at_once, in_turn, strict=True):
        assert torch.equal(mine["64"], theirs["64"])


@pytest.mark.slow
def test_an_error_in_a_batch_reaches_the_caller(random_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a thread swallows what went wrong, or waits for ever."""
    network = open_network(open_extractor(random_weights), ["64"], CPU)
    network.batch_size = 1
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        monkeypatch.setattr(network, "module", None)
        with pytest.raises(AttributeError):
            list(features_of(network, fixed_images()))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_one_channel_is_repeated_to_three(random_weights: Path) -> None:
    """Breaks if a grey image has other features than the same image with equal channels."""
    network = open_network(open_extractor(random_weights), ["64"], CPU)
    grey = torch.from_numpy(fixed_images()[:2, :1])
    torch.testing.assert_close(network(grey)["64"], network(grey.repeat(1, 3, 1, 1))["64"])


@pytest.mark.slow
def test_opening_a_network_draws_no_random_numbers(random_weights: Path) -> None:
    """Breaks if an evaluation changes what a training draws after it."""
    extractor = open_extractor(random_weights)
    before = torch.get_rng_state()
    open_network(extractor, ["64"], CPU)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_self_check_refuses_other_weights(random_weights: Path) -> None:
    """Breaks if an evaluation goes ahead with weights of the right shapes and wrong values."""
    with pytest.raises(UserError, match="not the Inception weights of 2015-12-05"):
        self_check(open_extractor(random_weights), CPU)


@pytest.mark.slow
def test_self_check_passes_the_official_weights(shared: Path, tmp_path: Path) -> None:
    """Breaks if the stored statistics, the fixed images or the arithmetic of the network change."""
    unpack = runpy.run_path(str(shared / "data" / "unpack.py"))
    unpack["inception"](tmp_path)
    extractor = find_extractor(tmp_path, download=False)
    assert extractor.layers == ("64", "192", "768")
    self_check(extractor, CPU)


def test_the_fixed_images_stay_as_they_are() -> None:
    """Breaks if the images whose statistics are stored change."""
    images = fixed_images()
    assert (images.shape, images.dtype) == ((4, 3, 32, 32), np.uint8)
    assert images[3, 2, 31, 30] == (37 * 3 + 59 * 2 + 3 * 900 + 5 * 4 * 31 + 30 * 31) % 256
