"""Surroundings that are not as a desk's: no home, no locks, a notebook's backend, a notice in the last step."""

import errno
import fcntl
import os
import pwd
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jlebm.data.cache import cache_folders
from jlebm.data.loading import data_root
from jlebm.engines import parallel
from jlebm.errors import UserError
from jlebm.run import open_run
from jlebm.training import TrainState
from reproduce.results import append, read_all
from tests.reliability import commands
from tests.rows import ROW
from tests.small import experiment


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_a_sentence(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a run goes on unheld, or held by a file that a killed process leaves; or if it is a traceback."""

    def refuse(handle: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    said = "the file system of .* has no locks; choose --runs on another one"
    with pytest.raises(UserError, match=said), open_run(tmp_path, experiment(), 1):
        pass
    with pytest.raises(UserError, match="has no locks; choose --results on another one"):
        append(tmp_path / "measured/cifar10.jsonl", [ROW])
    monkeypatch.undo()
    with open_run(tmp_path, experiment(), 1):
        pass


def test_without_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a container's bare user number is a traceback, or if a folder called ~ is made."""

    def nobody(number: int) -> None:
        raise KeyError(number)

    for name in ("HOME", "XDG_CACHE_HOME", "JLEBM_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(
        UserError, match=r"no home folder here for data; name a folder with --data-root or \$JLEBM_DATA"
    ):
        data_root(None)
    with pytest.raises(UserError, match="below an unknown home folder"):
        data_root(Path("~/data"))
    assert data_root(tmp_path) == tmp_path
    assert cache_folders(tmp_path) == (tmp_path / ".jlebm-cache",)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense", "svg", ""])
def test_a_notebooks_backend_is_no_hindrance(tmp_path: Path, backend: str) -> None:
    """Breaks if a command that a notebook starts cannot draw; the variable is left as it was."""
    code = (
        "import os, sys; from pathlib import Path; import numpy as np; from figures import plotting\n"
        "plotting.save(plotting.image_grid(np.zeros((4, 3, 8, 8), np.uint8), columns=2), Path(sys.argv[1]))\n"
        "print(os.environ['MPLBACKEND'])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "grid")],
        capture_output=True,
        text=True,
        env=os.environ | {"MPLBACKEND": backend},
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == ("" if backend == "" else backend)
    assert (tmp_path / "grid.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_notice_in_the_last_step_ends_the_command(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if the command goes on to sample and to evaluate for hours after it was told to stop."""
    end = TrainState.end_step

    def told(self: TrainState) -> None:
        end(self)
        if self.step == 20:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(TrainState, "end_step", told)
    assert commands.joint(tmp_path) == 130
    assert "stopped at step 20 with a checkpoint; the same command continues from there" in capsys.readouterr().err
    assert read_all(tmp_path / "results/measured") == []
    monkeypatch.undo()
    assert commands.joint(tmp_path) == 0
    assert len(read_all(tmp_path / "results/measured")) == 3


def test_alone_a_wish_is_its_own() -> None:
    """One process needs no group."""
    assert parallel.anywhere(True) is True
    assert parallel.anywhere(False) is False
