"""Cache of decoded datasets: pixels as a memory-mapped array beside the dataset's files.

An entry is up to three files whose common stem is a digest of the source's state (path, sizes, modification times):
`STEM.npy` (uint8, count x channels x height x width), `STEM.labels.npy` and, written last, the sidecar `STEM.json`.
Each file is moved into place whole, so an entry without its sidecar does not count, a changed source has another stem,
and two processes that decode at once write the same bytes to the same names.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from jlebm.data.arrays import open_arrays
from jlebm.data.formats import ImageSource, account, decoding
from jlebm.data.reading import file_bytes
from jlebm.errors import UserError
from jlebm.files import atomic_write, can_be_written, cannot_read, sweep, write_text
from jlebm.folders import user_cache
from jlebm.progress import SILENT, Reporter

FORMAT_VERSION = 1  # version of an entry's files; other versions are decoded again
LARGEST_SIDECAR = 2**16  # bytes


@dataclass(frozen=True)
class Stamp:
    """The state of a source's files, determined without reading them."""

    path: str
    size: int  # total bytes of the files
    mtime_ns: int  # modification time of the newest file
    listing: str  # sha256 over each file's name, size and modification time

    @classmethod
    def of(cls, path: Path, files: Iterable[Path]) -> "Stamp":
        """Stamp the source at `path`, which consists of `files` at or below it.

        Raises:
            UserError: a file cannot be examined, or is a broken link.
        """
        listing, size, newest = hashlib.sha256(), 0, 0
        for file in sorted(files, key=os.fspath):  # as strings: thousands of paths are slow to compare
            try:
                status = file.stat()
            except OSError as error:
                raise cannot_read(file, error) from error
            size += status.st_size
            newest = max(newest, status.st_mtime_ns)
            name = os.fspath(file)[len(os.fspath(path)) :]
            listing.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
        return cls(str(path.resolve()), size, newest, listing.hexdigest())


@dataclass(frozen=True)
class Decoded:
    """Decoded pixels in a file."""

    images: UInt8[np.ndarray, "count channels height width"]  # memory-mapped, read-only
    labels: Int64[np.ndarray, " count"] | None
    digest: str  # sha256 of the pixels as uint8 (count, height, width, channels) in order


def decode_once(
    name: str,
    stamp: Stamp,
    open_source: Callable[[], ImageSource],
    folders: Sequence[Path],
    accept: Callable[[ImageSource, str], None],
    report: Reporter = SILENT,
) -> Decoded:
    """Return the decoded images of a source, from a cache folder or decoded now and cached.

    Args:
        name: prefix of the entry's files, e.g. "cifar10-train".
        stamp: the state of the source; a changed source is decoded again.
        open_source: opens the source; called only if it must be decoded.
        folders: the folders to search, see `cache_folders`; the first writable one gets a new entry.
        accept: called with the source and its digest before anything is stored; raises if they are wrong.
        report: receives the progress of decoding.

    Raises:
        UserError: an image cannot be read, no folder can be written, or the disk is full. Neither this nor an error
            that `accept` raises leaves anything behind.
    """
    stem = f"{name}-{_digest_of(stamp)}"
    for folder in folders:
        if (entry := _read_entry(folder, stem)) is not None:
            return entry
    source = open_source()
    folder = _first_writable(folders)
    _write_entry(folder, stem, stamp, source, accept, report)
    report.line(account(source.count, source.origin, source.left_out))
    _remove_outdated(folder, name, stem, stamp)
    entry = _read_entry(folder, stem)
    if entry is None:
        raise UserError(f"the decoded images of {source.origin} were removed; run the same command again")
    return entry


def cache_folders(root: Path) -> tuple[Path, ...]:
    """Return the cache folders of a data root: one in it and, in case it is read-only, the user's."""
    of_user = user_cache()
    return root / ".jlebm-cache", *(() if of_user is None else (of_user / "decoded",))


def writable_cache(root: Path) -> Path:
    """Return the first of `cache_folders` that can be written, without creating it.

    Raises:
        UserError: none can be written.
    """
    return _first_writable(cache_folders(root))


def _digest_of(stamp: Stamp) -> str:
    return hashlib.sha256(json.dumps([FORMAT_VERSION, asdict(stamp)]).encode()).hexdigest()[:16]


def _read_sidecar(path: Path) -> dict[str, Any]:
    """Read a sidecar; empty if it is missing, unreadable or invalid."""
    try:
        content = json.loads(file_bytes(path, LARGEST_SIDECAR))
    except (UserError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_entry(folder: Path, stem: str) -> Decoded | None:
    """Map an entry's files; None if it is missing or incomplete."""
    sidecar = _read_sidecar(folder / f"{stem}.json")
    digest, shape = sidecar.get("digest"), sidecar.get("shape")
    if sidecar.get("format_version") != FORMAT_VERSION or not isinstance(digest, str):
        return None
    try:
        images = _read_array(folder / f"{stem}.npy", np.uint8)
        labels = _read_array(folder / f"{stem}.labels.npy", np.int64) if sidecar.get("labels") else None
    except UserError:
        return None
    if images is None or images.ndim != 4 or list(images.shape) != shape:
        return None
    if sidecar.get("labels") and (labels is None or labels.shape != images.shape[:1]):
        return None
    return Decoded(images, None if labels is None else np.array(labels), digest)


def _read_array(path: Path, dtype: type) -> np.ndarray | None:
    """Map a `.npy` file; None if its numbers have another type; raises UserError if it is damaged."""
    stored = open_arrays(path).arrays.get("")
    return stored.load() if stored is not None and stored.header.dtype == dtype else None


def _first_writable(folders: Sequence[Path]) -> Path:
    for folder in folders:
        if can_be_written(folder):
            return folder
    tried = " nor ".join(map(str, folders))
    raise UserError(f"there is no folder for the cache: neither {tried} can be written; make one of them writable")


def _write_entry(
    folder: Path,
    stem: str,
    stamp: Stamp,
    source: ImageSource,
    accept: Callable[[ImageSource, str], None],
    report: Reporter,
) -> None:
    height, width, channels = source.shape
    shape = (source.count, channels, height, width)
    labels = source.labels
    digest = hashlib.sha256()

    # Written through a file: on a full disk a write raises, whereas a memory map kills the process.
    with atomic_write(folder / f"{stem}.npy") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for image in decoding(source, report):
            digest.update(image.tobytes())
            file.write(image.transpose(2, 0, 1).tobytes())
        accept(source, digest.hexdigest())
    if labels is not None:
        with atomic_write(folder / f"{stem}.labels.npy") as file:
            np.save(file, labels)
    sidecar = {
        "format_version": FORMAT_VERSION,
        "source": asdict(stamp),
        "shape": shape,
        "labels": labels is not None,
        "digest": digest.hexdigest(),
    }
    write_text(folder / f"{stem}.json", json.dumps(sidecar, indent=2) + "\n")


def _remove_outdated(folder: Path, name: str, stem: str, stamp: Stamp) -> None:
    """Remove entries of earlier states of the source, and files that a killed process left half-written."""
    for sidecar in folder.glob(f"{name}-*.json"):
        source = _read_sidecar(sidecar).get("source")
        if sidecar.stem != stem and isinstance(source, dict) and source.get("path") == stamp.path:
            for suffix in (".json", ".labels.npy", ".npy"):
                with suppress(OSError):  # owned by another user, or just removed by another process
                    sidecar.with_suffix(suffix).unlink()
    sweep(folder, f".{name}-*.part")
