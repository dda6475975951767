"""List a folder or a zip of images: the images in order, their labels, and the files left out and why.

No file is ignored silently. A file with an image's suffix is read, or refused by name; hidden files and other kinds of
files are left out and counted.
"""

import os
import posixpath
import zipfile
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from jlebm.data.image_file import IMAGE_SUFFIXES, is_hidden, is_image_name
from jlebm.errors import UserError
from jlebm.files import cannot_read, open_regular

LABELS_FILE = "dataset.json"
ARRAY_SUFFIXES = (".npy", ".npz")

Place = TypeVar("Place", Path, zipfile.ZipInfo)  # where the bytes of a file are


@dataclass
class Listing(Generic[Place]):
    """The files of a folder or a zip. Names are relative, with slashes, however they were stored."""

    where: Path
    images: dict[str, Place] = field(default_factory=dict)  # in the order of their names
    labels: dict[str, Place] = field(default_factory=dict)  # each `dataset.json`
    arrays: dict[str, Place] = field(default_factory=dict)  # .npy and .npz files, in the order of their names
    left_out: Counter[str] = field(default_factory=Counter)  # number of files, by kind

    def take_images(self) -> None:
        """Use the images and leave out the arrays.

        Raises:
            UserError: there is no image; the message says what there is instead.
        """
        self.left_out.update(posixpath.splitext(name)[1].lower() for name in self.arrays)
        if not self.images:
            suffixes = ", ".join(IMAGE_SUFFIXES)
            instead = f" (there are: {in_words(self.left_out)})" if self.left_out else ""
            raise UserError(f"{self.where} holds no images{instead}; it must have files that end in one of {suffixes}")


def list_folder(folder: Path) -> Listing[Path]:
    """List a folder with its subfolders, including linked ones.

    Raises:
        UserError: it is not a folder, a subfolder may not be read, or something with an image's name is not a file.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    listing = Listing[Path](folder)
    return _sorted_out(_walk(folder, listing.left_out), listing)


def list_zip(archive: zipfile.ZipFile, where: Path) -> Listing[zipfile.ZipInfo]:
    """List a zip.

    Raises:
        UserError: two images in it have the same name.
    """
    members = ((info.filename, info) for info in archive.infolist() if not info.is_dir())
    return _sorted_out(members, Listing[zipfile.ZipInfo](where))


def plain_name(name: str) -> str:
    r"""Normalise a name: `./a\b.png`, as some archivers and systems store it, becomes `a/b.png`."""
    return posixpath.normpath(name.replace("\\", "/")).lstrip("/")


def in_words(left_out: Mapping[str, int]) -> str:
    """Describe what was left out: "2 hidden, 1 .txt"; "nothing" if nothing was."""
    return ", ".join(f"{number} {what}" for what, number in sorted(left_out.items())) or "nothing"


def _sorted_out(files: Iterable[tuple[str, Place]], listing: Listing[Place]) -> Listing[Place]:
    for stored, place in sorted(((plain_name(stored), place) for stored, place in files), key=lambda file: file[0]):
        if is_hidden(stored):
            listing.left_out["hidden"] += 1
            continue
        suffix = posixpath.splitext(stored)[1].lower()
        if posixpath.basename(stored) == LABELS_FILE:
            kind = listing.labels
        elif is_image_name(stored):
            kind = listing.images
        elif suffix in ARRAY_SUFFIXES:
            kind = listing.arrays
        else:
            listing.left_out[suffix or "without a suffix"] += 1
            continue
        if stored in kind:
            raise UserError(f"{stored} is in {listing.where} twice; keep one of the two and rename or remove the other")
        kind[stored] = place
    return listing


def _walk(folder: Path, left_out: Counter[str]) -> Iterator[tuple[str, Path]]:
    """Yield the files below a folder. Links are followed last, and to each folder once."""
    seen: set[tuple[int, int]] = set()
    real, linked = deque([("", folder)]), deque[tuple[str, Path]]()
    while real or linked:
        below, directory = real.popleft() if real else linked.popleft()
        try:
            status = directory.stat()
            with os.scandir(directory) as scan:
                entries = list(scan)
        except OSError as error:
            if is_hidden(below):
                left_out["hidden"] += 1
                continue
            raise cannot_read(directory, error) from error
        if (status.st_dev, status.st_ino) in seen:
            left_out["linked folders that are there already"] += 1
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            name = below + entry.name
            if _is(entry, folder=True):
                (linked if entry.is_symlink() else real).append((f"{name}/", Path(entry.path)))
            elif _is(entry, folder=False):
                yield name, Path(entry.path)
            elif is_hidden(name):
                left_out["hidden"] += 1
            elif is_image_name(name) or entry.name == LABELS_FILE or name.lower().endswith(ARRAY_SUFFIXES):
                with open_regular(Path(entry.path)):  # raises, and says what it is
                    pass
            else:
                left_out["neither files nor folders"] += 1


def _is(entry: "os.DirEntry[str]", folder: bool) -> bool:
    try:
        return entry.is_dir() if folder else entry.is_file()
    except OSError:  # a link to itself, or into a folder that may not be searched
        return False
