"""Folders: created, checked before hours of work, locked against other processes; the user's home and cache."""

import errno
import tempfile
import warnings
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout
from platformdirs import user_cache_dir

from jlebm.errors import UserError
from jlebm.files import cannot_write

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents if they are missing.

    Raises:
        UserError: it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


def try_folder(folder: Path) -> None:
    """Create a folder if it is missing and try to write a file in it: permissions alone do not tell.

    Raises:
        UserError: no file can be created there.
    """
    make_folder(folder)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".trial.", suffix=".part"):
            pass
    except OSError as error:
        raise cannot_write(folder, error) from error


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
