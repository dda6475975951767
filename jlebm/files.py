"""Files: written whole or not at all, opened with a sentence where they cannot be had.

What goes wrong outside of a file's content (no space, no permission, no such folder) becomes a `UserError` here, so
that whoever parses a file has only its content left to judge: a file that may not be read is never called damaged.
"""

import errno
import hashlib
import io
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from jlebm.errors import UserError

ABANDONED_AFTER = 3600.0  # seconds without a write, after which a half-written file belongs to a dead process
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)


class _Raw(io.FileIO):
    """A file that remembers why a write failed: torch, safetensors and matplotlib raise something else instead."""

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


class _Handle(io.BufferedWriter):
    """A buffer without a descriptor to be written past it, as Pillow and numpy do where they find one."""

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be written from its start; at the end of the block it is flushed to the disk and moved to `path`.

    At every moment `path` is either the whole previous file or the whole new one. The temporary file beside it has a
    random name and is opened exclusively, so that no two processes share one, whatever their numbers are. A block that
    raises leaves the previous file and nothing else.

    Args:
        path: of the file; folders that it needs are made.

    Yields:
        A binary file. It may be handed to `torch.save`, `numpy.savez`, `Figure.savefig` and the like.

    Raises:
        UserError: there is no space, no permission or no folder to write it in.
    """
    part = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}.part")  # a name has 255 bytes at most
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = _Raw(part, "xb")
    except OSError as error:
        raise cannot_write(path, error) from error
    handle = _Handle(raw)
    try:
        yield handle
        _finish(handle, raw, part, path)
    except Exception as error:
        if raw.failure is not None:
            raise cannot_write(path, raw.failure) from error
        raise
    finally:
        with suppress(OSError):  # closing flushes once more, which fails where the write did
            handle.close()
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _finish(handle: BinaryIO, raw: _Raw, part: Path, path: Path) -> None:
    try:
        handle.flush()
        os.fsync(raw.fileno())
        handle.close()
        part.replace(path)
    except OSError as error:
        raw.failure = error
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, whole or not at all, as `atomic_write` does."""
    with atomic_write(path) as file:
        file.write(text.encode())


def cannot_write(path: Path, error: OSError) -> UserError:
    """Return the sentence for a file that cannot be written."""
    if error.errno in NO_SPACE:
        return UserError(f"no space left to write {path}; free some and run the same command again")
    if error.errno == errno.EFBIG:
        return UserError(f"{path} would be larger than the limit for a file here (`ulimit -f`); raise it")
    if error.errno in NO_PERMISSION:
        return UserError(f"{path} cannot be written ({error.strerror}); make its folder writable or name another one")
    return UserError(f"{path} cannot be written ({error.strerror or error})")


@contextmanager
def open_regular(path: Path) -> Iterator[io.BufferedReader]:
    """Open a regular file for reading.

    Raises:
        UserError: there is none, it may not be read, or it is something else: a folder, a pipe, a device.
    """
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind):
            what = "a folder" if stat.S_ISDIR(kind) else "a pipe, a socket or a device"
            raise UserError(f"{path} is {what}, where a file is meant")
        file = path.open("rb")
    except OSError as error:
        raise cannot_read(path, error) from error
    with file:
        yield file


def cannot_read(path: Path, error: OSError) -> UserError:
    """Return the sentence for a file that cannot be opened."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        link = path.is_symlink()
        return UserError(f"{path} is a link to a file that is not there" if link else f"there is no file {path}")
    if error.errno in NO_PERMISSION:
        return UserError(f"{path} may not be read ({error.strerror}); it is not touched: give yourself permission")
    return UserError(f"{path} cannot be read ({error.strerror or error})")


def read_bytes(path: Path) -> bytes:
    """Read a whole file.

    Raises:
        UserError: it cannot be opened.
    """
    with open_regular(path) as file:
        return file.read()


def can_be_written(folder: Path) -> bool:
    """Tell whether files can be put into a folder, which need not be there yet; nothing is left behind."""
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists() or path.is_symlink())
    except OSError:  # below a folder that may not be searched
        return False
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def sweep(folder: Path, pattern: str = ".*.part", older_than: float = ABANDONED_AFTER) -> None:
    """Remove temporary files that a killed process left.

    Args:
        folder: not searched below.
        pattern: of their names.
        older_than: seconds since the last write; 0 where a lock says that no other process writes here.
    """
    for part in folder.glob(pattern):
        with suppress(OSError):  # another process has just finished it, or it is not ours to remove
            if time.time() - part.stat().st_mtime >= older_than:
                part.unlink()


def sha256_of_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, read in pieces.

    Raises:
        UserError: it cannot be opened.
    """
    with open_regular(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
