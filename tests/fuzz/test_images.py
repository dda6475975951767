"""Damaged images, arrays, archives and databases: whatever is changed in them, a reader reads or says a sentence.

An ordinary run tries a few hundred. `JLEBM_FUZZ=2000` tries as many, of which each format has its share.
"""

import io
import json
import os
import resource
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jlebm.data import load
from jlebm.errors import UserError
from jlebm.evaluation.sample_files import open_images

COUNT = int(os.environ.get("JLEBM_FUZZ", "300"))
LEAKS = ("allow_pickle", "max_header_size", "object at 0x", "\n")  # what other libraries say to programmers
MOST_MEMORY = 2**30  # bytes by which all the cases of one format may raise the process's memory
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
PIXELS[:, 16:48] = 7  # so that there is something to pack


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS[0]).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def array(save: Callable[..., object], **arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    if arrays:
        save(buffer, **arrays)
    else:
        save(buffer, PIXELS)
    return buffer.getvalue()


PICTURES = {
    "png": encoded("PNG"),
    "png-palette": encoded("PNG", "P"),
    "png-rgba": encoded("PNG", "RGBA"),
    "png-bit": encoded("PNG", "1"),
    "bmp": encoded("BMP"),
    "ppm": encoded("PPM"),
    "tiff": encoded("TIFF"),
    "tiff-lzw": encoded("TIFF", compression="tiff_lzw"),
    "webp": encoded("WEBP", lossless=True),
    "jpg": encoded("JPEG"),
}
LABELS = json.dumps({"labels": [["00000/0.png", 3], ["00000/1.png", 5]]}).encode()


def zipped(members: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


class Mutator:
    """Damages bytes in the ways in which disks, networks and hands do."""

    def __init__(self, seed: int):
        self.draw = np.random.default_rng(seed)

    def below(self, bound: int) -> int:
        """Draw a whole number from 0 on."""
        return int(self.draw.integers(max(1, bound)))

    def pick(self, choices: list[bytes]) -> bytes:
        """Draw one of several."""
        return choices[self.below(len(choices))]

    def __call__(self, data: bytes, others: list[bytes]) -> bytes:
        """Damage `data` one to three times; splices come from `others`."""
        for _ in range(1 + self.below(3)):
            data = self.once(data, self.pick(others))
        return data

    def once(self, data: bytes, other: bytes) -> bytes:
        """Damage at one place; half of them are where the headers are."""
        at = self.below(len(data) if self.below(2) else min(len(data), 160))
        length, start = 1 + self.below(40), self.below(len(other))
        match self.below(7):
            case 0:
                return data[:at] + bytes([data[at] ^ 1 << self.below(8)]) + data[at + 1 :] if data else data
            case 1:
                return data[: self.below(len(data) + 1)]
            case 2:
                return data[:at] + other[start : start + length] + data[at + length :]
            case 3:
                return data[:at] + other[start : start + length] + data[at:]
            case 4:
                extreme = self.pick([b"\xff" * 4, b"\xff" * 8, bytes(8), b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"9" * 12])
                return data[:at] + extreme + data[at + len(extreme) :]
            case 5:
                return data[:at] + data[at + length :]
            case _:
                return data[:at] + self.draw.bytes(length) + data[at + length :]


def samples(path: Path) -> None:
    images = open_images(path)
    assert images.dtype == np.uint8
    assert images.ndim == 4
    int(images.sum())


def faces(root: Path) -> None:
    load("celeba64", root, download=False)


def mutated_file(name: str, valid: list[bytes], read: Callable[[Path], None]) -> Callable[[Mutator, Path], None]:
    """Damage a file as a whole."""

    def attempt(mutate: Mutator, folder: Path) -> None:
        path = folder / name
        path.write_bytes(mutate(mutate.pick(valid), valid))
        read(path if read is samples else folder)

    return attempt


def mutated_member(mutate: Mutator, folder: Path) -> None:
    """Damage what is in a sound zip, so that no checksum stands before the readers of its content."""
    names, pictures = list(PICTURES), list(PICTURES.values())
    kind = names[mutate.below(len(names))]
    suffix = kind.split("-")[0]
    members = {"00000/0.png": PICTURES["png"], f"00000/1.{suffix}": mutate(PICTURES[kind], pictures)}
    packing = (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2)[mutate.below(4)]
    (folder / "x.zip").write_bytes(zipped(members, packing))
    samples(folder / "x.zip")


def mutated_picture(mutate: Mutator, folder: Path) -> None:
    """Damage pictures in a folder."""
    names, pictures = list(PICTURES), list(PICTURES.values())
    for index in range(2):
        kind = names[mutate.below(len(names))]
        (folder / f"{index}.{kind.split('-')[0]}").write_bytes(mutate(PICTURES[kind], pictures))
    samples(folder)


def mutated_labels(mutate: Mutator, folder: Path) -> None:
    """Damage the labels beside sound images."""
    others = [LABELS, b"[[[[[[[[" * 5000, b'{"labels": [["00000/0.png", 1' + b"0" * 30, b"\\ud800 NaN -1e999 null true"]
    members = {"00000/0.png": PICTURES["png"], "00000/1.png": PICTURES["png"], "dataset.json": mutate(LABELS, others)}
    (folder / "celeba64.zip").write_bytes(zipped(members))
    faces(folder)


def mutated_array_in_npz(mutate: Mutator, folder: Path) -> None:
    """Damage arrays in a sound npz."""
    valid = [array(np.save), array(lambda file, pixels: np.save(file, pixels.astype(np.int64)))]
    members = {"arr_0.npy": mutate(valid[0], valid), "arr_1.npy": mutate(valid[1], valid)}
    (folder / "x.npz").write_bytes(zipped(dict(list(members.items())[: 1 + mutate.below(2)])))
    samples(folder / "x.npz")


def mutated_cache(mutate: Mutator, folder: Path) -> None:
    """Damage what was kept of a dataset: it is decoded again, or what is left of it is sound."""
    members = {"00000/0.png": PICTURES["png"], "00000/1.png": PICTURES["png"], "dataset.json": LABELS}
    (folder / "celeba64.zip").write_bytes(zipped(members))
    faces(folder)
    kept = sorted((folder / ".jlebm-cache").iterdir())
    contents = [path.read_bytes() for path in kept]
    index = mutate.below(len(kept))
    kept[index].write_bytes(mutate(contents[index], contents))
    faces(folder)


def lmdb_bytes() -> bytes:
    lmdb = pytest.importorskip("lmdb")
    with tempfile.TemporaryDirectory() as place:
        with lmdb.open(place, map_size=2**22) as database, database.begin(write=True) as transaction:
            for index in range(40):
                kind = ("webp", "jpg", "png")[index % 3]
                transaction.put(f"{index:040x}".encode(), PICTURES[kind])
        return Path(place, "data.mdb").read_bytes()


def mutated_lmdb(valid: bytes) -> Callable[[Mutator, Path], None]:
    """Damage a database; every second time in the numbers of its first pages, or in the head of any other."""

    def attempt(mutate: Mutator, folder: Path) -> None:
        data = bytearray(valid)
        place = folder / "church_outdoor_train_lmdb"
        place.mkdir()
        if mutate.below(2):
            for _ in range(1 + mutate.below(3)):
                at = mutate.below(len(data) // 4096) * 4096 + mutate.below(64)
                data[at] ^= 1 << mutate.below(8)
        else:
            data = bytearray(mutate(valid, [valid]))
        (place / "data.mdb").write_bytes(data)
        load("church64", folder, download=False)

    return attempt


NPZ = [
    array(np.savez),
    array(np.savez_compressed),
    array(np.savez, images=PIXELS.astype(np.int32), labels=np.arange(4)),
    array(np.savez, a=PIXELS[..., 0]),
]
NPY = [array(np.save), array(lambda file, pixels: np.save(file, np.asfortranarray(pixels).astype(">i8")))]
EDM = [
    zipped({"00000/0.png": PICTURES["png"], "00000/1.png": PICTURES["png"], "dataset.json": LABELS}, kind)
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2)
]
# Each format with its share of the cases.
FORMATS: dict[str, tuple[float, Callable[[Mutator, Path], None]]] = {
    "npz": (0.12, mutated_file("x.npz", NPZ, samples)),
    "array in npz": (0.12, mutated_array_in_npz),
    "npy": (0.12, mutated_file("x.npy", NPY, samples)),
    "zip": (0.14, mutated_file("x.zip", EDM, samples)),
    "dataset zip": (0.1, mutated_file("celeba64.zip", EDM, faces)),
    "picture in zip": (0.14, mutated_member),
    "picture in folder": (0.1, mutated_picture),
    "labels": (0.06, mutated_labels),
    "cache": (0.06, mutated_cache),
    "lmdb": (0.04, lambda mutate, folder: mutated_lmdb(lmdb_bytes())(mutate, folder)),
}


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Path]:
    """Give an empty folder for each case."""

    def make() -> Path:
        shutil.rmtree(tmp_path / "case", ignore_errors=True)
        (tmp_path / "case").mkdir()
        return tmp_path / "case"

    return make


@pytest.mark.timeout(600 + COUNT)
@pytest.mark.parametrize("kind", FORMATS)
def test_damage_is_read_or_refused_by_a_sentence(fresh: Callable[[], Path], kind: str) -> None:
    """Breaks if any damage gets out as another exception, kills the process or takes its memory.

    The case that failed is in the message: the same number gives it again.
    """
    share, attempt = FORMATS[kind]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: Counter[str] = Counter()
    for case in range(max(3, round(COUNT * share))):
        try:
            attempt(Mutator(case), fresh())
            outcomes["read"] += 1
        except UserError as error:
            sentence = str(error)
            assert sentence, f"{kind}, case {case}"
            assert not any(word in sentence for word in ("allow_pickle", "weights_only", "object at 0x", "\n")), (
                sentence
            )
            outcomes["refused"] += 1
        except Exception as error:
            raise AssertionError(f"{kind}, case {case}: {type(error).__name__}: {error}") from error
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < MOST_MEMORY, f"{grown / 2**30:.2f} GiB"
    print(f"{kind}: {dict(outcomes)}, memory {grown / 2**20:.0f} MiB more")
    assert outcomes["refused"] or kind == "cache"
