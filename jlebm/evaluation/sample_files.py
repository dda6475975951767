"""Read samples as uint8 images: array files, a folder of PNG files or a StyleGAN/EDM dataset zip.

Headers are checked before anything is decoded; samples must be lossless and from 0 to 255.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jlebm.data import ImageSource, read_image_folder, read_image_zip
from jlebm.data.arrays import ArrayFile, StoredArray, not_whole, open_arrays
from jlebm.data.formats import account
from jlebm.data.labels import Labels
from jlebm.data.listing import ARRAY_SUFFIXES, Listing, list_folder, list_zip
from jlebm.data.reading import check_size, opened_zip
from jlebm.errors import UserError
from jlebm.files import cannot_read, open_regular
from jlebm.progress import SILENT, Reporter

NPZ_KEY = "arr_0"  # the key of an unnamed array, in numpy and in guided-diffusion's evaluation
CHUNK = 2**26  # bytes of an array that are checked, or converted to uint8, at a time
LOOKED_AT = 2**30  # the most bytes searched for a value above 1

Images = UInt8[np.ndarray, "count channels height width"]


@dataclass(frozen=True)
class Samples:
    """Images whose headers have been read, but not their pixels."""

    path: Path
    count: int
    shape: tuple[int, int, int]  # shape of every image: (channels, height, width)
    left_out: Mapping[str, int]  # number of ignored files beside the images, by kind
    read: Callable[[Reporter], Images]


def open_images(path: Path, report: Reporter = SILENT) -> UInt8[np.ndarray, "count channels height width"]:
    """Read the images of a file or a folder, in the order of their indices or names.

    Args:
        path: as in `find_images`.
        report: receives the progress, the number of images, the ignored files and why, and a warning if the images
            look like a cast of [0, 1].

    Returns:
        uint8 images of one or three channels; those of a `.npy` file of uint8 are memory-mapped.

    Raises:
        UserError: as `find_images`, or an image is damaged, lossy, of another size, or not from 0 to 255.
    """
    samples = find_images(path)
    images = samples.read(report)
    report.line(account(samples.count, path, samples.left_out))
    if (doubt := doubt_of(images, path)) is not None:
        report.line(doubt)
    return images


def find_images(path: Path) -> Samples:
    """Find the images of a file or a folder: their number and size, without reading them all.

    Args:
        path: a `.npy` file; an `.npz` file with one array of images, and labels or other small arrays beside it; a
            folder of PNG files, subfolders included, or of array files, concatenated in order; or a StyleGAN/EDM
            dataset `.zip`. A file's content decides which it is. Arrays hold whole numbers from 0 to 255 with channels
            first, last or, for grey images, without that axis.

    Raises:
        UserError: the file is missing, unreadable, damaged or lossy, or holds no images.
    """
    try:
        is_folder = path.is_dir()
        if not (path.exists() or path.is_symlink()):
            raise UserError(f"there are no images at {path}; name a .npy, .npz or .zip file or a folder of PNG files")
    except OSError as error:
        raise cannot_read(path, error) from error
    if is_folder:
        listing = list_folder(path)
        if listing.arrays and not listing.images:
            return _shards(listing)
        return _decoded(path, read_image_folder(path, labels=Labels.UNUSED, lossy=False))
    with open_regular(path) as file:
        start = file.read(2)
    suffix = path.suffix.lower()
    if start == b"PK":
        with opened_zip(path) as archive:
            listing = list_zip(archive, path)
        if listing.images or not (listing.arrays or suffix == ".npz"):
            return _decoded(path, read_image_zip(path, labels=Labels.UNUSED, lossy=False))
    if start in (b"PK", b"\x93N"):
        chosen = _chosen(open_arrays(path))
        return Samples(path, chosen.shape[0], chosen.shape[1:], chosen.left_out, lambda report: chosen.read())
    if suffix == ".zip":
        with opened_zip(path):  # raises the reason
            pass
    if suffix in ARRAY_SUFFIXES:
        raise not_whole(path, "it does not begin as one")
    raise UserError(f"{path} is neither a .npy, .npz or .zip file nor a folder of PNG files; save the images as one")


def check_images(images: np.ndarray) -> None:
    """Check that an array is a batch of uint8 images.

    Raises:
        UserError: it has another type, shape or number of channels, or no images.
    """
    if images.dtype != np.uint8:
        raise UserError(
            f"images must be uint8 and are {images.dtype}; round them once, to whole numbers from 0 to 255, and save "
            "those"
        )
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.size == 0:
        raise UserError(
            f"images must have the shape (count, 1 or 3 channels, height, width) and have {images.shape}; reorder the "
            "axes"
        )


def doubt_of(images: UInt8[np.ndarray, "count channels height width"], path: Path) -> str | None:
    """Warn that images look like [0, 1] cast to whole numbers; None if a value is above 1."""
    step = max(1, CHUNK // max(1, images[0].size))
    for first in range(0, min(len(images), LOOKED_AT // max(1, images[0].size) + 1), step):
        if images[first : first + step].max() > 1:
            return None
    return (
        f"no value in {path} is above 1, so the images are all but black: if they are a cast of [0, 1], multiply by "
        "255 and round before they are saved"
    )


def _decoded(path: Path, source: ImageSource) -> Samples:
    height, width, channels = source.shape
    return Samples(path, source.count, (channels, height, width), source.left_out, source.array)


@dataclass(frozen=True)
class _Chosen:
    """The array of images in a file."""

    stored: StoredArray
    path: Path
    shape: tuple[int, int, int, int]  # (count, channels, height, width)
    left_out: Mapping[str, int]

    def read(self) -> Images:
        """Read the array as uint8 with its channels first."""
        array = self.stored.load()
        images = array if array.dtype == np.uint8 else _as_uint8(array, self.path)
        if images.ndim == 3:
            return images[:, np.newaxis]
        return images if images.shape == self.shape else images.transpose(0, 3, 1, 2)


def _chosen(file: ArrayFile) -> _Chosen:
    """Choose a file's array of images: the only one with a fitting shape."""
    arrays = list(file.arrays.values())
    fit = [one for one in arrays if one.header.dtype.kind in "iu" and _channels_first(one.header.shape) is not None]
    if not fit:  # the likely candidate gets its own message
        fit = [one for one in arrays if one.name == NPZ_KEY] or arrays
    if len(fit) != 1:
        names = ", ".join(file.arrays) or "none"
        raise UserError(f"{file.path} must hold one array of images; its arrays are: {names}")
    (stored,) = fit
    header = stored.header
    if header.dtype.kind not in "iu":
        raise UserError(
            f"the images in {file.path} must be uint8 and are {header.dtype}; round them once, to whole numbers from 0 "
            "to 255, and save those"
        )
    shape = _channels_first(header.shape)
    if shape is None:
        both = len(header.shape) == 4 and header.shape[1] in (1, 3)
        what = "could be either" if both else "is neither"
        raise UserError(
            f"the array in {file.path} has the shape {header.shape}, which {what} of (count, height, width, channels) "
            "and (count, channels, height, width) with 1 or 3 channels, nor (count, height, width) without any doubt"
        )
    if 0 in shape:
        check_images(np.empty(shape, np.uint8))
    left_out = Counter(f"array {name!r}" for name in file.arrays if name != stored.name)
    if file.others:
        left_out["files that are not arrays"] = file.others
    return _Chosen(stored, file.path, shape, left_out)


def _channels_first(shape: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """Move the channels, the axis of length one or three, before height and width; None if that axis is ambiguous."""
    if len(shape) == 3:  # grey images, unless it may be a single picture
        count, height, width = shape
        return None if count == 3 or width in (1, 3) else (count, 1, height, width)
    if len(shape) != 4 or (shape[1] in (1, 3)) == (shape[3] in (1, 3)):
        return None
    count, *sides = shape if shape[1] in (1, 3) else (shape[0], shape[3], shape[1], shape[2])
    return (count, sides[0], sides[1], sides[2])


def _as_uint8(array: np.ndarray, path: Path) -> np.ndarray:
    """Convert whole numbers of another type to uint8, if all are from 0 to 255."""
    check_size(array.size, str(path))
    images = np.empty(array.shape, np.uint8)
    step = max(1, CHUNK // max(1, array[0].nbytes))
    for first in range(0, len(array), step):
        part = array[first : first + step]
        if part.min() < 0 or part.max() > 255:
            raise UserError(
                f"the images in {path} are {array.dtype} and must be from 0 to 255; they hold {part.min()} and "
                f"{part.max()}"
            )
        images[first : first + step] = part
    return images


def _shards(listing: Listing[Path]) -> Samples:
    """Concatenate the arrays of a folder, in the order of the files' names."""
    files = [open_arrays(file) for file in listing.arrays.values()]
    left_out = Counter(listing.left_out)
    chosen = []
    for file in files:
        if all(len(one.header.shape) < 2 for one in file.arrays.values()):
            left_out["array files of labels"] += 1
            continue
        chosen.append(_chosen(file))
        left_out.update(chosen[-1].left_out)
    left_out.update("dataset.json" for _ in listing.labels)
    if not chosen:
        raise UserError(f"{listing.where} holds no images; name a .npy, .npz or .zip file or a folder of PNG files")
    shapes = {one.shape[1:]: one for one in chosen}
    if len(shapes) > 1:
        first, second = list(shapes.values())[:2]
        raise UserError(
            f"{second.path} has images of the shape {second.shape[1:]} and {first.path} of {first.shape[1:]}; measure "
            "images of one size"
        )
    count, shape = sum(one.shape[0] for one in chosen), chosen[0].shape[1:]

    def read(report: Reporter) -> Images:
        check_size(count * math.prod(shape), str(listing.where))
        images = np.empty((count, *shape), np.uint8)
        first = 0
        for one in chosen:
            images[first : first + one.shape[0]] = one.read()
            first += one.shape[0]
        return images

    return Samples(listing.where, count, shape, left_out, read)
