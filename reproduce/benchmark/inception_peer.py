"""The metric network beside pytorch-fid's, on the same weights; needs the extra `peers`."""

import importlib.util
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jlebm.evaluation import inception
from jlebm.evaluation.extractor import Extractor, find_extractor, unchanged_module
from jlebm.progress import Reporter
from reproduce.benchmark.part import Part, relative
from reproduce.benchmark.throughput import FEATURES, GOAL, INCEPTION, LAYER

METRIC = "Inception beside another library"
SETTING = f"pytorch-fid, {LAYER} features, {INCEPTION[1]}"


def missing(report: Reporter) -> bool:
    """Whether pytorch-fid is not installed; says so."""
    absent = importlib.util.find_spec("pytorch_fid") is None
    if absent:
        report.line("pytorch-fid is not timed: pytorch_fid cannot be imported (the extra peers)")
    return absent


def part(root: Path, device: torch.device) -> Part:
    """Return our network against pytorch-fid's, each with its own scaling and resizing of uint8 images.

    Both agree on the same 299x299 input. On small images they need not: pytorch-fid resizes otherwise than TensorFlow.

    Raises:
        ExtractorNotFound: the data root has no weights.
    """
    extractor = find_extractor(root, download=False)
    network = inception.open_network(extractor, (LAYER,), device)
    theirs = _theirs(extractor).to(device)
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 32, 32), dtype=np.uint8)

    def plain() -> Tensor:
        with torch.inference_mode():
            return theirs(torch.from_numpy(images).to(device).float() / 255)[0].mean((2, 3))

    def ours(some: np.ndarray = images) -> Tensor:
        return torch.cat([features[LAYER] for _, features in inception.features_of(network, some)])

    def agreement() -> float:
        large = np.random.default_rng(1).integers(0, 256, (2, 3, 299, 299), dtype=np.uint8)
        scaled = (torch.from_numpy(large).to(device).float() - 128) / 128  # as TensorFlow's network reads them
        with torch.inference_mode():
            return relative((ours(large),), (theirs((scaled + 1) / 2)[0].mean((2, 3)),))

    bound = "the convolutions' arithmetic"
    versions = {"pytorch-fid": version("pytorch-fid")}
    return Part(METRIC, SETTING, plain, ours, agreement, FEATURES, GOAL, None, bound=bound, versions=versions)


def _theirs(extractor: Extractor) -> torch.nn.Module:
    """Build pytorch-fid's network with the weights of a file instead of those that it downloads."""
    from pytorch_fid import inception as library  # pyright: ignore[reportMissingImports]

    state = unchanged_module(extractor, (LAYER,)).state_dict()
    download, library.load_state_dict_from_url = library.load_state_dict_from_url, lambda *_, **__: state
    try:
        return library.InceptionV3([library.InceptionV3.BLOCK_INDEX_BY_DIM[int(LAYER)]]).eval()
    finally:
        library.load_state_dict_from_url = download
