"""Whole commands in processes of their own: killed at any file, without a permission, one of several.

`JLEBM_KILLS=200 python -m pytest tests/reliability/test_processes.py -k killed` kills that many.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jlebm.engines import parallel
from jlebm.errors import UserError
from reproduce.results import read_all

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("JLEBM_KILLS", "4"))
PATIENCE = 300 + 30 * KILLS  # seconds


def start(job: str, folder: Path, *rest: str, **environment: str) -> "subprocess.Popen[str]":
    """Start a worker whose output is read later."""
    command = [sys.executable, "-m", "tests.reliability.worker", job, str(folder), *rest]
    named = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | environment
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, env=named)


def told(job: str, folder: Path, *rest: str) -> Any:
    """Return what a worker found."""
    out, errors = start(job, folder, *rest).communicate(timeout=PATIENCE)
    try:
        return json.loads(out.splitlines()[-1])
    except (ValueError, IndexError):
        raise AssertionError(errors) from None


@pytest.mark.slow
def test_a_run_that_is_killed_comes_to_the_same(tmp_path: Path) -> None:
    """Breaks if a kill between two operations on files changes a weight, a sample, an event or a row, or a folder."""
    found = told("kills", tmp_path, str(KILLS))
    assert found["differing"] == []
    assert found["kills"] >= KILLS
    assert found["operations"] > 100


@pytest.mark.slow
def test_a_permission_that_is_missing_is_a_sentence(tmp_path: Path) -> None:
    """Breaks if it is a traceback, or if what may not be read is called damaged and is to be removed."""
    found = told("denied", tmp_path)
    assert len(found) == 24
    # What is replaced whole need only be readable, and what lies below a folder only be found.
    enough = {
        f"{name} 444" for name in ("results/measured/digits.jsonl", "results/paper.toml", "results/expected.toml")
    }
    enough |= {"results 555", "runs 555"}
    for place, (code, said) in found.items():
        assert "Traceback" not in said, f"{place}: {said}"
        if place in enough or place.endswith("config.json 444"):
            continue
        assert code == 2, f"{place}: {said}"
        assert said.count("error: ") == 1, f"{place}: {said}"
        assert "damaged" not in said, place


@pytest.mark.slow
def test_a_permission_that_another_command_lacks_is_a_sentence(tmp_path: Path) -> None:
    """Breaks if check, evaluate, generate or the figures end in a traceback, or pass over what they may not read."""
    found = told("other_commands", tmp_path)
    assert len(found) == 35
    for place, (code, said) in found.items():
        assert "Traceback" not in said, f"{place}: {said}"
        assert code == 2, f"{place}: {said}"
        assert said.count("error: ") == 1, f"{place}: {said}"
        assert any(word in said for word in ("Permission denied", "cannot be written")), f"{place}: {said}"
        assert not any(word in said for word in ("damaged", "restore it", "not a whole")), f"{place}: {said}"


@pytest.mark.slow
def test_what_cannot_be_written_shows_before_the_training(tmp_path: Path) -> None:
    """Breaks if hours of training come before a results folder that is read-only."""
    found = told("unwritable", tmp_path)
    assert len(found) == 4
    for place, (code, said, trained) in found.items():
        assert code == 2, f"{place}: {said}"
        assert "cannot be written (Permission denied)" in said, f"{place}: {said}"
        assert not trained, place
        assert "seed 1:" not in said, place


def started(folder: Path, number: int, **environment: str) -> "list[subprocess.Popen[str]]":
    """Start two processes without torchrun, of which one gets a signal."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    meeting |= environment
    return [start("one_of_several", folder, str(number), RANK=str(rank), **meeting) for rank in range(2)]


def several(folder: Path, number: int) -> list[tuple[int, str]]:
    """Start two processes, of which the second one gets a signal; return exit codes and output."""
    both = started(folder, number)
    ended = [each.communicate(timeout=PATIENCE) for each in both]
    return [(each.returncode, said[1]) for each, said in zip(both, ended, strict=True)]


@pytest.mark.slow
def test_a_signal_to_one_of_several_stops_all(tmp_path: Path) -> None:
    """Breaks if only the first process's wish counts: a scheduler need not send its notice to that one."""
    (first, said), (second, _) = several(tmp_path, signal.SIGTERM)
    assert (first, second) == (130, 130), said
    assert "stopped at step 8 with a checkpoint" in said
    assert read_all(tmp_path / "results/measured") == []


@pytest.mark.slow
def test_a_process_that_is_lost_is_a_sentence(tmp_path: Path) -> None:
    """Breaks if the others wait for it for days, or end in a traceback of the communication's own."""
    (first, said), (second, _) = several(tmp_path, signal.SIGKILL)
    assert (first, second) == (2, -signal.SIGKILL), said
    assert "error: another process of this run is gone" in said
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_stays_silent_is_lost(tmp_path: Path, victim: int) -> None:
    """Breaks if a machine that is gone without closing its connections is waited for for days, or is a traceback."""
    both = started(tmp_path, signal.SIGSTOP, JLEBM_PATIENCE="20", VICTIM=str(victim))
    try:
        _, said = both[1 - victim].communicate(timeout=PATIENCE)
        assert both[victim].poll() is None, "it is stopped, and its connections are open"
    finally:
        both[victim].kill()
        both[victim].communicate()
    assert both[1 - victim].returncode == 2, said
    assert "error: another process of this run is gone, or has not answered for 20 seconds (JLEBM_PATIENCE)" in said
    assert "Traceback" not in said
    assert read_all(tmp_path / "results/measured") == []


@pytest.mark.parametrize("text", ["", "soon", "-3", "0", "nan", "inf"])
def test_a_patience_that_is_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if it is a traceback, or waits for ever."""
    monkeypatch.setenv("JLEBM_PATIENCE", text)
    with pytest.raises(UserError, match="JLEBM_PATIENCE is a positive number of seconds"):
        parallel.patience()


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_processes_that_nobody_told_where_to_meet(tmp_path: Path, missing: str) -> None:
    """Breaks if half of torchrun's environment, as a batch script leaves it, is a traceback."""
    meeting = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    environment = {name: value for name, value in meeting.items() if name != missing}
    worker = "from tests.reliability import commands; import sys; from pathlib import Path;"
    code = f"{worker} sys.exit(commands.joint(Path({str(tmp_path)!r})))"
    named = {name: value for name, value in os.environ.items() if name not in meeting} | environment
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=named | {"PYTHONPATH": str(ROOT)}
    )
    assert ran.returncode == 2, ran.stderr
    assert "do not find each other" in ran.stderr
    assert missing in ran.stderr
    assert "Traceback" not in ran.stderr
