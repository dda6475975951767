"""Read untrusted files and zip members with size limits.

The stated size is checked before anything is read or unpacked, so that a file made to fill the memory costs no more
than its header.
"""

import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

from jlebm.errors import UserError
from jlebm.files import open_regular

LARGEST_IMAGE_FILE = 2**27  # bytes; 4096 x 4096 RGB pixels, not packed at all, are 2**25.6
SUSPICIOUS = 2**28  # bytes; the ratio is checked for members that unpack to more
LARGEST_RATIO = 200  # unpacked over packed bytes; images have 1 to 50, and deflate reaches at most 1032
PIECE = 2**20  # bytes that are unpacked at a time
PACKED_PIECE = 2**12  # bytes unpacked at a time in formats with unlimited ratio (LZMA, bzip2)

# Errors of zipfile and its decompressors for bytes that are cut short, altered, encrypted or packed in an unknown way.
UNREADABLE_ZIP = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,
    RuntimeError,  # encrypted, and NotImplementedError
    EOFError,
    ValueError,  # negative offsets, names in no encoding
    OverflowError,
)


@runtime_checkable
class Readable(Protocol):
    """A binary stream to read from."""

    def read(self, size: int, /) -> bytes:
        """Read `size` bytes; fewer only at the end of the stream."""
        ...


class _Unpacked:
    """A zip member unpacked piece by piece: zipfile itself unpacks everything it has read at once."""

    def __init__(self, handle: Readable, piece: int):
        self.handle, self.piece = handle, piece

    def read(self, size: int, /) -> bytes:
        data = bytearray()
        while len(data) < size and (some := self.handle.read(min(size - len(data), self.piece))):
            data += some
        return bytes(data)


def file_bytes(path: Path, limit: int = LARGEST_IMAGE_FILE) -> bytes:
    """Read a regular file of at most `limit` bytes.

    Raises:
        UserError: it is missing, unreadable, no regular file, or larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise UserError(f"{path} has {in_words(size)}, more than the {in_words(limit)} that are read of one")
        return file.read(limit)


@contextmanager
def opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip file.

    Raises:
        UserError: it is missing, unreadable, no regular file, or damaged.
    """
    with open_regular(path) as file:
        try:
            archive = zipfile.ZipFile(file)
        except UNREADABLE_ZIP as error:
            raise UserError(f"{path} is not a whole zip file ({reason(error)}); copy or download it again") from error
        with archive:
            yield archive


@contextmanager
def opened_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: Path) -> Iterator[Readable]:
    """Open a zip member, which is unpacked as it is read; its checksum is compared at its end.

    Raises:
        UserError: it is damaged, encrypted or packed in an unknown way; also raised inside the block.
    """
    piece = PIECE if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) else PACKED_PIECE
    try:
        with archive.open(info) as handle:
            yield _Unpacked(handle, piece)
    except UNREADABLE_ZIP as error:
        said = f"{info.filename} in {where} cannot be unpacked ({reason(error)}); copy or download the zip again"
        raise UserError(said) from error


def member_bytes(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: Path, limit: int = LARGEST_IMAGE_FILE
) -> bytes:
    """Unpack a zip member of at most `limit` bytes.

    Raises:
        UserError: it is larger according to the zip's directory, or as `opened_member`.
    """
    if info.file_size > limit:
        raise UserError(
            f"{info.filename} in {where} unpacks to {in_words(info.file_size)}, more than the {in_words(limit)} that "
            "are read of one"
        )
    with opened_member(archive, info, where) as handle:
        data = handle.read(info.file_size)
        if len(data) != info.file_size:
            raise EOFError("it ends too early")
        return data


def check_size(size: int, what: str, packed: int | None = None) -> None:
    """Refuse data that does not fit into this machine's memory, or was made to fill it.

    Args:
        size: bytes to allocate.
        what: what the bytes belong to, for messages.
        packed: bytes that they are unpacked from; None if they are not packed.

    Raises:
        UserError: they exceed the memory, or unpack from so few bytes that they cannot be images.
    """
    if packed is not None and size > SUSPICIOUS and size > LARGEST_RATIO * packed:
        raise UserError(f"{what} unpacks from {in_words(packed)} to {in_words(size)}, as no images do; it is not read")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    if memory is not None and size > memory:
        raise UserError(
            f"{what} needs {in_words(size)} of memory and this machine has {in_words(memory)}; give fewer images"
        )


def in_words(size: int) -> str:
    """Format a number of bytes: "17 bytes", "3.5 MiB"."""
    if size < 2**20:
        return f"{size} bytes"
    return f"{size / 2**20:,.1f} MiB" if size < 2**30 else f"{size / 2**30:,.1f} GiB"


def reason(error: BaseException) -> str:
    """Return an error's text in one line; its type if it has no text."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
