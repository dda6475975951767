"""Folders: made, tried before hours of work, locked against other processes, and found where a user has them."""

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
    """Make a folder and those above it where they are not there.

    Raises:
        UserError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


def try_folder(folder: Path) -> None:
    """Make a folder where it is not there, and a file in it, which is removed again: permissions alone don't tell.

    Raises:
        UserError: no file can be put there.
    """
    make_folder(folder)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".trial.", suffix=".part"):
            pass
    except OSError as error:
        raise cannot_write(folder, error) from error


def locked(path: Path, elsewhere: str, wait: bool = True) -> BaseFileLock:
    """Take a lock, which the operating system gives up with the process, however that ends.

    Args:
        path: of the lock's file, made where it is not there; it stays.
        elsewhere: what to do where the file system has no locks: "choose --runs on another one".
        wait: for another process that holds it.

    Returns:
        The lock, to be released or used as a context.

    Raises:
        filelock.Timeout: another process holds it and is not waited for.
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
    if isinstance(lock, SoftFileLock):  # what filelock takes in its place stays when a process is killed
        lock.release()
        raise missing
    return lock


def user_cache() -> Path | None:
    """Return the user's cache folder of this program, which need not be there yet.

    None is for a user without a home folder, as in a container that runs under a bare number.
    """
    folder = Path(user_cache_dir("jlebm"))
    return folder if folder.is_absolute() else None  # "~" stays where nobody knows what it stands for


def expanded(path: Path) -> Path:
    """Return a path with its "~" replaced by the home folder.

    Raises:
        UserError: there is no such user, or it has no home folder.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UserError(f"{path} is below a home folder that nobody knows here; name it from / on") from error
