"""Folders: created, checked before hours of work, locked against other processes; the user's home and cache.

Why a path cannot be written is said here, for folders and for the files in them.
"""

import errno
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout
from platformdirs import user_cache_dir

from jlebm.errors import UserError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


def cannot_write(path: Path, error: OSError) -> UserError:
    """Return the error for a file or folder that cannot be written."""
    if error.errno in NO_SPACE:
        return UserError(f"no space left to write {path}; free some and run the same command again")
    if error.errno == errno.EFBIG:
        return UserError(f"{path} would be larger than the limit for a file here (`ulimit -f`); raise it")
    if error.errno in NO_PERMISSION:
        return UserError(f"{path} cannot be written ({error.strerror}); make its folder writable or name another one")
    return UserError(f"{path} cannot be written ({error.strerror or error})")


@contextmanager
def writes_to(path: Path) -> Iterator[None]:
    """Turn what the operating system raises inside the block into the error of `cannot_write`.

    Raises:
        UserError: an `OSError` was raised in the block.
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def make_folder(folder: Path) -> None:
    """Create a folder and its parents if they are missing.

    Raises:
        UserError: it cannot be created.
    """
    with writes_to(folder):
        folder.mkdir(parents=True, exist_ok=True)


def try_folder(folder: Path) -> None:
    """Create a folder if it is missing and try to write a file in it: permissions alone do not tell.

    Raises:
        UserError: no file can be created there.
    """
    make_folder(folder)
    with writes_to(folder), tempfile.NamedTemporaryFile(dir=folder, prefix=".trial.", suffix=".part"):
        pass


def locked(path: Path, elsewhere: str, wait: bool = True) -> BaseFileLock:
    """Take a lock that the operating system releases when the process ends, however it ends.

    Args:
        path: the lock's file, created if it is missing and never removed.
        elsewhere: advice if the file system has no locks: "choose --runs on another one".
        wait: whether to wait for another process that holds it.

    Returns:
        The lock, to be released or used as a context manager.

    Raises:
        filelock.Timeout: another process holds it and `wait` is false.
        UserError: the file cannot be written, or its file system has no locks.
    """
    lock = FileLock(path)
    missing = UserError(f"the file system of {path.parent} has no locks; {elsewhere}")
    try:
        with warnings.catch_warnings(action="ignore"):
            lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise
    except NotImplementedError as error:
        raise missing from error
    except OSError as error:
        raise (missing if error.errno in NO_LOCKS else cannot_write(path, error)) from error
    if isinstance(lock, SoftFileLock):  # filelock's fallback stays locked when a process is killed
        lock.release()
        raise missing
    return lock


def user_cache() -> Path | None:
    """Return this program's cache folder of the user, which need not exist yet.

    None if the user has no home folder, as in a container that runs under a bare user id.
    """
    try:
        folder = Path(user_cache_dir("jlebm"))
    except RuntimeError:  # in later releases of platformdirs; earlier ones return the "~"
        return None
    return folder if folder.is_absolute() else None  # an unexpanded "~" means no home folder


def expanded(path: Path) -> Path:
    """Return a path with its "~" expanded to the home folder.

    Raises:
        UserError: there is no such user, or the user has no home folder.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UserError(f"{path} is below an unknown home folder; give the path from / on") from error
