"""Disks that are full at every stage of a run: a sentence, and once there is space the same command ends it."""

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jlebm.errors import exit_on_user_error
from jlebm.evaluation.reference import KEPT_DIMENSION, KEPT_LAYER, _Entry, _rows
from jlebm.files import growing
from reproduce.results import read_all
from tests.reliability import commands

STAGES = ("config.json", "checkpoint.pt", "posterior.npy")
SAMPLES = {"posterior.npy", "gaussian-prior.npy", "ebm-prior.npy"}
STAGES += ("samples.png", "energy.pdf", "training.png")


@contextmanager
def limited(size: int) -> Iterator[None]:
    """Let no file of this process become larger; the kernel's own error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


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
