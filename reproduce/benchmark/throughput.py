"""Parts without latents: loading batches of images, and the metric network."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from jlebm.evaluation import inception
from jlebm.evaluation.extractor import find_extractor, unchanged_module
from jlebm.images import to_float
from jlebm.training import Batches
from reproduce.benchmark.part import SEED, Part, relative

FEATURES = 1e-4  # the budget that torch-fidelity declares for its float32 features
BATCHES = ("ten batches of training images", "10 x 100 of 32x32")  # metric and setting
LAYER = "768"  # the deepest layer in every weights file, so that all machines time the same network
INCEPTION = (f"Inception, {LAYER} features", "64 images of 32x32")
GOAL = {"cpu": 2.4}  # of the metric network, beside torch-fidelity and pytorch-fid


def data_part(device: torch.device) -> Part:
    """Return the loading of batches of 100 images: from uint8 on the device, against torch's loader of PIL images."""
    images = np.random.default_rng(0).integers(0, 256, (1000, 3, 32, 32), dtype=np.uint8)
    half = [0.5] * 3
    transform = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(half, half)])
    to_pil = v2.ToPILImage()

    class Images(Dataset):
        """Dataset like torchvision's own: an array, its PIL image, the transforms."""

        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> Tensor:
            return transform(to_pil(torch.from_numpy(images[index])))

    batches = Batches(images, 100, SEED, device)
    loader = DataLoader(Images(), 100, shuffle=True)

    def agreement() -> float:
        theirs = torch.stack([Images()[index] for index in range(100)])
        return relative((to_float(torch.from_numpy(images[:100])),), (theirs,))

    return Part(
        *BATCHES,
        lambda: [batch.to(device) for batch in loader],
        lambda: [batches(step) for step in range(10)],
        agreement,
        1e-6,  # both compute exactly, up to the last digit of float32
        {},
        None,
    )


def inception_part(root: Path, device: torch.device) -> Part:
    """Return the metric network: ours against torch-fidelity's unchanged module, at its default batch size.

    Raises:
        ExtractorNotFound: the data root has no weights.
    """
    extractor = find_extractor(root, download=False)
    network = inception.open_network(extractor, (LAYER,), device)
    module = unchanged_module(extractor, (LAYER,)).to(device)
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 32, 32), dtype=np.uint8)

    def plain() -> Tensor:
        with torch.inference_mode():
            return module(torch.from_numpy(images).to(device))[0]

    def counted() -> Tensor:
        # The same convolutions without inference mode, in which the counter would not see them.
        with torch.no_grad():
            return module(torch.from_numpy(images).to(device))[0]

    def ours() -> Tensor:
        return torch.cat([features[LAYER] for _, features in inception.features_of(network, images)])

    return Part(
        *INCEPTION,
        plain,
        ours,
        lambda: relative((ours(),), (plain(),)),
        FEATURES,
        GOAL,
        counted,
        bound="the convolutions' arithmetic",
    )
