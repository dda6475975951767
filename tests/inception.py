"""Inception with made-up weights: what the tests of the evaluation share, and a data root to run a recipe with."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from jlebm.evaluation import inception
from jlebm.evaluation.extractor import PARTIAL_WEIGHTS, open_extractor
from jlebm.evaluation.fidelity import NEEDS
from jlebm.evaluation.inception import fixed_images, open_network

SMALL_INPUT = 75  # pixels that images are resized to, instead of 299: the least that the network takes


class Unloaded(FeatureExtractorInceptionV3):
    """The module with the weights that its constructor draws."""

    def load_state_dict(self, *args, **kwargs) -> None:
        """Load nothing."""


@pytest.fixture(scope="session")
def random_state() -> dict[str, torch.Tensor]:
    """Weights in which every layer and every part of batch norm matters."""
    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Unloaded("random", ["64"], nothing)
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight)
            elif isinstance(part, nn.BatchNorm2d):
                for tensor in (part.weight, part.running_var):
                    nn.init.uniform_(tensor, 0.8, 1.2)
                for tensor in (part.bias, part.running_mean):
                    nn.init.normal_(tensor, std=0.1)
    return module.state_dict()


@pytest.fixture(scope="session")
def random_weights(random_state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(random_state, path)
    return path


def nan_from(state: dict[str, torch.Tensor], prefixes: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Spoil the weights whose names begin with one of `prefixes`."""
    return {
        key: torch.full_like(value, torch.nan) if key.startswith(prefixes) and value.is_floating_point() else value
        for key, value in state.items()
    }


@pytest.fixture(scope="session")
def partial_weights(random_state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that is exact up to the 768 layer, under its name."""
    path = tmp_path_factory.mktemp("weights") / PARTIAL_WEIGHTS
    torch.save(nan_from(random_state, ("Mixed_7", "fc")), path)
    return path


@pytest.fixture(scope="session")
def small_statistics(partial_weights: Path) -> tuple[float, float]:
    """Mean and norm of the 768 features of the fixed images under the made-up weights, from small inputs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "INPUT_IMAGE_SIZE", SMALL_INPUT)
        network = open_network(open_extractor(partial_weights), ("768",), torch.device("cpu"))
        features = network(torch.from_numpy(fixed_images()))["768"].double()
    return features.mean().item(), features.norm().item()


@pytest.fixture
def small_inception(
    partial_weights: Path, small_statistics: tuple[float, float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Path:
    """Give weights to link into a data root, under the same name, and let an evaluation with them be quick.

    Finding, checking and running the network stay as they are. It sees small inputs, the self-check expects these
    weights, and `fid768` is taken from the 64 layer of 50 images at least. No weights of torch hub are seen.
    """
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(FeatureExtractorInceptionV3, "INPUT_IMAGE_SIZE", SMALL_INPUT)
    for name, value in zip(("EXPECTED_MEAN", "EXPECTED_NORM"), small_statistics, strict=True):
        monkeypatch.setattr(inception, name, value)
    monkeypatch.setitem(NEEDS, "fid768", replace(NEEDS["fid768"], layer="64", images=50))
    return partial_weights
