"""Files: written atomically, opened with a clear error.

Failures outside a file's content (no space, no permission, no such folder) become a `UserError` here, so that parsers
judge content alone: an unreadable file is never called damaged.
"""

import errno
import fnmatch
import hashlib
import io
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal

from jlebm.errors import UserError
from jlebm.folders import NO_PERMISSION, cannot_write, writes_to

ABANDONED_AFTER = 3600.0  # seconds without a write after which a half-written file is taken for a dead process's


class _Raw(io.FileIO):
    """A file that remembers why a write failed: torch, safetensors and matplotlib raise other errors instead."""

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


class _Handle(io.BufferedWriter):
    """A buffer without a file descriptor: Pillow and numpy would write past the buffer if they found one."""

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file for writing; at the end of the block it is flushed to disk and moved to `path`.

    At every moment `path` is either the whole previous file or the whole new one. The temporary file beside it has a
    random name and is opened exclusively, so that no two processes share one. A block that raises leaves the previous
    file and nothing else.

    Args:
        path: the file; missing folders are created.

    Yields:
        A binary file, which `torch.save`, `numpy.savez`, `Figure.savefig` and the like accept.

    Raises:
        UserError: there is no space, no permission, or the folder cannot be created.
    """
    part = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}.part")  # a name has 255 bytes at most
    with writes_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = _Raw(part, "xb")
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


@contextmanager
def growing(path: Path, mode: Literal["wb", "r+b"]) -> Iterator[BinaryIO]:
    """Open a file for writing in place, because a later process continues where this one stops.

    Raises:
        UserError: it cannot be opened, or a write fails.
    """
    with writes_to(path):
        raw = _Raw(path, mode)
    handle = _Handle(raw)
    try:
        yield handle
        handle.flush()
        os.fsync(raw.fileno())
    except Exception as error:
        if raw.failure is not None:
            raise cannot_write(path, raw.failure) from error
        raise
    finally:
        with suppress(OSError):
            handle.close()


def append_line(path: Path, line: str) -> None:
    """Append a line to a file, whole or not at all; a last line that a crash cut short is removed.

    Raises:
        UserError: the file cannot be written; it is unchanged except for such a cut line.
    """
    with writes_to(path), path.open("a+b", buffering=0) as file:
        end = _end_of_lines(file)
        file.truncate(end)
        try:
            rest = memoryview(f"{line}\n".encode())
            while rest:  # a disk that fills up accepts a part of it first
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(end)
            raise


def try_append(path: Path) -> None:
    """Check that `append_line` could write to a file.

    Raises:
        UserError: no line can be appended.
    """
    with writes_to(path):
        path.open("ab").close()


def _end_of_lines(file: io.FileIO) -> int:
    """Return the offset at which the last whole line of a file ends."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        block = min(end, 4096)
        file.seek(end - block)
        found = file.read(block).rfind(b"\n")
        if found >= 0:
            return end - block + found + 1
        end -= block
    return 0


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, atomically as `atomic_write` does."""
    with atomic_write(path) as file:
        file.write(text.encode())


@contextmanager
def open_regular(path: Path, what: str = "file") -> Iterator[io.BufferedReader]:
    """Open a regular file for reading.

    Args:
        path: the file.
        what: what the file is, for the message if it is missing.

    Raises:
        UserError: it is missing, unreadable, or no regular file: a folder, a pipe, a device.
    """
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind):
            what = "a folder" if stat.S_ISDIR(kind) else "a pipe, a socket or a device"
            raise UserError(f"{path} is {what}, not a file")
        file = path.open("rb")
    except OSError as error:
        raise cannot_read(path, error, what) from error
    with file:
        yield file


def cannot_read(path: Path, error: OSError, what: str = "file") -> UserError:
    """Return the error for a file that cannot be opened."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        link = path.is_symlink()
        return UserError(f"{path} is a link to a file that is not there" if link else f"there is no {what} {path}")
    if error.errno in NO_PERMISSION:
        return UserError(f"{path} may not be read ({error.strerror}); it is left as it is: change its permissions")
    return UserError(f"{path} cannot be read ({error.strerror or error})")


def read_bytes(path: Path) -> bytes:
    """Read a whole file.

    Raises:
        UserError: it cannot be opened.
    """
    with open_regular(path) as file:
        return file.read()


def files_in(folder: Path, pattern: str) -> list[Path]:
    """Return the paths in a folder whose names match a glob pattern, in order; none if there is no such folder.

    Raises:
        UserError: the folder may not be read, which `Path.glob` passes over.
    """
    try:
        return sorted(path for path in folder.iterdir() if fnmatch.fnmatchcase(path.name, pattern))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise cannot_read(folder, error) from error


def can_be_written(folder: Path) -> bool:
    """Tell whether files can be created in a folder, which need not exist yet; nothing is left behind."""
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists() or path.is_symlink())
    except OSError:  # below a folder that may not be searched
        return False
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def sweep(folder: Path, pattern: str = ".*.part", older_than: float = ABANDONED_AFTER) -> None:
    """Remove temporary files that a killed process left behind.

    Args:
        folder: where they are; subfolders are not searched.
        pattern: glob pattern of their names.
        older_than: seconds since the last write; 0 if a lock shows that no other process writes here.
    """
    for part in folder.glob(pattern):
        with suppress(OSError):  # another process has just finished it, or owns it
            if older_than == 0 or time.time() - part.stat().st_mtime >= older_than:
                part.unlink()


def sha256_of_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, read in pieces.

    Raises:
        UserError: it cannot be opened.
    """
    with open_regular(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
