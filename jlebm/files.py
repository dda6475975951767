"""Writing files so that an interruption, a full disk or a crash leaves the previous one whole."""

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from jlebm.errors import UserError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write(temporary path)` make the file, flush it to the disk, then move it into place.

    At every moment `path` is either the whole previous file or the whole new one.

    Raises:
        UserError: the disk is full; the previous file is untouched and the temporary one removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        with part.open("rb+") as handle:
            os.fsync(handle.fileno())
        part.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"no space left to write {path}; free some and run the same command again") from error
        raise
    finally:
        part.unlink(missing_ok=True)


def sha256_of_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, read in pieces."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
