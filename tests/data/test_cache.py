import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jlebm import files
from jlebm.data.cache import Decoded, Stamp, decode_once, writable_cache
from jlebm.data.formats import ImageSource, read_image_zip
from jlebm.errors import UserError
from jlebm.files import ABANDONED_AFTER


@pytest.fixture
def archive(make, images, labels, tmp_path: Path) -> Path:
    return make.zip(tmp_path / "x.zip", make.edm(images, labels))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def decode(archive: Path, folder: Path, opened: list[Path] | None = None) -> Decoded:
    """Decode a zip, noting in `opened` whether it had to be opened."""

    def open_source() -> ImageSource:
        if opened is not None:
            opened.append(archive)
        return read_image_zip(archive)

    return decode_once("x", Stamp.of(archive, [archive]), open_source, [folder], lambda source, digest: None)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_the_second_time_is_a_map_of_the_same_pixels(archive, folder, images, labels) -> None:
    """Breaks if files are decoded again, or what was kept differs from what was decoded."""
    opened = []
    first, second = decode(archive, folder, opened), decode(archive, folder, opened)
    assert opened == [archive]
    for entry in (first, second):
        assert isinstance(entry.images, np.memmap)
        assert not entry.images.flags.writeable
        np.testing.assert_array_equal(entry.images, images.transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(entry.labels, labels)
    assert first.digest == second.digest


def test_the_sidecar_says_what_was_decoded(archive, folder) -> None:
    """Breaks if a person cannot tell from the folder which file the pixels are of."""
    entry = decode(archive, folder)
    sidecar = json.loads(next(folder.glob("*.json")).read_text())
    assert sidecar["source"]["path"] == str(archive)
    assert sidecar["source"]["size"] == archive.stat().st_size
    assert sidecar["source"]["mtime_ns"] == archive.stat().st_mtime_ns
    assert sidecar["digest"] == entry.digest
    assert sidecar["shape"] == [7, 3, 32, 32]


def test_a_changed_source_is_decoded_again_and_replaces_the_old(make, archive, folder, images) -> None:
    """Breaks if pixels of a file that is no longer there are given, or old ones pile up."""
    before = decode(archive, folder)
    make.zip(archive, make.edm(images[::-1], None))
    after = decode(archive, folder)
    np.testing.assert_array_equal(after.images, images[::-1].transpose(0, 3, 1, 2))
    assert after.labels is None
    assert after.digest != before.digest
    assert len(names(folder)) == 2
    np.testing.assert_array_equal(before.images, images.transpose(0, 3, 1, 2))  # a map that is open stays whole


def test_a_change_of_one_file_in_a_folder_changes_the_stamp(tmp_path: Path) -> None:
    """Breaks if an image that is swapped for one of the same size in the same folder goes unnoticed."""
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        path.write_bytes(b"same")
        os.utime(path, ns=(5, 5))
    stamp = Stamp.of(tmp_path, paths)
    assert Stamp.of(tmp_path, reversed(paths)) == stamp
    os.utime(paths[0], ns=(4, 4))
    changed = Stamp.of(tmp_path, paths)
    assert changed == replace(stamp, listing=changed.listing)
    assert changed.listing != stamp.listing


@pytest.mark.parametrize("damage", ["cut", "gone", "sidecar", "version"])
def test_a_damaged_entry_is_decoded_again(archive, folder, images, damage: str) -> None:
    """Breaks if a kept file that lost bytes stops every later start, or is believed."""
    decode(archive, folder)
    sidecar = next(folder.glob("*.json"))
    pixels = sidecar.with_suffix(".npy")
    if damage == "cut":
        pixels.write_bytes(pixels.read_bytes()[:-1])
    elif damage == "gone":
        pixels.unlink()
    elif damage == "sidecar":
        sidecar.write_text(sidecar.read_text()[:40])
    else:
        sidecar.write_text(sidecar.read_text().replace('"format_version": 1', '"format_version": 0'))
    np.testing.assert_array_equal(decode(archive, folder).images, images.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), UserError("a cut image"), OSError(5, "disk")])
def test_an_interrupted_decode_leaves_nothing(archive, folder, images, stop: BaseException) -> None:
    """Breaks if half a dataset is taken for a whole one at the next start."""
    whole = read_image_zip(archive)

    def stream():
        for index, item in enumerate(whole):
            if index == 3:
                raise stop
            yield item

    stamp = Stamp.of(archive, [archive])
    with pytest.raises(type(stop)):
        decode_once("x", stamp, lambda: replace(whole, stream=stream), [folder], lambda source, digest: None)
    assert names(folder) == []
    np.testing.assert_array_equal(decode(archive, folder).images, images.transpose(0, 3, 1, 2))


def test_refused_pixels_are_not_kept(archive, folder) -> None:
    """Breaks if a copy that is not the official one is given at the second start."""

    def accept(source: ImageSource, digest: str) -> None:
        raise UserError("not the official ones")

    for _ in range(2):
        with pytest.raises(UserError, match="not the official"):
            decode_once("x", Stamp.of(archive, [archive]), lambda: read_image_zip(archive), [folder], accept)
    assert names(folder) == []


def test_a_full_disk_is_a_sentence(archive, folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a full disk leaves a traceback or a half-written file."""

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match="no space left"):
        decode(archive, folder)
    assert names(folder) == []


def test_a_killed_decode_is_cleaned_up_later(archive, folder) -> None:
    """Breaks if every killed process leaves a file for good, or a living one's file is taken away."""
    folder.mkdir()
    dead, alive = folder / ".x-0.npy.1.part", folder / ".x-0.npy.2.part"
    dead.touch()
    alive.touch()
    long_ago = time.time() - 2 * ABANDONED_AFTER
    os.utime(dead, (long_ago, long_ago))
    decode(archive, folder)
    assert not dead.exists()
    assert alive.exists()


@pytest.mark.slow
def test_two_processes_at_once(make, folder, tmp_path: Path) -> None:
    """Breaks if processes that decode the same files at the same time spoil each other's."""
    pixels = make.noise(400, 8, 8, 3)
    archive = make.zip(tmp_path / "many.zip", make.edm(pixels, None))
    command = (
        "import sys; from pathlib import Path; from jlebm.data.cache import Stamp, decode_once\n"
        "from jlebm.data.formats import read_image_zip\n"
        "archive, folder = Path(sys.argv[1]), Path(sys.argv[2])\n"
        "entry = decode_once('x', Stamp.of(archive, [archive]), lambda: read_image_zip(archive), [folder],\n"
        "                    lambda source, digest: None)\n"
        "print(entry.digest, int(entry.images.sum()))"
    )
    arguments = [sys.executable, "-c", command, str(archive), str(folder)]
    processes = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(answers) == 1
    assert answers.pop().split()[1] == str(int(pixels.sum()))
    assert len(names(folder)) == 2


def test_the_cache_is_in_the_root_wherever_that_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if results move to another folder, a misspelt root is made, or a read-only one stops everything."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    root = tmp_path / "parent" / "root"
    assert writable_cache(root) == root / ".jlebm-cache"
    assert not root.parent.exists()
    (root / ".jlebm-cache").mkdir(parents=True)
    assert writable_cache(root) == root / ".jlebm-cache"
    permitted = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: root not in (path, path.parent) and permitted(path, mode))
    assert writable_cache(root) == tmp_path / "user" / "jlebm" / "decoded"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match=f"neither {root}/.jlebm-cache nor {tmp_path}/user/.* can be written"):
        writable_cache(root)


SAME_NUMBER = """
import hashlib, os, sys, time
from pathlib import Path
os.getpid = lambda: 1  # as the only process of a container has
from jlebm.data.cache import Stamp, decode_once
from jlebm.data.formats import ImageSource, read_image_zip
archive, folder, slow = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
whole = read_image_zip(archive)
def stream():
    for item in whole:
        yield item
        time.sleep(slow)
source = ImageSource(whole.origin, whole.count, whole.shape, None, stream)
entry = decode_once("x", Stamp.of(archive, [archive]), lambda: source, [folder], lambda source, digest: None)
digest = hashlib.sha256()
for image in entry.images:
    digest.update(image.transpose(1, 2, 0).tobytes())
print(digest.hexdigest() == entry.digest, entry.digest)
"""


@pytest.mark.slow
def test_processes_of_one_number_do_not_serve_each_others_pixels(make, folder, tmp_path: Path) -> None:
    """Two containers over one data root: breaks if they write into one temporary file.

    The two archives have the same name for the cache's entries, so that even their final files would meet.
    """
    archives = []
    for index in range(2):
        (tmp_path / str(index)).mkdir()
        pixels = np.random.default_rng(index).integers(0, 256, (60, 8, 8, 3), np.uint8)
        archives.append(make.zip(tmp_path / str(index) / "x.zip", make.edm(pixels, None)))
    arguments = [(archives[0], 0.01), (archives[0], 0.005), (archives[1], 0.01)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SAME_NUMBER, str(archive), str(folder), str(slow)], stdout=subprocess.PIPE, text=True
        )
        for archive, slow in arguments
    ]
    answers = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert [answer[0] for answer in answers] == ["True"] * 3
    assert answers[0] == answers[1] != answers[2]
    assert not list(folder.glob(".*.part"))


@pytest.mark.parametrize(
    "sidecar",
    [
        "[]",
        "null",
        "[" * 10_000,
        '{"format_version": 1}',
        '{"format_version": 1, "labels": true, "shape": [7, 3, 32, 32], "digest": 5}',
        '{"format_version": 1, "labels": false, "shape": 5, "digest": "x"}',
        '{"format_version": 1, "labels": true, "shape": [7, 3, 32, 32], "digest": {}, "source": []}',
        '{"source": 3}',
        "\ud800",
    ],
)
def test_an_odd_sidecar_is_decoded_again(archive, folder, images, sidecar: str) -> None:
    """Breaks if a sidecar of any other content is believed, or leaves as a traceback, at the next start or a later."""
    decode(archive, folder)
    path = next(folder.glob("*.json"))
    other = folder / "x-0000000000000000.json"
    for odd in (path, other):
        odd.write_bytes(sidecar.encode(errors="surrogatepass"))
    np.testing.assert_array_equal(decode(archive, folder).images, images.transpose(0, 3, 1, 2))
    assert json.loads(path.read_text())["shape"] == [7, 3, 32, 32]


@pytest.mark.parametrize("array", ["labels", "pixels"])
def test_kept_arrays_of_another_kind_are_decoded_again(archive, folder, images, labels, array: str) -> None:
    """Breaks if labels or pixels of another type or number than the sidecar's are given."""
    decode(archive, folder)
    stem = next(folder.glob("*.json")).with_suffix("")
    np.save(f"{stem}.labels.npy" if array == "labels" else f"{stem}.npy", np.zeros((7, 3, 32, 32), np.float32))
    entry = decode(archive, folder)
    np.testing.assert_array_equal(entry.images, images.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(entry.labels, labels)
