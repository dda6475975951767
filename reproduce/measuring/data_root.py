"""Datasets of a command: loaded from the data root, replaced by embedded ones for a first look."""

from dataclasses import dataclass
from pathlib import Path

from jlebm.data import CATALOGUE, Dataset, DatasetNotFound, load
from jlebm.data.catalogue import entry_of
from jlebm.engines import parallel
from jlebm.progress import Reporter


@dataclass(frozen=True)
class DataRoot:
    """Where a command finds datasets and Inception weights."""

    folder: Path | None
    """None for $JLEBM_DATA or the user's cache folder."""
    download: bool
    """Whether missing files may be downloaded."""
    report: Reporter

    def load(self, name: str, split: str = "train") -> Dataset:
        """Load one split of a dataset.

        Raises:
            DatasetNotFound: neither the data root nor a download has it.
        """
        return load(name, self.folder, split, self.download, self.report)


def loaded(root: DataRoot, name: str, chosen: str | None, fallback: str | None) -> Dataset:
    """Load the dataset chosen on the command line, else the recipe's own, else the embedded fallback.

    Raises:
        UserError: the dataset cannot be found, and it was chosen or has no fallback.
    """

    def found() -> Dataset:
        try:
            return root.load(chosen or name)
        except DatasetNotFound as missing:
            if chosen is not None or fallback is None:
                raise
            root.report.line(f"{missing}")
            root.report.line(
                f"{name} was not found: this tiny run uses the embedded {fallback!r}; rows carry that name"
            )
            return load(fallback)

    return parallel.after_first(found)


def unseen(root: DataRoot, dataset: Dataset) -> Dataset:
    """Return the test split of a dataset, or the training images if it has none, which is reported."""

    def found() -> Dataset:
        why = f"{dataset.name} has no test split"
        if "test" in CATALOGUE[dataset.name].splits:
            try:
                return root.load(dataset.name, "test")
            except DatasetNotFound as missing:
                why = f"{missing}"
        root.report.line(f"{why}: training images are used as held-out images")
        return dataset

    return parallel.after_first(found)


def not_trained_on(root: DataRoot, name: str) -> Dataset:
    """Return the test split of a dataset, or all of one that has none, such as cifar10-test1000.

    Raises:
        UserError: there is no such dataset.
        DatasetNotFound: neither the data root nor a download has it.
    """

    def found() -> Dataset:
        return root.load(name, "test" if "test" in entry_of(name, "train").splits else "train")

    return parallel.after_first(found)
