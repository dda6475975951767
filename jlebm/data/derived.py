"""Datasets derived from another one's images, with their own names and digests but without files."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from jlebm.data.catalogue import entry_of
from jlebm.data.loading import Dataset, load
from jlebm.errors import UserError
from jlebm.progress import SILENT, Reporter

FOLDS = 5  # a dataset without a test split holds out one part in so many


def without(dataset: Dataset, label: int) -> Dataset:
    """Return the dataset without one class, named like "mnist-without-1".

    Raises:
        UserError: the dataset has no labels, or no image of that class.
    """
    if dataset.labels is None:
        raise UserError(f"{dataset.name} ({dataset.split}) has no labels, so no class of it can be left out")
    kept = np.flatnonzero(dataset.labels != label)
    if len(kept) == len(dataset.images):
        known = ", ".join(map(str, np.unique(dataset.labels)))
        raise UserError(f"{dataset.name} has no class {label} that could be held out; its classes are {known}")
    return _chosen(dataset, kept, f"{dataset.name}-without-{label}", f"without class {label}")


def every(dataset: Dataset, part: int, inverted: bool = False) -> Dataset:
    """Return the images whose index is a multiple of `part`, or with `inverted` all others, under the same name."""
    taken = (np.arange(len(dataset.images)) % part == 0) != inverted
    words = f"each {part}th" if not inverted else f"all but each {part}th"
    return _chosen(dataset, np.flatnonzero(taken), dataset.name, words)


def held_out(
    name: str, root: Path | None = None, download: bool = True, report: Reporter = SILENT
) -> tuple[Dataset, Dataset]:
    """Load a dataset as training images and held-out images, in this order; no image is in both.

    Held out is the test split or, for a dataset without one, every fifth image.

    Raises:
        UserError: as in `load`.
    """
    if "test" in entry_of(name, "train").splits:
        train, test = (load(name, root, split, download, report) for split in ("train", "test"))
        return train, test
    whole = load(name, root, download=download, report=report)
    return every(whole, FOLDS, inverted=True), replace(every(whole, FOLDS), split="test")


def _chosen(dataset: Dataset, indices: np.ndarray, name: str, words: str) -> Dataset:
    images = dataset.images[indices]
    images.flags.writeable = False
    digest = hashlib.sha256()
    for image in images:
        digest.update(image.transpose(1, 2, 0).tobytes())
    labels = None if dataset.labels is None else dataset.labels[indices]
    return Dataset(name, dataset.split, images, labels, digest.hexdigest(), f"{dataset.origin}, {words}")
