"""Write results into the cache folder: one process at a time per result, clear errors if it cannot be written."""

import errno
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import Timeout

from jlebm.errors import UserError
from jlebm.folders import locked
from jlebm.progress import Reporter

# Error numbers of a folder that cannot be written; a read-only disk gives EROFS, which is not a PermissionError.
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def writing(cache: Path) -> Iterator[None]:
    """Create the cache folder and turn failed writes inside the block into clear errors.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno in UNWRITABLE:
            raise UserError(f"the cache folder {cache} cannot be written ({error.strerror}); name another") from error
        if error.errno in FULL:
            raise UserError(f"no space left in {cache}; free some and run the same command again") from error
        raise


@contextmanager
def held(locks: Iterable[Path], name: str, report: Reporter) -> Iterator[None]:
    """Lock results against other processes; wait for a process that holds a lock.

    Args:
        locks: one lock file per result, created if it is missing and never removed.
        name: what is computed, for the message about the wait.
        report: told about a wait.
    """
    with ExitStack() as stack:
        for path in sorted(locks):  # in one order, so that no two wait for each other
            elsewhere = "name a --data-root on another one"
            try:
                lock = locked(path, elsewhere, wait=False)
            except Timeout:
                report.line(f"another process computes the {name}; waiting for it")
                lock = locked(path, elsewhere)
            stack.callback(lock.release)
        yield
