"""Anybody's samples as uint8 images: an array file, a folder of PNG files or a StyleGAN/EDM dataset zip."""

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jlebm.data import read_image_folder, read_image_zip
from jlebm.errors import UserError
from jlebm.progress import SILENT, Reporter

LOSSY = frozenset({".jpeg", ".jpg", ".webp"})
NPZ_KEY = "arr_0"  # where guided-diffusion's evaluation, and numpy itself, put an array without a name
UNREADABLE_ARRAY = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def open_images(path: Path, report: Reporter = SILENT) -> UInt8[np.ndarray, "count channels height width"]:
    """Open the images of a file or a folder, in the order of their indices or names.

    Args:
        path: `.npy` (memory-mapped); `.npz` with the array `arr_0` or one array alone; a folder of PNG files,
            subfolders included; or a StyleGAN/EDM dataset `.zip`. Arrays may have their channels first or last.
        report: told how far the decoding of image files is.

    Returns:
        uint8 images of one or three channels.

    Raises:
        UserError: there is no such file, it is damaged, lossy (JPEG), not uint8, or not shaped as images.
    """
    if not path.exists():
        raise UserError(f"there are no images at {path}; name a .npy, .npz or .zip file or a folder of PNG files")
    if path.is_dir():
        source = read_image_folder(path)
        _refuse_lossy((file.name for file in path.rglob("*")), path)
        return source.array(report)
    suffix = path.suffix.lower()
    if suffix == ".zip":
        source = read_image_zip(path)
        with zipfile.ZipFile(path) as archive:
            _refuse_lossy(archive.namelist(), path)
        return source.array(report)
    if suffix in (".npy", ".npz"):
        return _channels_first(_read_array(path), path)
    raise UserError(f"{path} is none of a .npy, .npz or .zip file or a folder of PNG files; save the images as one")


def check_images(images: np.ndarray) -> None:
    """Refuse what is not a batch of uint8 images.

    Raises:
        UserError: another type, shape or number of channels, or no image at all.
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


def _read_array(path: Path) -> np.ndarray:
    """Read an array, mapped where it lies open in a file; pickled objects are refused by numpy."""
    try:
        if path.suffix.lower() == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        # numpy leaves a file open that it fails to read, when it opened it itself.
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as content:
            if NPZ_KEY not in content.files and len(content.files) != 1:
                names = ", ".join(content.files) or "none"
                raise UserError(f"{path} must hold an array {NPZ_KEY!r} or one array alone; its arrays are: {names}")
            return content[NPZ_KEY if NPZ_KEY in content.files else content.files[0]]
    except UNREADABLE_ARRAY as error:
        raise UserError(f"{path} is not a whole file of numbers ({error}); write or copy it again") from error


def _channels_first(images: np.ndarray, path: Path) -> UInt8[np.ndarray, "count channels height width"]:
    """Put the channels, the axis of one or three, before height and width."""
    if images.dtype != np.uint8:
        raise UserError(
            f"the images in {path} must be uint8 and are {images.dtype}; round them once, to whole numbers from 0 to "
            "255, and save those"
        )
    first, last = (images.ndim == 4 and images.shape[axis] in (1, 3) for axis in (1, 3))
    if first == last:
        what = "could be either" if first else "is neither"
        raise UserError(
            f"the array in {path} has the shape {images.shape}, which {what} of (count, height, width, channels) and "
            "(count, channels, height, width) with 1 or 3 channels"
        )
    images = images if first else images.transpose(0, 3, 1, 2)
    check_images(images)
    return images


def _refuse_lossy(names: Iterable[str], path: Path) -> None:
    for name in names:
        if Path(name).suffix.lower() in LOSSY:
            raise UserError(
                f"{name} in {path} is in a lossy format, which shifts every metric; save the samples as PNG, once"
            )
