"""fid768 of 1,000 images against 10,000 CIFAR-10 training images, and the development split of the exploration."""
import os
from pathlib import Path

import numpy as np
import torch

from jlebm.data import load, writable_cache
from jlebm.evaluation import fidelity, find_extractor
from jlebm.progress import SILENT

ROOT = Path(os.environ.get("JLEBM_DATA", "data"))
COUNT, REFERENCE = 1_000, 10_000


def dataset():
    return load("cifar10", ROOT)


def held_out(total: int = 50_000, count: int = COUNT) -> np.ndarray:
    """Indices of the images whose posteriors are judged: between the reference's images, and never trained on."""
    return np.array([(2 * index + 1) * total // (2 * count) for index in range(count)])


def fid768(images: np.ndarray, reference) -> float:
    """Return fid768 of uint8 images (count, 3, 32, 32)."""
    extractor, cache = find_extractor(ROOT, False, SILENT), writable_cache(ROOT)
    score = fidelity.evaluate(
        images, reference, extractor, cache, torch.device("cpu"), metrics=["fid768"], reference_images=REFERENCE
    )[0]
    return float(score.value)


if __name__ == "__main__":
    import time

    torch.set_num_threads(1)
    data = dataset()
    begun = time.monotonic()
    print("held-out images themselves", fid768(np.array(data.images)[held_out()], data), time.monotonic() - begun)
    begun = time.monotonic()
    print("again", fid768(np.array(data.images)[held_out()], data), time.monotonic() - begun)
