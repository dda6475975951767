"""The catalogue of named datasets: the shape and number of their images, and their sources."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from jlebm.data import embedded
from jlebm.data.image_file import Shape
from jlebm.data.layouts import Layout, Lsun, Torchvision
from jlebm.errors import UserError, nearest

# sha256 of CIFAR-10's 50,000 training images, uint8 (50000, 32, 32, 3), in the order of the official batches.
CIFAR10_TRAIN = "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a"
# The same of the first 1,000 test images of CIFAR-10, and of the first 1,083 training images of SVHN.
CIFAR10_TEST1000 = "da362006b99671213d1a5d856cab2bedf64d40bad4501630ee60f4ceb2d3ec7f"
SVHN_FIRST1083 = "4bb768ab9111c02a5dc8fb453f09f9c05e79fac14cfab8ca8773d8473782ed1a"
# The same three in any order, by `jlebm.data.formats.digest_in_any_order`.
CIFAR10_TRAIN_SET = "6bebf6967ad9d2d12d9cf95f54164bd95a0954d3177f1285fa8dd3673671ca76"
CIFAR10_TEST1000_SET = "d0a7399b46aa16eede5d5c628d2031c066c18897212dd5c983d4e5a1ac80ddda"
SVHN_FIRST1083_SET = "3677bfcf21207f4e24021134c7fbc7a07f9df3f338a430d766f37f7374de6ee4"


@dataclass(frozen=True)
class Entry:
    """One dataset of the catalogue."""

    name: str
    shape: Shape  # (height, width, channels)
    splits: tuple[str, ...] = ("train", "test")
    counts: Mapping[str, int] = field(default_factory=dict)  # split -> official number of images, if any
    digests: Mapping[str, str] = field(default_factory=dict)  # split -> sha256 of the official pixels, if known
    sets: Mapping[str, str] = field(default_factory=dict)  # split -> digest of the official pixels in any order
    photographs: bool = False  # whether the originals are JPEG; lossy copies with a lossy suffix are then accepted
    layout: Layout | None = None  # a further source beside the zip and the folder
    embedded: Callable[[], tuple[np.ndarray, np.ndarray]] | None = None  # images and labels that need no files
    test_images: int = 0  # size of an embedded dataset's test split, its last images


def _mnist_layout(dataset: str) -> Torchvision:
    folder = f"{dataset}/raw/"
    return Torchvision(
        dataset,
        path={"train": folder, "test": folder},
        pattern={"train": f"{folder}train-*-ubyte", "test": f"{folder}t10k-*-ubyte"},
    )


CATALOGUE = {
    entry.name: entry
    for entry in (
        Entry(
            "cifar10",
            shape=(32, 32, 3),
            counts={"train": 50_000, "test": 10_000},
            digests={"train": CIFAR10_TRAIN},
            sets={"train": CIFAR10_TRAIN_SET},
            layout=Torchvision(
                "CIFAR10",
                path={"train": "cifar-10-batches-py/", "test": "cifar-10-batches-py/"},
                pattern={
                    "train": "cifar-10-batches-py/data_batch_*",
                    "test": "cifar-10-batches-py/test_batch",
                },
            ),
        ),
        Entry(
            "svhn",
            shape=(32, 32, 3),
            counts={"train": 73_257, "test": 26_032},
            layout=Torchvision(
                "SVHN",
                path={"train": "train_32x32.mat", "test": "test_32x32.mat"},
                pattern={"train": "train_32x32.mat", "test": "test_32x32.mat"},
            ),
        ),
        # Common subsets of the two, named for what they are, with one split each.
        Entry(
            "cifar10-test1000",
            shape=(32, 32, 3),
            splits=("train",),
            counts={"train": 1_000},
            digests={"train": CIFAR10_TEST1000},
            sets={"train": CIFAR10_TEST1000_SET},
        ),
        Entry(
            "svhn-first1083",
            shape=(32, 32, 3),
            splits=("train",),
            counts={"train": 1_083},
            digests={"train": SVHN_FIRST1083},
            sets={"train": SVHN_FIRST1083_SET},
        ),
        Entry(
            "mnist",
            shape=(28, 28, 1),
            counts={"train": 60_000, "test": 10_000},
            layout=_mnist_layout("MNIST"),
        ),
        Entry(
            "fashion-mnist",
            shape=(28, 28, 1),
            counts={"train": 60_000, "test": 10_000},
            layout=_mnist_layout("FashionMNIST"),
        ),
        Entry("celeba64", shape=(64, 64, 3), photographs=True),
        Entry("church64", shape=(64, 64, 3), photographs=True, layout=Lsun("church_outdoor", 64)),
        Entry("celebahq256", shape=(256, 256, 3), photographs=True),
        Entry("digits", shape=(8, 8, 1), splits=("train",), embedded=embedded.digits),
        Entry("digits28", shape=(28, 28, 1), embedded=embedded.digits28, test_images=297),
        Entry("photos", shape=(32, 32, 3), splits=("train",), embedded=embedded.photos),
        Entry("photos64", shape=(64, 64, 3), splits=("train",), embedded=embedded.photos64),
        Entry("photos256", shape=(256, 256, 3), splits=("train",), embedded=embedded.photos256),
    )
}


def entry_of(name: str, split: str) -> Entry:
    """Look up a dataset in the catalogue.

    Raises:
        UserError: there is no dataset of that name, or it has no such split.
    """
    if name not in CATALOGUE:
        raise UserError(f"there is no dataset {name!r}{nearest(name, CATALOGUE)}")
    entry = CATALOGUE[name]
    if split not in entry.splits:
        raise UserError(f"{name} has no split {split!r}; it has: {', '.join(entry.splits)}")
    return entry
