"""Disks that are full at every stage of a run: a sentence, and once there is space the same command ends it."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jlebm import evaluation
from jlebm.data import cache, load, writable_cache
from jlebm.data.catalogue import CATALOGUE, Entry
from jlebm.errors import exit_on_user_error
from jlebm.evaluation import find_extractor, reference
from jlebm.evaluation.reference import KEPT_DIMENSION, KEPT_LAYER, _Entry, _rows
from jlebm.files import growing
from jlebm.run import Run
from reproduce.measuring.row_store import Rows
from reproduce.pipelines import joint, pictures
from reproduce.results import read_all
from tests.file_limit import limited
from tests.inception import partial_weights, random_state, small_inception, small_statistics
from tests.reliability import commands
from tests.reliability.worker import state

__all__ = ["partial_weights", "random_state", "small_inception", "small_statistics"]

STAGES = ("config.json", "checkpoint.pt", "posterior.npy")
SAMPLES = {"posterior.npy", "gaussian-prior.npy", "ebm-prior.npy"}
STAGES += ("samples.png", "energy.pdf", "training.png")


def refused(folder: Path, size: int, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command where no file may be as large as this; return the name of the file that its sentence tells of."""
    with limited(size - 1):
        code = commands.joint(folder)
    said = capsys.readouterr().err
    assert code == 2, said
    sentence = said.strip().splitlines()[-1]
    assert sentence.startswith("error: "), said
    assert sentence.endswith("would be larger than the limit for a file here (`ulimit -f`); raise it"), said
    assert not list(folder.rglob("*.part"))
    return Path(sentence.split()[1]).name


@pytest.mark.slow
def test_every_file_of_a_run_may_be_too_large(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks if a writer of a run ends in a traceback, or if the run is another one when there is space again.

    A limit stops the first file that is larger, so each file here is larger than those that are written before it.
    """
    whole = commands.fresh(tmp_path / "whole")
    assert commands.joint(whole) == 0
    sizes = {path.name: path.stat().st_size for path in whole.rglob("*") if path.name in STAGES}
    capsys.readouterr()
    folder = commands.fresh(tmp_path / "work")
    for name in ("config.json", "checkpoint.pt"):
        assert refused(folder, sizes[name], capsys) == name
    assert commands.joint(folder) == 0
    for name in ("posterior.npy", "samples.png", "energy.pdf", "training.png"):
        (path,) = folder.rglob(name)
        path.unlink()
        capsys.readouterr()
        # Samples of all sources are drawn again together, and are of one size: the first of them is told of.
        assert refused(folder, sizes[name], capsys) in ({name} if name != "posterior.npy" else SAMPLES)
        assert commands.joint(folder) == 0
    names = [[path.relative_to(each) for path in commands.artifacts(each)] for each in (folder, whole)]
    assert names[0] == names[1]
    rows = [[(row.metric, row.value) for row in read_all(each / "results/measured")] for each in (folder, whole)]
    assert rows[0] == rows[1]


@pytest.mark.slow
@pytest.mark.parametrize("kibibytes", [4, 24, 160])
def test_a_small_disk(tmp_path: Path, kibibytes: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The same on a real disk of which any part is full; breaks as the other does."""
    disk = tmp_path / "runs"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o"]
    if subprocess.run([*mount, f"size={kibibytes}k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a disk can't be mounted here")
    try:
        assert commands.joint(tmp_path) == 2
        # A disk that the samples do not fit on is refused before anything is written; any other is full on the way.
        first = f"--images 120 takes 2.3e-05 GB in all, and {disk} has" if kibibytes == 4 else ""
        assert f"error: {first or f'no space left to write {disk}'}" in capsys.readouterr().err
        assert not list(disk.rglob("*.part"))
        subprocess.run([*mount, "remount,size=64m", "tmpfs", disk], check=True)
        assert commands.joint(tmp_path) == 0
        assert list(disk.glob("*/training.png"))
        assert len(read_all(tmp_path / "results/measured")) == 3
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_reference_features_that_do_not_fit_are_a_sentence(tmp_path: Path) -> None:
    """Breaks if the file that is written in place, because a later process goes on in it, ends in a traceback."""
    entry = _Entry(tmp_path / "moments.npz", tmp_path / "features.npy", "key", 10)
    assert KEPT_LAYER
    row = bytes(4 * KEPT_DIMENSION)

    @exit_on_user_error
    def fill() -> None:
        with limited(20_000), _rows(entry, 0) as handle:
            for _ in range(10):
                handle.write(row)

    assert fill() == 2
    with _rows(entry, 0) as handle:
        handle.write(row)
    with _rows(entry, 1) as handle:
        handle.write(row)
    assert (tmp_path / "features.part").stat().st_size == 128 + 2 * len(row)
    with pytest.raises(ZeroDivisionError), growing(tmp_path / "features.part", "r+b"):
        _ = 1 / 0


# Where a run of the two-layer recipe is when its disk becomes full: the disk, what is about to write, and the file.
FULL = {
    "events": ("runs", Run, "append_event", "events.jsonl"),
    "weights": ("runs", joint, "save_model", "weights.safetensors"),
    "diagnostics": ("runs", pictures, "write_text", "diagnostics.json"),
    "rows": ("results", Rows, "add", "digits.jsonl"),
}


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """Make a folder a file system of its own; skip the test where nobody may."""
    folder.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("a disk can't be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> None:
    """Write until the kernel says that there is no space."""
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass
    assert shutil.disk_usage(disk).free == 0


def filled_before(owner: object, name: str, disk: Path, patch: pytest.MonkeyPatch) -> None:
    """Let the disk be full from the first call of a function on."""
    original = getattr(owner, name)

    def full(*arguments: object, **named: object) -> object:
        if not (disk / "filler").exists():
            fill(disk)
        return original(*arguments, **named)

    patch.setattr(owner, name, full)


@pytest.mark.slow
@pytest.mark.usefixtures("_pictures_in_no_time")
@pytest.mark.parametrize("case", FULL)
def test_a_disk_that_fills_up_in_a_run(tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks if a writer of a run ends in a traceback, or if with space the same command comes to other bytes or rows.

    Runs, results and data lie on file systems of their own, of which one is really full from a moment on.
    """
    name, owner, function, file = FULL[case]
    whole, work = commands.fresh(tmp_path / "whole"), commands.fresh(tmp_path / "work")
    assert commands.joint(whole) == 0
    capsys.readouterr()
    with mounted(work / name), pytest.MonkeyPatch.context() as patch:
        filled_before(owner, function, work / name, patch)
        assert commands.joint(work) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith(f"error: no space left to write {work / name}"), said
        assert f"/{file}; free some and run the same command again" in said
        assert not list(work.rglob("*.part"))
        patch.undo()
        (work / name / "filler").unlink()
        assert commands.joint(work) == 0
        for part in ("runs", "results"):
            ours, theirs = (state(folder / part) for folder in (work, whole))
            assert ours == theirs


CACHES = {
    "pixels": (cache, "_write_entry", ".npy", ()),
    "sums": (reference, "_go_through", ".npz", ("fid768",)),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CACHES)
def test_a_disk_of_data_that_fills_up(
    tmp_path: Path, case: str, small_inception: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if decoded pixels or reference statistics end in a traceback, or differ where there is space again."""
    owner, function, suffix, metrics = CACHES[case]
    root, pictures_folder = tmp_path / "root", tmp_path / "pictures"
    draw = np.random.default_rng(0)
    pictures_folder.mkdir()
    for index in range(60):
        pixels = draw.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures_folder / f"{index:02}.png")

    @exit_on_user_error
    def run() -> None:
        dataset = load("noise", root, download=False)
        extractor = find_extractor(root, download=False)
        images = np.array(dataset.images)[::-1]
        known = evaluation.ReferenceSet(dataset, writable_cache(root))
        found = evaluation.evaluate(images, known, extractor, torch.device("cpu"), metrics=metrics)
        values.append([score.value for score in found if isinstance(score, evaluation.Score)])

    values: list[list[float]] = []
    with mounted(root), pytest.MonkeyPatch.context() as patch:
        (root / "noise").symlink_to(pictures_folder)
        (root / small_inception.name).symlink_to(small_inception)
        patch.setitem(CATALOGUE, "noise", Entry("noise", shape=(8, 8, 1)))
        with pytest.MonkeyPatch.context() as full:
            filled_before(owner, function, root, full)
            assert run() == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith(f"error: no space left to write {root}"), said
        assert said.partition(";")[0].endswith(suffix)
        assert not list(root.rglob("*.part"))
        (root / "filler").unlink()
        assert run() == 0
        kept = {path.name: path.read_bytes() for path in (root / ".jlebm-cache").glob("*.np?")}
        shutil.rmtree(root / ".jlebm-cache")
        assert run() == 0
        assert values[0] == values[1]
        again = {path.name: path.read_bytes() for path in (root / ".jlebm-cache").glob("*.np?")}
        assert kept.keys() == again.keys()
        assert all(kept[name] == again[name] for name in kept if name.endswith(".npy"))
