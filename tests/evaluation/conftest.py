"""A small network in Inception's place where its features do not matter, and Inception with made-up weights."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from jlebm.data import Dataset
from jlebm.evaluation import feature_files, fidelity, reference
from jlebm.evaluation.extractor import LAYERS, Extractor
from jlebm.evaluation.inception import Network
from tests.inception import partial_weights, random_state, random_weights, small_inception, small_statistics

__all__ = ["partial_weights", "random_state", "random_weights", "small_inception", "small_statistics"]


class SmallNetwork(Network):
    """Linear features of the pixels under the names of Inception's layers, to test what is done with features."""

    dimensions = {"768": 12, "2048": 20, "logits_unbiased": 10}  # noqa: RUF012
    opened = 0
    passed = 0
    fails_after: int | None = None

    def __init__(self, extractor: Extractor, layers: Sequence[str], device: torch.device):
        type(self).opened += 1
        self.layers, self.device, self.batch_size = layers, device, 7

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Project the pixels, or be interrupted."""
        if self.fails_after is not None and self.passed >= self.fails_after:
            raise KeyboardInterrupt
        type(self).passed += len(images)
        pixels = images.flatten(1).float() / 255
        features = {}
        for layer in self.layers:
            generator = torch.Generator().manual_seed(self.dimensions[layer])
            projection = torch.randn(pixels.shape[1], self.dimensions[layer], generator=generator)
            features[layer] = pixels @ projection / 5
        return features


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch) -> type[SmallNetwork]:
    """Put the small network in Inception's place, with needs to match."""

    class Counted(SmallNetwork):
        pass

    for module in (feature_files, fidelity, reference):
        monkeypatch.setattr(module, "open_network", Counted)
    monkeypatch.setattr(reference, "KEPT_DIMENSION", Counted.dimensions["2048"])
    monkeypatch.setattr(feature_files, "DIMENSION", Counted.dimensions["768"])
    return Counted


@pytest.fixture
def extractor() -> Extractor:
    return Extractor(Path("some-weights.pth"), "0" * 64, LAYERS)


@pytest.fixture
def make_dataset() -> Callable[..., Dataset]:
    """Noise images by count and seed."""

    def make(count: int, seed: int = 0, channels: int = 3, size: int = 4) -> Dataset:
        images = np.random.default_rng(seed).integers(0, 256, (count, channels, size, size), np.uint8)
        return Dataset("noise", "train", images, None, f"{seed:064x}", "made in a test")

    return make
