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
