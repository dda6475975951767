"""Library layouts of a data root: torchvision's files, which it downloads, and LSUN's LMDB."""

import contextlib
import http.client
import io
import socket
import tarfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from jlebm.data.database import count_entries, entries
from jlebm.data.formats import ImageSource, source_of_arrays
from jlebm.data.image_file import decode_photograph
from jlebm.errors import UserError
from jlebm.files import cannot_read, open_regular
from jlebm.progress import Reporter

PATIENCE = 15.0  # seconds that a server may be silent

# Errors that torchvision raises for files that are missing, cut short or fail their checksum, and for failed downloads.
UNREADABLE_FILES = (OSError, RuntimeError, ValueError, TypeError, AssertionError, EOFError, KeyError)
FAILED_DOWNLOAD = (*UNREADABLE_FILES, http.client.HTTPException, tarfile.TarError)


class DownloadError(Exception):
    """A download failed; the message is the reason."""


@runtime_checkable
class Layout(Protocol):
    """The protocol of a set of files in a data root that form a dataset."""

    def what(self, split: str) -> str:
        """Name the files to put into the data root."""
        ...

    def files(self, root: Path, split: str) -> list[Path]:
        """List the files of a split in the data root; empty if the layout is missing."""
        ...

    def open(self, root: Path, split: str) -> ImageSource:
        """Open a split; raises UserError if its files are damaged."""
        ...

    def download(self, root: Path, split: str, report: Reporter) -> None:
        """Download the split's files into the data root; raises DownloadError."""
        ...


@dataclass(frozen=True)
class Torchvision:
    """A dataset class of torchvision and its files."""

    dataset: str  # the class in torchvision.datasets
    path: Mapping[str, str]  # split -> file, or folder with a final slash, in the data root
    pattern: Mapping[str, str]  # split -> its files, as a glob in the data root

    def what(self, split: str) -> str:
        """Name the files to put into the data root."""
        return f"torchvision's {self.path[split]}"

    def files(self, root: Path, split: str) -> list[Path]:
        """List the files of a split; empty if there are none."""
        return matching(root, self.pattern[split])

    def open(self, root: Path, split: str) -> ImageSource:
        """Read a split through torchvision.

        Raises:
            UserError: the files may not be read, or are not torchvision's.
        """
        place = root / self.path[split]
        for file in self.files(root, split):
            with open_regular(file):  # an unreadable file is not called damaged
                pass
        construct = self._constructor(root, split)
        try:
            with _quiet():
                dataset = construct(download=False)
            images = _channels_last(np.asarray(dataset.data))
            labels = np.asarray(dataset.labels if self.dataset == "SVHN" else dataset.targets).astype(np.int64)
            if labels.shape != (len(images),) or images.ndim != 4 or images.size == 0:
                raise ValueError("as many labels as images are needed")
        except UNREADABLE_FILES as error:
            raise UserError(
                f"{place} is incomplete or not what torchvision's {self.dataset} expects; "
                "remove it and copy or download it again"
            ) from error
        return source_of_arrays(images, labels, str(place))

    def download(self, root: Path, split: str, report: Reporter) -> None:
        """Let torchvision download the files and check them.

        Raises:
            DownloadError: no network, a server that does not answer, a checksum that differs, a full disk.
        """
        report.line(f"downloading {self.dataset} with torchvision into {root}")
        construct = self._constructor(root, split)
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(PATIENCE)  # torchvision sets no timeout, and would wait for minutes
        try:
            with _quiet():
                construct(download=True)
        except FAILED_DOWNLOAD as error:
            raise DownloadError(_reason(error)) from error
        finally:
            socket.setdefaulttimeout(before)

    def _constructor(self, root: Path, split: str) -> Any:
        import torchvision.datasets  # imported here: it takes seconds, which an already decoded dataset need not spend

        which = {"split": split} if self.dataset == "SVHN" else {"train": split == "train"}
        return partial(getattr(torchvision.datasets, self.dataset), root=root, **which)


@dataclass(frozen=True)
class Lsun:
    """An LMDB of an LSUN category, each image cropped to its central square and reduced to `side` pixels.

    The order is that of the database's keys, as in `torchvision.datasets.LSUN`. The class itself is not used:
    it keeps the keys in a pickle in the working directory, under a name that two databases can share.
    """

    category: str  # e.g. "church_outdoor"
    side: int  # pixels

    def what(self, split: str) -> str:
        """Name the files to put into the data root."""
        return f"LSUN's {self._folder(split)}/"

    def files(self, root: Path, split: str) -> list[Path]:
        """List the database's file; empty if it is missing."""
        return matching(root, f"{self._folder(split)}/data.mdb")

    def open(self, root: Path, split: str) -> ImageSource:
        """Open the database.

        Raises:
            UserError: the `lmdb` package is not installed, or the database is damaged or empty.
        """
        path = root / self._folder(split)
        count = count_entries(path)
        if count == 0:
            raise UserError(f"{path} holds no images; copy or download it again")
        return ImageSource(str(path), count, (self.side, self.side, 3), None, lambda: self._stream(path))

    def download(self, root: Path, split: str, report: Reporter) -> None:
        """Refuse, since torchvision has no download of LSUN."""
        raise DownloadError("torchvision has no download of LSUN")

    def _folder(self, split: str) -> str:
        return f"{self.category}_{'val' if split == 'test' else 'train'}_lmdb"

    def _stream(self, path: Path) -> Iterator[tuple[str, np.ndarray]]:
        for key, data in entries(path):
            name = key.decode(errors="replace")
            yield name, decode_photograph(data, name, path, self.side)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress torchvision's warnings, prints and progress bars."""
    sink = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        warnings.simplefilter("ignore")
        yield


def _channels_last(images: UInt8[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Transpose torchvision's arrays, whose order differs by dataset, to (count, height, width, channels)."""
    if images.ndim == 3:  # MNIST: (count, height, width)
        return images[..., np.newaxis]
    return images.transpose(0, 2, 3, 1) if images.ndim == 4 and images.shape[1] == 3 else images  # SVHN: channels first


def matching(root: Path, pattern: str) -> list[Path]:
    """List the files of a folder in a data root by a pattern; empty if there is no such folder.

    Raises:
        UserError: the folder may not be read, which `Path.glob` treats as empty.
    """
    folder = (root / pattern).parent
    try:
        return sorted(path for path in folder.iterdir() if path.match(pattern))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise cannot_read(folder, error) from error


def _reason(error: BaseException) -> str:
    """Return the last line of an error: torchvision lists the mirrors that it tried before."""
    lines = str(error).strip().splitlines()
    return lines[-1].rstrip(".") if lines else type(error).__name__
