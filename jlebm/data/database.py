"""Read the entries of an LMDB in a child process: a damaged database can crash the process that maps it."""

import importlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from jlebm.data.database_entries import SIZES
from jlebm.data.reading import LARGEST_IMAGE_FILE
from jlebm.errors import UserError
from jlebm.files import open_regular


def count_entries(path: Path) -> int:
    """Count the entries of a database.

    Raises:
        UserError: the `lmdb` package is not installed, or the database cannot be read, is damaged or cut short.
    """
    with _reader(path, 0) as out:
        _, number = _entry(out)
        return int(number)


def entries(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Iterate over the keys and values of a database in the order of the keys.

    Raises:
        UserError: as `count_entries`; if the damage lies after the entries read so far, it is raised after them.
    """
    with _reader(path, LARGEST_IMAGE_FILE) as out:
        while True:
            key, value = _entry(out)
            if not key:
                return
            yield key, value


class _Ended(Exception):
    """The process ended before its last entry."""


@contextmanager
def _reader(path: Path, limit: int) -> Iterator[IO[bytes]]:
    try:
        importlib.import_module("lmdb")
    except ImportError as error:
        raise UserError(f"{path} needs the lmdb package to be read; run: python -m pip install lmdb") from error
    with open_regular(path / "data.mdb"):
        pass
    script = Path(__file__).with_name("database_entries.py")
    command = [sys.executable, "-P", str(script)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[bytes] = []
    listener = threading.Thread(target=lambda errors: said.append(errors.read(2**16)), args=(process.stderr,))
    listener.start()
    with suppress(BrokenPipeError), process.stdin as wanted:  # it has ended already, and its output says why
        wanted.write(f"{limit} {path}\n".encode(errors="surrogateescape"))
    try:
        yield process.stdout
    except _Ended as error:
        listener.join()
        why = said[0].decode(errors="replace").strip().splitlines()[-1:] or ["its pages lead out of the file"]
        raise UserError(f"{path} is not a whole LMDB ({why[0]}); copy or download it again") from error
    finally:
        process.kill()
        process.wait()
        listener.join()
        process.stdout.close()
        process.stderr.close()


def _entry(out: IO[bytes]) -> tuple[bytes, bytes]:
    head = _exactly(out, SIZES.size)
    key_size, value_size = SIZES.unpack(head)
    return _exactly(out, key_size), _exactly(out, value_size)


def _exactly(out: IO[bytes], size: int) -> bytes:
    data = out.read(size)
    if len(data) < size:
        raise _Ended
    return data
