"""Datasets derived from another one's images, with their own names and digests but without files."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64

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
    return chosen(dataset, kept, f"{dataset.name}-without-{label}", f"without class {label}")


def every(dataset: Dataset, part: int, inverted: bool = False) -> Dataset:
    """Return the images whose index is a multiple of `part`, or with `inverted` all others, under the same name."""
    taken = (np.arange(len(dataset.images)) % part == 0) != inverted
    words = f"each {part}th" if not inverted else f"all but each {part}th"
    return chosen(dataset, np.flatnonzero(taken), dataset.name, words)


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


def pooled(parts: Sequence[Dataset]) -> Dataset:
    """Return the images of several splits of one dataset one after the other, as the split "pooled".

    Raises:
        UserError: the parts are of several datasets, have images of several sizes, or some of them alone have labels.
    """
    names, shapes = {part.name for part in parts}, {part.images.shape[1:] for part in parts}
    labels = [part.labels for part in parts]
    known = [each for each in labels if each is not None]
    if len(names) != 1 or len(shapes) != 1 or 0 < len(known) < len(labels):
        raise UserError(f"only splits of one dataset make a pool, not those of {', '.join(sorted(names)) or 'none'}")
    whole = Dataset(
        parts[0].name,
        "pooled",
        np.concatenate([part.images for part in parts]),
        np.concatenate(known) if known else None,
        "",
        " and ".join(part.origin for part in parts),
    )
    return chosen(whole, np.arange(len(whole.images)), whole.name, f"{len(parts)} splits pooled")


def chosen(dataset: Dataset, indices: Int64[np.ndarray, " kept"], name: str, words: str) -> Dataset:
    """Return some images of a dataset, in this order, with their labels and a digest of their own.

    Args:
        dataset: whose images.
        indices: which, each at most once.
        name: of the result.
        words: what is chosen, for its origin.
    """
    images = dataset.images[indices]
    images.flags.writeable = False
    digest = hashlib.sha256()
    for image in images:
        digest.update(image.transpose(1, 2, 0).tobytes())
    labels = None if dataset.labels is None else dataset.labels[indices]
    return Dataset(name, dataset.split, images, labels, digest.hexdigest(), f"{dataset.origin}, {words}")
