"""Readers of images that people have: a StyleGAN/EDM dataset zip and a folder of images.

Both give an `ImageSource`: how many images there are, their size, their labels, and an iterator that decodes
one image at a time. The datasets of the catalogue are read through it, and so are anybody's samples in the
evaluation.

Images are ordered by their names, as in the EDM code (NVlabs/edm, `training/dataset.py`). Names that an
operating system leaves behind (`.DS_Store`, `__MACOSX/`) and files whose suffix is not an image's are passed
over.
"""

import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from jlebm.data.image_file import IMAGE_SUFFIXES, Shape, decode_image, is_image_name
from jlebm.errors import UserError
from jlebm.progress import SILENT, Reporter

LABELS_FILE = "dataset.json"
PROGRESS_EVERY = 256  # images between two reports

# What zipfile raises for bytes that are cut short, altered, encrypted or compressed in an unknown way.
UNREADABLE_ZIP = (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError, zlib.error)


@dataclass(frozen=True)
class ImageSource:
    """Images that are decoded one by one, and what is known about them before."""

    origin: str  # what a person calls it, e.g. the path of the zip
    count: int
    shape: Shape  # of every image: (height, width, channels)
    labels: Int64[np.ndarray, " count"] | None
    stream: Callable[[], Iterator[tuple[str, UInt8[np.ndarray, "height width channels"]]]]

    def __iter__(self) -> Iterator[tuple[str, UInt8[np.ndarray, "height width channels"]]]:
        """Decode the images in order, as pairs of a name and uint8 pixels.

        Raises:
            UserError: a file cannot be read, or is not an 8-bit image of `shape`.
        """
        return self.stream()

    def array(self, report: Reporter = SILENT) -> UInt8[np.ndarray, "count channels height width"]:
        """Decode all the images into memory.

        Raises:
            UserError: as the iterator does.
        """
        height, width, channels = self.shape
        images = np.empty((self.count, channels, height, width), np.uint8)
        for index, image in enumerate(decoding(self, report)):
            images[index] = image.transpose(2, 0, 1)
        return images


def decoding(source: ImageSource, report: Reporter) -> Iterator[UInt8[np.ndarray, "height width channels"]]:
    """Iterate over the pixels of `source`, telling `report` how far it is."""
    with report.task(f"decoding {source.origin}", source.count) as task:
        pending = 0
        for _, image in source:
            yield image
            pending += 1
            if pending == PROGRESS_EVERY:
                task.advance(pending)
                pending = 0
        task.advance(pending)


def read_image_zip(path: Path, shape: Shape | None = None) -> ImageSource:
    """Open a StyleGAN/EDM dataset zip: image files, and optionally `dataset.json` with their labels.

    Args:
        path: the zip file.
        shape: (height, width, channels) that every image must have; None takes the first image's.

    Raises:
        UserError: the zip is damaged or holds no image, or `dataset.json` does not fit its images. A damaged
            or unfit image inside is found when the iterator comes to it.
    """
    with _opened_zip(path) as archive:
        members = [info.filename for info in archive.infolist() if not info.is_dir()]
        names = _ordered(filter(is_image_name, members), path)
        labels = parse_labels(_member(archive, LABELS_FILE, path), names, path) if LABELS_FILE in members else None
        if shape is None:
            shape = _shape_of(decode_image(_member(archive, names[0], path), names[0], path))

    def stream() -> Iterator[tuple[str, np.ndarray]]:
        with _opened_zip(path) as archive:
            for name in names:
                yield name, decode_image(_member(archive, name, path), name, path, shape)

    return ImageSource(str(path), len(names), shape, labels, stream)


def read_image_folder(path: Path, shape: Shape | None = None) -> ImageSource:
    """Open a folder of images, subfolders included, optionally with a `dataset.json` as in an EDM zip.

    Args:
        path: the folder.
        shape: (height, width, channels) that every image must have; None takes the first image's.

    Raises:
        UserError: it is not a folder or holds no image, or `dataset.json` does not fit the images. A damaged
            or unfit image is found when the iterator comes to it.
    """
    files = folder_files(path)
    names = _ordered((name for name in files if name != LABELS_FILE), path)
    labels = parse_labels(_file_bytes(path, LABELS_FILE), names, path) if LABELS_FILE in files else None
    if shape is None:
        shape = _shape_of(decode_image(_file_bytes(path, names[0]), names[0], path))

    def stream() -> Iterator[tuple[str, np.ndarray]]:
        for name in names:
            yield name, decode_image(_file_bytes(path, name), name, path, shape)

    return ImageSource(str(path), len(names), shape, labels, stream)


def folder_files(folder: Path) -> list[str]:
    """List the files that make a folder a dataset, relative to it: the images, and `dataset.json` if present.

    Raises:
        UserError: the path is not a folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    names = []
    for directory, _, files in os.walk(folder):
        below = Path(directory).relative_to(folder).as_posix()
        names += files if below == "." else [f"{below}/{file}" for file in files]
    return [name for name in names if name == LABELS_FILE or is_image_name(name)]


def source_of_arrays(
    images: UInt8[np.ndarray, "count height width channels"],
    labels: Int64[np.ndarray, " count"] | None,
    origin: str,
) -> ImageSource:
    """Give images that are already in memory the interface of a source."""

    def stream() -> Iterator[tuple[str, np.ndarray]]:
        return ((f"image {index}", image) for index, image in enumerate(images))

    return ImageSource(origin, len(images), _shape_of(images[0]), labels, stream)


def parse_labels(text: bytes, names: Sequence[str], where: Path) -> Int64[np.ndarray, " count"] | None:
    """Read EDM's `dataset.json`: {"labels": [[name, class], ...]}, or null where there are none.

    Args:
        text: the content of the file.
        names: the images in order; each must have exactly one label.
        where: the zip or the folder, for messages.

    Raises:
        UserError: it is not such a file, names an image that is not there, or leaves one out.
    """
    what = f"{LABELS_FILE} in {where}"
    try:
        content: Any = json.loads(text)
    except ValueError as error:
        raise UserError(f"{what} is not valid JSON ({error}); make it anew, or remove it") from error
    pairs = content.get("labels") if isinstance(content, dict) else content
    if pairs is None:
        return None
    if not isinstance(pairs, list) or not all(map(_is_label, pairs)):
        raise UserError(f'{what} must be {{"labels": [[file name, class number], ...]}}, or null for the labels')
    classes = {name.replace("\\", "/"): number for name, number in pairs}
    missing = sorted(classes.keys() - set(names))
    if missing:
        raise UserError(f"{what} names {missing[0]!r}, which is not there; restore it or remove its entry")
    if len(pairs) != len(names) or len(classes) != len(names):
        raise UserError(f"{what} has {len(pairs)} labels for {len(names)} images; each must have exactly one")
    return np.array([classes[name] for name in names], np.int64)


def _is_label(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and type(pair[1]) is int


def _ordered(names: Iterable[str], where: Path) -> list[str]:
    ordered = sorted(names)
    if not ordered:
        suffixes = ", ".join(IMAGE_SUFFIXES)
        raise UserError(f"{where} holds no images; it must have files that end in one of {suffixes}")
    return ordered


def _shape_of(image: UInt8[np.ndarray, "height width channels"]) -> Shape:
    height, width, channels = image.shape
    return height, width, channels


def _opened_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except UNREADABLE_ZIP as error:
        raise UserError(f"{path} is not a whole zip file ({error}); copy or download it again") from error


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    try:
        return archive.read(name)
    except UNREADABLE_ZIP as error:
        raise UserError(f"{name} in {path} cannot be unpacked ({error}); copy or download the zip again") from error


def _file_bytes(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise UserError(f"{name} in {folder} cannot be read ({error.strerror}); replace the file") from error
