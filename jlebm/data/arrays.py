"""Read arrays of .npy and .npz files: headers first, numbers only after the headers have been checked.

numpy's own reader trusts a header and allocates what it asks for. Here a header is bounded and compared with the bytes
that follow it. Objects are never unpickled.
"""

import io
import math
import os
import tokenize
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jlebm.data.reading import PIECE, Readable, check_size, opened_member, opened_zip
from jlebm.errors import UserError
from jlebm.files import open_regular

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 10_000  # bytes, numpy's own bound
NUMBERS = "biuf"  # numpy's kinds of numeric dtypes
BAD_HEADER = (ValueError, SyntaxError, TypeError, RecursionError, MemoryError, tokenize.TokenError, OverflowError)


@dataclass(frozen=True)
class Header:
    """Header of an array file: dtype, shape and size."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool
    packed: int | None  # bytes of the array in its archive; None for a plain file

    @property
    def size(self) -> int:
        """Size of the array in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class StoredArray:
    """An array in a file whose header alone has been read."""

    name: str  # name in its .npz; empty for a .npy
    header: Header
    load: Callable[[], np.ndarray]  # a .npy is memory-mapped, read-only


@dataclass(frozen=True)
class ArrayFile:
    """The arrays of a file, and the number of its other members."""

    path: Path
    arrays: Mapping[str, StoredArray]
    others: int


def open_arrays(path: Path) -> ArrayFile:
    """Read the headers of a `.npy` or `.npz` file; the content decides which of the two it is.

    Raises:
        UserError: the file is missing, unreadable or not a whole file of numbers. A damaged array of a `.npz` is found
            when it is loaded.
    """
    with open_regular(path) as file:
        start = file.read(len(MAGIC))
    if start == MAGIC:
        return ArrayFile(path, {"": _open_npy(path)}, 0)
    if start[:2] != b"PK":
        raise not_whole(path, "it does not begin as one")
    return _open_npz(path)


def not_whole(path: Path, why: str) -> UserError:
    """Return the error for a file whose content is not an array file's."""
    return UserError(f"{path} is not a whole file of numbers ({why}); write or copy it again")


def _open_npy(path: Path) -> StoredArray:
    with open_regular(path) as file:
        header = _read_header(file, path, None)
        start = file.tell()
        _compare(header, os.fstat(file.fileno()).st_size - start, path)

    def load() -> np.ndarray:
        order = "F" if header.fortran_order else "C"
        if header.size == 0:
            return np.zeros(header.shape, header.dtype)
        with open_regular(path) as file:
            try:
                return np.memmap(file, header.dtype, "r", start, header.shape, order)
            except (OSError, ValueError) as error:  # the file became shorter
                raise not_whole(path, "it is shorter than its header says") from error

    return StoredArray("", header, load)


def _open_npz(path: Path) -> ArrayFile:
    arrays: dict[str, StoredArray] = {}
    others = 0
    with opened_zip(path) as archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name == info.filename:
                others += not info.is_dir()
                continue
            if name in arrays:
                raise UserError(f"{path} holds the array {name!r} twice; keep one of the two")
            with opened_member(archive, info, path) as member:
                counted = _Counted(member)
                header = _read_header(counted, path, info.compress_size)
            _compare(header, info.file_size - counted.position, path)
            arrays[name] = StoredArray(name, header, _loader(path, info, header, counted.position))
    return ArrayFile(path, arrays, others)


def _loader(path: Path, info: zipfile.ZipInfo, header: Header, start: int) -> Callable[[], np.ndarray]:
    def load() -> np.ndarray:
        check_size(header.size, f"{info.filename} in {path}", header.packed)
        data = np.empty(header.size, np.uint8)
        with opened_zip(path) as archive, opened_member(archive, info, path) as member:
            member.read(start)
            done = 0
            while done < header.size:
                piece = member.read(min(PIECE, header.size - done))
                if not piece:
                    raise EOFError("it ends too early")
                data[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
                done += len(piece)
        return data.view(header.dtype).reshape(header.shape, order="F" if header.fortran_order else "C")

    return load


class _Counted:
    """A stream that counts the bytes read from it."""

    def __init__(self, source: Readable):
        self.source, self.position = source, 0

    def read(self, size: int, /) -> bytes:
        data = self.source.read(size)
        self.position += len(data)
        return data


def _read_header(file: Readable, path: Path, packed: int | None) -> Header:
    """Read a header from the start of an array file."""
    start = file.read(len(MAGIC) + 2)
    version = tuple(start[len(MAGIC) :])
    if start[: len(MAGIC)] != MAGIC or version not in ((1, 0), (2, 0)):
        raise not_whole(path, "its header is not one")
    stated = file.read(2 if version == (1, 0) else 4)
    length = int.from_bytes(stated, "little")
    if length > LONGEST_HEADER:
        raise not_whole(path, "its header is too long")
    text = io.BytesIO(stated + file.read(length))
    parse = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about headers that Python 2 wrote
            shape, fortran_order, dtype = parse(text)
    except BAD_HEADER as error:
        raise not_whole(path, "its header is not one") from error
    if dtype.hasobject:
        raise not_whole(path, "its array holds Python objects, which are never loaded")
    if any(side < 0 for side in shape):
        raise not_whole(path, "its header is not one")
    return Header(tuple(map(int, shape)), dtype, fortran_order, packed)


def _compare(header: Header, present: int, path: Path) -> None:
    """Compare the size in a header with the bytes that follow it."""
    if present < header.size:
        raise not_whole(path, "it is shorter than its header says")
    if present > header.size:
        raise not_whole(path, "it holds more than its header says")
