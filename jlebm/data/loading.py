"""Load a dataset by name: search the data root, download, check the pixels."""

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from jlebm.data.cache import Stamp, cache_folders, decode_once
from jlebm.data.catalogue import Entry, entry_of
from jlebm.data.formats import ImageSource, digest_in_any_order, folder_files, read_image_folder, read_image_zip
from jlebm.data.labels import Labels
from jlebm.data.layouts import DownloadError
from jlebm.errors import UserError
from jlebm.files import cannot_read
from jlebm.folders import expanded, user_cache
from jlebm.progress import SILENT, Reporter


class DatasetNotFound(UserError):
    """The dataset is not in the data root and was not downloaded. The message says what to put where."""


@dataclass(frozen=True)
class Dataset:
    """A dataset: images in order, labels, and the digest that identifies them."""

    name: str  # "cifar10", "photos", "digits", ...
    split: str  # "train" | "test"
    images: UInt8[np.ndarray, "count channels height width"]  # read-only; memory-mapped if it comes from files
    labels: Int64[np.ndarray, " count"] | None
    digest: str  # sha256 of the pixels as uint8 (count, height, width, channels) in order, hexadecimal
    origin: str  # one phrase: "cifar10-32x32.zip in the data root DIR", "embedded"


@dataclass(frozen=True)
class _Found:
    """A dataset's files in the data root."""

    path: Path
    files: list[Path]
    open: Callable[[], ImageSource]


def load(
    name: str,
    root: Path | None = None,
    split: str = "train",
    download: bool = True,
    report: Reporter = SILENT,
) -> Dataset:
    """Load a dataset by name.

    Embedded datasets need no files. Others are searched in the data root, in this order (the test split has `NAME-test`
    for NAME): `NAME-HxW.zip`, `NAME.zip`, the folders `NAME-HxW/` and `NAME/`, then torchvision's own layout or LSUN's
    LMDB. The first one found is decoded once and memory-mapped from then on. A missing dataset that torchvision knows
    is downloaded into the data root with torchvision's checksum.

    Args:
        name: a name in `catalogue.CATALOGUE`.
        root: the data root; None as in `data_root`.
        split: "train" or "test".
        download: whether missing files may be downloaded.
        report: receives the progress of download and decoding.

    Raises:
        DatasetNotFound: it is not in the data root and was not downloaded; the message says what to put where.
        UserError: the name or split is unknown, the data root is not a folder or cannot be listed, files are damaged,
            unreadable or of another size, or the pixels are not the official ones (a lossy copy, a subset). Official
            pixels in another order are accepted, with the digest of that order.
    """
    entry = entry_of(name, split)
    if entry.embedded is not None:
        return _load_embedded(entry, entry.embedded, split)
    root = data_root(root)
    found = _find(entry, root, split)
    if found is None and download:
        _download(entry, root, split, report)
        found = _find(entry, root, split)
    if found is None:
        raise DatasetNotFound(_what_to_do(entry, root, split))

    def accept(source: ImageSource, digest: str) -> None:
        _check_official(entry, split, source, digest)

    stamp = Stamp.of(found.path, found.files)
    decoded = decode_once(f"{name}-{split}", stamp, found.open, cache_folders(root), accept, report)
    origin = f"{found.path.relative_to(root)} in the data root {root}"
    return Dataset(name, split, decoded.images, decoded.labels, decoded.digest, origin)


def data_root(explicit: Path | None) -> Path:
    """Return the folder that holds datasets: `explicit`, else $JLEBM_DATA, else the user's cache folder.

    Raises:
        UserError: it is a file or a device, $JLEBM_DATA is empty, which as a path would mean the working folder, or the
            user has no home folder.
    """
    folder = _named_root(explicit)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"the data root {folder} is not a folder; name one with --data-root or JLEBM_DATA")
    return folder


def _named_root(explicit: Path | None) -> Path:
    if explicit is not None:
        return expanded(explicit)
    named = os.environ.get("JLEBM_DATA")
    if named is not None and not named.strip():
        raise UserError("JLEBM_DATA is set to an empty text; name the folder with datasets in it, or unset it")
    if named:
        return expanded(Path(named))
    if (of_user := user_cache()) is None:
        raise UserError("there is no home folder here for data; name a folder with --data-root or $JLEBM_DATA")
    return of_user / "data"


def _load_embedded(entry: Entry, make: Callable[[], tuple[np.ndarray, np.ndarray]], split: str) -> Dataset:
    pixels, labels = make()
    if entry.test_images:
        part = slice(-entry.test_images) if split == "train" else slice(-entry.test_images, None)
        pixels, labels = np.ascontiguousarray(pixels[part]), labels[part]
    images = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    images.flags.writeable = False
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    return Dataset(entry.name, split, images, labels, digest, "embedded")


def _file_names(entry: Entry, split: str) -> tuple[str, str]:
    """Return the two names, without suffix, under which a zip or a folder is searched."""
    stem = entry.name if split == "train" else f"{entry.name}-{split}"
    return f"{stem}-{entry.shape[0]}x{entry.shape[1]}", stem


def _listing(root: Path) -> set[str]:
    """List the names in a data root; empty if it does not exist."""
    name_one = "name one with --data-root or JLEBM_DATA"
    try:
        return {path.name for path in root.iterdir()}
    except (FileNotFoundError, NotADirectoryError) as error:
        if root.exists():
            raise UserError(f"the data root {root} is not a folder; {name_one}") from error
        return set()
    except OSError as error:
        raise UserError(
            f"the data root {root} cannot be listed ({error.strerror}); make it readable, or {name_one}"
        ) from error


def _find(entry: Entry, root: Path, split: str) -> _Found | None:
    # Names are compared as they are listed: on a disk that ignores case, `mnist` must not match `MNIST`.
    present = _listing(root)
    names = _file_names(entry, split)
    labels = Labels.WELCOME if entry.photographs else Labels.NEEDED
    for path in [root / f"{name}.zip" for name in names]:
        if path.name in present:
            return _Found(path, [path], partial(read_image_zip, path, entry.shape, labels, entry.photographs))
    for path in [root / name for name in names]:
        if path.name in present and _is_folder(path):
            open_folder = partial(read_image_folder, path, entry.shape, labels, entry.photographs)
            return _Found(path, folder_files(path), open_folder)
    if entry.layout is not None and (files := entry.layout.files(root, split)):
        path = files[0] if files[0].parent == root else files[0].parent
        return _Found(path, files, partial(entry.layout.open, root, split))
    return None


def _is_folder(path: Path) -> bool:
    """Tell a dataset's folder from a file of its name.

    Raises:
        UserError: it is a broken link, or cannot be examined.
    """
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        raise cannot_read(path, error) from error


def _download(entry: Entry, root: Path, split: str, report: Reporter) -> None:
    if entry.layout is None:
        return
    try:
        entry.layout.download(root, split, report)
    except DownloadError as error:
        why = f" and could not be downloaded ({error})"
        raise DatasetNotFound(_what_to_do(entry, root, split, why)) from error


def _what_to_do(entry: Entry, root: Path, split: str, why: str = "") -> str:
    sized, plain = _file_names(entry, split)
    height, width, channels = entry.shape
    kind = "RGB" if channels == 3 else "8-bit grey"
    choices = [
        f"{sized}.zip (a StyleGAN/EDM dataset zip)",
        f"a folder {plain}/ of {height}x{width} {kind} PNG files",
    ]
    if entry.layout is not None:
        choices.append(entry.layout.what(split))
    put = ", ".join(choices[:-1]) + " or " + choices[-1]
    return (
        f"{entry.name} ({split}) is not in the data root {root}{why}; put {put} there, "
        "or name another data root with --data-root or JLEBM_DATA"
    )


def _check_official(entry: Entry, split: str, source: ImageSource, digest: str) -> None:
    """Refuse images that do not match the dataset that they are named after."""
    name = f"{entry.name} ({split})"
    if source.shape != entry.shape:
        raise UserError(f"{source.origin} has images of shape {source.shape} and {name} has {entry.shape}")
    count = entry.counts.get(split, source.count)
    if source.count != count:
        raise UserError(f"{source.origin} has {source.count} images and {name} has {count}; use the whole set")
    official = entry.digests.get(split, digest)
    if digest == official or (split in entry.sets and digest_in_any_order(source) == entry.sets[split]):
        return
    raise UserError(
        f"the pixels of {source.origin} are not the official {name} (sha256 {digest[:12]}, not {official[:12]}), in "
        "whatever order: other pixels shift FID, so use a lossless official copy"
    )
