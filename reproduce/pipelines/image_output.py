"""Writing generated images: a raw array that survives a kill, then an .npz, a .zip or a folder.

While images are drawn they are appended to `.NAME.partial` beside the output: one line of JSON that describes the
request, then the uint8 images in whole batches. The same command continues after the last whole batch. The output is
written from that array at the end, completely or not at all, and contains the request.
"""

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from jlebm.data.listing import LABELS_FILE
from jlebm.errors import UserError
from jlebm.evaluation.sample_files import NPZ_KEY
from jlebm.files import atomic_write, can_be_written, cannot_read, open_regular, write_text
from jlebm.folders import cannot_write, writes_to

KEY = "jlebm"  # key of the request, in every format
PER_FOLDER = 1_000  # images per folder of a zip, as in StyleGAN's dataset tool
LONGEST_LINE = 2**24  # bytes of a partial array's first line
UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)

Write = Callable[[Path, np.ndarray, Sequence[int], dict[str, Any]], None]


def write_npz(path: Path, images: np.ndarray, seeds: Sequence[int], request: dict[str, Any]) -> None:
    """Write the arrays `arr_0` (uint8 (N, C, H, W)), `seeds` and `jlebm`, the request as JSON."""
    with atomic_write(path) as file:
        said = {"seeds": np.array(seeds, np.int64), KEY: np.array(json.dumps(request))}
        np.savez(file, **{NPZ_KEY: images}, **said)


def write_zip(path: Path, images: np.ndarray, seeds: Sequence[int], request: dict[str, Any]) -> None:
    """Write a StyleGAN/EDM dataset zip: 00000/img00000000.png, ... by seed, and dataset.json without labels."""
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for index, (seed, png) in enumerate(zip(seeds, _pngs(images), strict=True)):
            # With ZipInfo's own date, 1980: the same images are the same bytes.
            archive.writestr(zipfile.ZipInfo(f"{index // PER_FOLDER:05d}/{_name(seed, seeds)}"), png)
        archive.writestr(zipfile.ZipInfo(LABELS_FILE), json.dumps({"labels": None, KEY: request}))


def write_folder(path: Path, images: np.ndarray, seeds: Sequence[int], request: dict[str, Any]) -> None:
    """Write img00000000.png, ... by seed and dataset.json into a folder, which appears once it is complete."""
    part = path.with_name(f".{path.name}.folder")
    with writes_to(path):
        if part.exists():  # a killed process was writing it
            shutil.rmtree(part)
        part.mkdir(parents=True)
        for seed, png in zip(seeds, _pngs(images), strict=True):
            (part / _name(seed, seeds)).write_bytes(png)
        write_text(part / LABELS_FILE, json.dumps({"labels": None, KEY: request}))
        if path.exists():  # an empty folder
            path.rmdir()
        part.rename(path)


FORMATS: dict[str, Write] = {".npz": write_npz, ".zip": write_zip, "": write_folder}


def _name(seed: int, seeds: Sequence[int]) -> str:
    return f"img{seed:0{max(8, len(str(seeds[-1])))}d}.png"


def _pngs(images: np.ndarray) -> Iterator[bytes]:
    for image in images:
        content = io.BytesIO()
        Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(content, "png")
        yield content.getvalue()


@dataclass(frozen=True)
class Output:
    """Path and request of an output; files of another request are never touched."""

    path: Path
    seeds: Sequence[int]
    """In ascending order."""
    shape: tuple[int, int, int]
    request: dict[str, Any]
    """Everything that the images depend on, as plain JSON."""

    @property
    def partial(self) -> Path:
        """The partial array, which holds images until all are drawn."""
        return self.path.with_name(f".{self.path.name}.partial")

    @property
    def line(self) -> bytes:
        """First line of the partial array."""
        return json.dumps({KEY: self.request}, sort_keys=True).encode() + b"\n"

    def is_there(self) -> bool:
        """Whether the complete output exists.

        Raises:
            UserError: the path holds something else.
        """
        path = self.path
        if not path.exists() and not path.is_symlink():
            return False
        if path.suffix == "" and path.is_dir() and not any(path.iterdir()):
            return False
        if stored_request(path) != self.request:
            raise UserError(f"{path} is there already and holds something else; name another --out or move it away")
        return True

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the output against other processes.

        Raises:
            UserError: another process writes it, or its folder cannot be written.
        """
        if not can_be_written(self.path.parent):
            raise UserError(f"{self.path.parent} cannot be written; make it a writable folder or name another --out")
        path = self.path.with_name(f".{self.path.name}.lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(f"another process is writing {self.path}; wait for it or name another --out") from error
        except OSError as error:
            raise cannot_write(self.path, error) from error
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            lock.release()

    def drawn(self, batch_size: int) -> int:
        """Return the number of images in the partial array, in whole batches or all; create it if it is missing.

        Raises:
            UserError: it belongs to another request, or cannot be written.
        """
        if not self.partial.exists():
            with atomic_write(self.partial) as file:
                file.write(self.line)
            return 0
        with open_regular(self.partial) as file:
            if file.readline(LONGEST_LINE) != self.line:
                raise UserError(
                    f"{self.partial} holds images that another command began; run that one again, or delete the file"
                )
        each = int(np.prod(self.shape))
        count = min((self.partial.stat().st_size - len(self.line)) // each, len(self.seeds))
        count = count if count == len(self.seeds) else count // batch_size * batch_size
        with writes_to(self.partial):
            os.truncate(self.partial, len(self.line) + count * each)
        return count

    def append(self, batches: Iterable[np.ndarray]) -> Iterator[int]:
        """Append batches of images to the partial array; yield the length of each once it is on disk.

        Raises:
            UserError: no space is left; what was written stays.
        """
        with writes_to(self.partial), self.partial.open("ab") as file:
            for batch in batches:
                file.write(np.ascontiguousarray(batch).tobytes())
                file.flush()
                os.fsync(file.fileno())
                yield len(batch)

    def finish(self) -> None:
        """Write the output from the partial array, then delete the array.

        Raises:
            UserError: it cannot be written; the partial array stays.
        """
        shape = (len(self.seeds), *self.shape)
        images = np.memmap(self.partial, np.uint8, "r", offset=len(self.line), shape=shape)
        FORMATS[self.path.suffix.lower()](self.path, images, self.seeds, self.request)
        del images
        self.partial.unlink()


def stored_request(path: Path) -> dict[str, Any] | None:
    """Return the request stored in an output; None if there is none.

    Raises:
        UserError: the output cannot be read.
    """
    try:
        if path.is_dir():
            return json.loads((path / LABELS_FILE).read_text())[KEY]
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                return json.loads(archive.read(LABELS_FILE))[KEY]
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return json.loads(str(arrays[KEY]))
    except PermissionError as error:
        raise cannot_read(path, error) from error
    except UNREADABLE:
        return None


def check_format(path: Path) -> None:
    """Refuse a name without a known format.

    Raises:
        UserError: its suffix is neither .npz nor .zip nor empty, for a folder.
    """
    if path.suffix.lower() not in FORMATS or path.name in ("", ".."):
        raise UserError(f"--out {path} is none of NAME.npz, NAME.zip or NAME, a folder of PNG files")
