"""Files that were made to fill the memory or to stop a reader for ever: each costs what its header costs."""

import io
import json
import lzma
import os
import re
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jlebm.data.reading import member_bytes, opened_zip
from jlebm.errors import UserError

GIB = 2**30
SECONDS = 5.0
PREPARED = """
import json, os, resource, sys, time
from pathlib import Path
from jlebm.data import load
from jlebm.errors import UserError
from jlebm.evaluation.sample_files import open_images

resource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34))
readers = {"samples": open_images, "dataset": lambda root: load("celeba64", root, download=False)}
for line in sys.stdin:
    reader, path = line.rstrip("\\n").split(" ", 1)
    started = time.monotonic()
    inner, outer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            readers[reader](Path(path))
            said = "read"
        except UserError as error:
            said = f"UserError: {error}"
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(outer, said.encode()[:4000])
        os._exit(0)
    os.close(outer)
    with open(inner, "rb") as pipe:
        said = pipe.read().decode()
    _, _, used = os.wait4(pid, 0)
    print(json.dumps([said, used.ru_maxrss * 1024, time.monotonic() - started]), flush=True)
"""


def zeros(size: int, wrap: int = -15) -> bytes:
    """Deflate so many zero bytes in no time, from one packed piece that is repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wrap)
    start = packer.compress(b"\0") + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + piece * (size // 2**24) + packer.compress(bytes(size % 2**24)) + packer.flush()


def add(archive: zipfile.ZipFile, name: str, packed: bytes, size: int, kind: int = zipfile.ZIP_DEFLATED) -> None:
    """Put packed bytes into a zip as they are, with any size stated for them."""
    info = zipfile.ZipInfo(name)
    info.compress_type, info.file_size, info.compress_size, info.CRC = kind, size, len(packed), 0
    assert archive.fp is not None
    info.header_offset = archive.fp.tell()
    archive.fp.write(info.FileHeader(zip64=False) + packed)
    archive.filelist.append(info)
    archive.NameToInfo[name] = info
    archive.start_dir = archive.fp.tell()
    archive._didModify = True


def png(side: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


def wide_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    pixels = zeros((3 * width + 1) * height, 15)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def npy_header(shape: tuple[int, ...], dtype: str = "|u1") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def zipped(path: Path, *members: tuple[str, bytes, int]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", png())
        for name, packed, size in members:
            add(archive, name, packed, size)
    return path


def npz(path: Path, start: bytes, following: int, stated: int | None = None) -> Path:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH) + zeros(following)
    with zipfile.ZipFile(path, "w") as archive:
        add(archive, "arr_0.npy", packed, len(start) + following if stated is None else stated)
    return path


def understated_lzma(path: Path) -> Path:
    """A member in a format of which a few packed bytes can be any number."""
    filters = [{"id": lzma.FILTER_LZMA1, "preset": 0, "mode": lzma.MODE_FAST, "nice_len": 273}]
    packer = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=filters)
    properties = lzma._encode_filter_properties(filters[0])
    packed = struct.pack("<BBH", 9, 4, len(properties)) + properties
    packed += b"".join(packer.compress(bytes(2**24)) for _ in range(8)) + packer.flush()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", png())
        add(archive, "b.png", packed, 2**27 // 10, zipfile.ZIP_LZMA)
    return path


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> Path:
    path.mkdir()
    (path / "a.png").write_bytes(png())
    return path


def sparse(path: Path, start: bytes = b"") -> Path:
    """A file of 3 GiB that takes no room on the disk."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(3 * GIB)
    return path


def with_file(path: Path, make: Callable[[Path], object], name: str = "b.png") -> Path:
    make(folder(path) / name)
    return path


def dataset(path: Path, name: str, make: Callable[[Path], object]) -> Path:
    path.mkdir()
    make(path / name)
    return path


def shards(path: Path) -> Path:
    path.mkdir()
    for index in range(3):
        npz(path / f"{index}.npz", npy_header((GIB // 3072, 32, 32, 3)), GIB // 3072 * 3072)
    return path


STORED = 3 * GIB // 3072 * 3072
ARRAY = npy_header((STORED // 3072, 32, 32, 3))
DEEP = b"[" * 60_000
SAMPLES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a picture in a zip": (lambda at: zipped(at / "x.zip", ("b.png", zeros(3 * GIB), 3 * GIB)), "b.png in .* unpacks"),
    "understated": (lambda at: zipped(at / "x.zip", ("b.png", zeros(3 * GIB), 999)), "b.png in .* cannot be unpacked"),
    "a wide picture": (
        lambda at: with_file(at / "x", lambda path: path.write_bytes(wide_png(13_000, 13_000)), "0.png"),
        "0.png in .* is 13000 x 13000 pixels",
    ),
    "a wide picture behind": (
        lambda at: with_file(at / "x", lambda path: path.write_bytes(wide_png(13_000, 13_000))),
        "b.png in .* is 13000 x 13000 pixels .* must be 64 x 64",
    ),
    "a large file": (lambda at: with_file(at / "x", sparse), "b.png has 3.0 GiB"),
    "a pipe": (lambda at: with_file(at / "x", os.mkfifo), "b.png is a pipe"),
    "a device": (
        lambda at: with_file(at / "x", lambda path: path.symlink_to("/dev/zero")),
        "b.png is a pipe, a socket",
    ),
    "a pipe for arrays": (lambda at: (os.mkfifo(at / "x.npz"), at / "x.npz")[1], "x.npz is a pipe"),
    "a device for a zip": (lambda at: (device(at / "x.zip"), at / "x.zip")[1], "x.zip is a pipe"),
    "an npz": (lambda at: npz(at / "x.npz", ARRAY, STORED), "x.npz unpacks from .* to 3.0 GiB, as no images do"),
    "npz shards": (lambda at: shards(at / "x"), "x.*0.npz unpacks from"),
    "an npz that overstates": (lambda at: npz(at / "x.npz", npy_header((10**12, 32, 32, 3)), 99), "cannot be unpacked"),
    "an npz that understates": (
        lambda at: npz(at / "x.npz", npy_header((1, 32, 32, 3)), STORED),
        "more than its header",
    ),
    "an npz that lies twice": (
        lambda at: npz(at / "x.npz", ARRAY, 99, len(ARRAY) + STORED),
        "cannot be unpacked|as no",
    ),
    "a header": (lambda at: npz(at / "x.npz", b"\x93NUMPY\2\0\xff\xff\xff\xbf", 3 * GIB), "its header is too long"),
    "an npy": (lambda at: sparse(at / "x.npy", npy_header((10**12, 32, 32, 3))), "shorter than its header says"),
    "an npy of wide numbers": (lambda at: sparse(at / "x.npy", b"\x93NUMPY\2\0\xff\xff\xff\xbf"), "header is too long"),
}
DATASETS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "labels": (
        lambda at: dataset(
            at / "r", "celeba64.zip", lambda path: zipped(path, ("dataset.json", zeros(3 * GIB), 3 * GIB))
        ),
        "dataset.json in .* unpacks to 3.0 GiB",
    ),
    "labels in a folder": (
        lambda at: dataset(at / "r", "celeba64", lambda path: with_file(path, sparse, "dataset.json")),
        "dataset.json has 3.0 GiB",
    ),
    "a device for labels": (
        lambda at: dataset(
            at / "r",
            "celeba64",
            lambda path: with_file(path, device, "dataset.json"),
        ),
        "dataset.json is a pipe, a socket or a device",
    ),
    "deep labels": (
        lambda at: dataset(
            at / "r", "celeba64", lambda path: with_file(path, lambda file: file.write_bytes(DEEP), "dataset.json")
        ),
        "dataset.json in .* is nested too deeply",
    ),
    "a pipe for a dataset": (lambda at: dataset(at / "r", "celeba64.zip", os.mkfifo), "celeba64.zip is a pipe"),
}


@pytest.fixture(scope="module")
def judge():
    """Read a file in a process of its own; give what came of it, the memory that it took and the time."""
    command = [sys.executable, "-c", PREPARED]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def judged(reader: str, path: Path) -> tuple[str, int, float]:
            process.stdin.write(f"{reader} {path}\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        judged("samples", Path("nowhere"))  # imports and first calls
        yield judged
        process.stdin.close()


@pytest.mark.parametrize("case", [*SAMPLES, *(f"dataset: {name}" for name in DATASETS)])
def test_a_bomb_costs_its_header(judge, tmp_path: Path, case: str) -> None:
    """Breaks if anything is allocated, unpacked or waited for before its size and its kind were looked at."""
    reader = "dataset" if case.startswith("dataset: ") else "samples"
    make, sentence = DATASETS[case.removeprefix("dataset: ")] if reader == "dataset" else SAMPLES[case]
    said, memory, seconds = judge(reader, make(tmp_path))
    assert said.startswith("UserError: ")
    assert re.search(sentence, said), said
    assert memory < GIB, f"{memory / GIB:.2f} GiB"
    assert seconds < SECONDS, f"{seconds:.1f} s"


def test_a_sidecar_without_end_is_not_read(judge, tmp_path: Path) -> None:
    """Breaks if a cache's own small file is read whatever its size: the dataset is decoded again instead."""
    root = dataset(tmp_path / "r", "celeba64.zip", zipped)
    assert judge("dataset", root)[0] == "read"
    (sidecar,) = (root / ".jlebm-cache").glob("*.json")
    for make in (sparse, device, os.mkfifo):
        sidecar.unlink()
        make(sidecar)
        said, memory, seconds = judge("dataset", root)
        assert said == "read"
        assert memory < GIB
        assert seconds < SECONDS
        assert sidecar.read_text().startswith("{")


def test_a_format_that_packs_without_bound_is_unpacked_in_pieces(tmp_path: Path) -> None:
    """Breaks if an LZMA member that states a tenth of its 128 MiB is unpacked to all of them before it is refused."""
    path = understated_lzma(tmp_path / "x.zip")
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"b\.png in .* cannot be unpacked"), opened_zip(path) as archive:
            member_bytes(archive, archive.getinfo("b.png"), path)
        assert tracemalloc.get_traced_memory()[1] < 2**26 + 2**25
    finally:
        tracemalloc.stop()
