"""Readers of a StyleGAN/EDM dataset zip and of a folder of images.

Both return an `ImageSource`: the number of images, their size, their labels, and an iterator that decodes one image at
a time. The datasets of the catalogue and the samples in the evaluation are read through it.

Images are ordered by their names, as in the EDM code (NVlabs/edm, `training/dataset.py`). Ignored files beside them
(`.DS_Store`, `__MACOSX/`, files whose suffix is not an image's) are counted, see `listing`.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from jlebm.data.image_file import Shape, decode_image
from jlebm.data.labels import Labels, labels_of
from jlebm.data.listing import in_words, list_folder, list_zip
from jlebm.data.reading import check_size, file_bytes, member_bytes, opened_zip
from jlebm.progress import SILENT, Reporter

PROGRESS_EVERY = 256  # images between two reports


@dataclass(frozen=True)
class ImageSource:
    """A source of images decoded one by one, with what is known before decoding."""

    origin: str  # its name in messages, e.g. the path of the zip
    count: int
    shape: Shape  # shape of every image: (height, width, channels)
    labels: Int64[np.ndarray, " count"] | None
    stream: Callable[[], Iterator[tuple[str, UInt8[np.ndarray, "height width channels"]]]]
    left_out: Mapping[str, int] = field(default_factory=dict)  # number of ignored files beside the images, by kind

    def __iter__(self) -> Iterator[tuple[str, UInt8[np.ndarray, "height width channels"]]]:
        """Decode the images in order, as pairs of a name and uint8 pixels.

        Raises:
            UserError: a file cannot be read, or is not an 8-bit image of `shape`.
        """
        return self.stream()

    def array(self, report: Reporter = SILENT) -> UInt8[np.ndarray, "count channels height width"]:
        """Decode all the images into memory.

        Raises:
            UserError: as the iterator, or they do not fit into memory.
        """
        height, width, channels = self.shape
        check_size(self.count * height * width * channels, self.origin)
        images = np.empty((self.count, channels, height, width), np.uint8)
        for index, image in enumerate(decoding(self, report)):
            images[index] = image.transpose(2, 0, 1)
        return images


def decoding(source: ImageSource, report: Reporter) -> Iterator[UInt8[np.ndarray, "height width channels"]]:
    """Iterate over the pixels of `source` and report the progress."""
    with report.task(f"decoding {source.origin}", source.count) as task:
        pending = 0
        for _, image in source:
            yield image
            pending += 1
            if pending == PROGRESS_EVERY:
                task.advance(pending)
                pending = 0
        task.advance(pending)


def digest_in_any_order(source: ImageSource) -> str:
    """Digest the pixels independently of the images' order: sha256 over the sorted digests of the images."""
    each = sorted(hashlib.sha256(image.tobytes()).digest() for _, image in source)
    return hashlib.sha256(b"".join(each)).hexdigest()


def account(count: int, origin: str | Path, left_out: Mapping[str, int]) -> str:
    """Return a sentence on the number of images read and of files left out, by kind."""
    return f"read {count} images of {origin}" + (f"; left out: {in_words(left_out)}" if left_out else "")


def read_image_zip(
    path: Path, shape: Shape | None = None, labels: Labels = Labels.NEEDED, lossy: bool = True
) -> ImageSource:
    """Open a StyleGAN/EDM dataset zip: image files, and optionally `dataset.json` with their labels.

    Args:
        path: the zip file.
        shape: (height, width, channels) that every image must have; None takes the first image's.
        labels: what the labels are used for.
        lossy: whether images in lossy formats are accepted.

    Raises:
        UserError: the zip is damaged, holds no image or two of one name, or `dataset.json` does not fit its images. A
            damaged or unfit image inside is found when the iterator reaches it.
    """
    with opened_zip(path) as archive:
        listing = list_zip(archive, path)
        listing.take_images()
        classes = labels_of(listing, labels, lambda info, limit: member_bytes(archive, info, path, limit))
        if shape is None:
            name, info = next(iter(listing.images.items()))
            shape = _shape_of(decode_image(member_bytes(archive, info, path), name, path, lossy=lossy))

    def stream() -> Iterator[tuple[str, np.ndarray]]:
        with opened_zip(path) as archive:
            for name, info in listing.images.items():
                yield name, decode_image(member_bytes(archive, info, path), name, path, shape, lossy)

    return ImageSource(str(path), len(listing.images), shape, classes, stream, listing.left_out)


def read_image_folder(
    path: str | os.PathLike[str], shape: Shape | None = None, labels: Labels = Labels.NEEDED, lossy: bool = True
) -> ImageSource:
    """Open a folder of images, including subfolders and linked ones, optionally with a `dataset.json` as in an EDM zip.

    Args:
        path: the folder.
        shape: (height, width, channels) that every image must have; None takes the first image's.
        labels: what the labels are used for.
        lossy: whether images in lossy formats are accepted.

    Raises:
        UserError: it is not a folder, holds no image or one that is not a regular file, a folder in it may not be read,
            or `dataset.json` does not fit the images. A damaged or unfit image is found when the iterator reaches it.
    """
    path = Path(path)
    listing = list_folder(path)
    listing.take_images()
    classes = labels_of(listing, labels, file_bytes)
    if shape is None:
        name, file = next(iter(listing.images.items()))
        shape = _shape_of(decode_image(file_bytes(file), name, path, lossy=lossy))

    def stream() -> Iterator[tuple[str, np.ndarray]]:
        for name, file in listing.images.items():
            yield name, decode_image(file_bytes(file), name, path, shape, lossy)

    return ImageSource(str(path), len(listing.images), shape, classes, stream, listing.left_out)


def folder_files(folder: Path) -> list[Path]:
    """List the files that make a folder a dataset: the images, and `dataset.json` if present.

    Raises:
        UserError: as `list_folder`.
    """
    listing = list_folder(folder)
    return [*listing.images.values(), *listing.labels.values()]


def source_of_arrays(
    images: UInt8[np.ndarray, "count height width channels"],
    labels: Int64[np.ndarray, " count"] | None,
    origin: str,
) -> ImageSource:
    """Wrap images in memory as a source."""

    def stream() -> Iterator[tuple[str, np.ndarray]]:
        return ((f"image {index}", image) for index, image in enumerate(images))

    return ImageSource(origin, len(images), _shape_of(images[0]), labels, stream)


def _shape_of(image: UInt8[np.ndarray, "height width channels"]) -> Shape:
    height, width, channels = image.shape
    return height, width, channels
