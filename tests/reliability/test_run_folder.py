"""A run's own files: cut, damaged, left behind, unreadable, on a disk that is full."""

import copy
import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from jlebm.errors import UserError
from jlebm.files import append_line
from jlebm.run import Run, open_run
from jlebm.training import fit
from tests.small import IMAGES, experiment, train


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was stopped after a few steps."""
    return train(tmp_path_factory.mktemp("stopped"), stop_after=12)[0]


@pytest.fixture
def run(stopped: Run, tmp_path: Path) -> Run:
    """A copy of that run, which a test may damage."""
    return dataclasses.replace(stopped, folder=shutil.copytree(stopped.folder, tmp_path / stopped.folder.name))


@pytest.mark.parametrize("tail", [b'{"step": 30, "lo', b"\0" * 700, b"\xff\xfe", b'{"step": 2' + b" " * 9000])
def test_a_cut_last_event_is_taken_away(run: Run, tail: bytes) -> None:
    """Breaks if the next event is joined to it, or if the events of before are lost with it."""
    path = run.folder / "events.jsonl"
    before = run.events()
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    assert run.events() == before
    run.append_event({"step": 13, "loss": 1.0})
    assert path.read_bytes() == whole + b'{"step": 13, "loss": 1.0}\n'
    path.write_bytes(tail)
    append_line(path, "first")
    assert path.read_bytes() == b"first\n"


@pytest.mark.parametrize("line", [b"\0" * 40, b"\xff", b"[1]", b'{"loss": 1}', b'{"step": "1"}', b"[" * 100_000])
def test_a_damaged_event_is_a_sentence(tmp_path: Path, run: Run, line: bytes) -> None:
    """Breaks if a line in the middle that power loss left full of zeros is a traceback, or is dropped unsaid."""
    path = run.folder / "events.jsonl"
    path.write_bytes(path.read_bytes() + line + b"\n" + b'{"step": 12}\n')
    with pytest.raises(UserError, match=r"events\.jsonl, line 3: this event is damaged; remove the line"):
        train(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 300, b"{}", b"[1]", b"null", b'{"config": 1', b"\xff", b"[" * 100_000]
)
def test_a_damaged_configuration_is_a_sentence(tmp_path: Path, run: Run, content: bytes) -> None:
    """Breaks if it is a traceback, or if what the sentence advises does not help."""
    config = run.folder / "config.json"
    config.write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json is empty or damaged; remove it"):
        train(tmp_path)
    config.unlink()
    train(tmp_path)
    assert json.loads(config.read_text()) == run.header()


def test_what_was_left_half_written_is_swept_under_the_lock(tmp_path: Path, run: Run) -> None:
    """Breaks if temporary files pile up in a run's folders, or are taken from a process that is at work."""
    samples = run.folder / "samples"
    samples.mkdir()
    for folder in (run.folder, samples):
        (folder / ".posterior.npy.0123.part").touch()
        (folder / "kept.part").touch()
    with open_run(tmp_path, experiment(), 1):
        assert [path.name for path in run.folder.rglob("*.part")] == ["kept.part"] * 2
        (samples / ".living.npy.0123.part").touch()
        with pytest.raises(UserError, match="another process is working"), open_run(tmp_path, experiment(), 1):
            pass
        assert (samples / ".living.npy.0123.part").exists()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of a megabyte, where this process may."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("a disk can't be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_an_event_on_a_full_disk_is_whole_or_not_there(disk: Path) -> None:
    """Breaks if a part of it stays, or if the run can't be read or goes on once there is space again."""
    import torch

    with open_run(disk, experiment(), 1) as run:
        fit(run, IMAGES, torch.device("cpu"))
        path = run.folder / "events.jsonl"
        append_line(path, json.dumps({"step": 24, "filled": "x" * (4096 - path.stat().st_size % 4096 - 90)}))
        before = path.read_bytes()
        filler = os.open(disk / "filler", os.O_WRONLY | os.O_CREAT)
        with suppress(OSError):  # no space is left
            while True:
                os.write(filler, bytes(4096))
        os.close(filler)
        with pytest.raises(UserError, match=rf"^no space left to write {path}; free some"):
            run.append_event({"step": 24, "diagnostics": "y" * 600})
        assert path.read_bytes() == before
        (disk / "filler").unlink()
        run.append_event({"step": 24, "diagnostics": "y" * 600})
        assert len(run.events()) == 5


@pytest.mark.parametrize(
    ("changes", "seed", "sentence"),
    [
        ({"preset": "../../mine"}, 1, "preset '../../mine' is a part of the name of the run's folder"),
        ({"dataset": ""}, 1, "dataset '' is a part of the name"),
        ({"dataset": ".."}, 1, r"dataset '\.\.' is a part of the name"),
        ({}, -1, "the seed must be a whole number from 0 up, not -1"),
        ({"energy_hidden": (16, 16)}, 1, "'energy_hidden' cannot be 16"),
        ({"training": {"steps": 1.5}}, 1, r"'training\.steps' cannot be 1\.5; give a whole number"),
    ],
)
def test_what_is_no_run_makes_no_folder(tmp_path: Path, changes: dict, seed: int, sentence: str) -> None:
    """Breaks if a run lay outside its root, or a wrong type were found out after the folder had been made."""
    one = experiment()
    for name, value in changes.items():
        held = getattr(one, name)
        if isinstance(value, dict):
            value = copy.copy(held)
            object.__setattr__(value, "steps", changes[name]["steps"])  # as Python, without a type checker, takes it
        one = copy.copy(one)
        object.__setattr__(one, name, value)
    with pytest.raises(UserError, match=sentence), open_run(tmp_path / "runs", one, seed):
        pass
    assert list(tmp_path.iterdir()) == []
