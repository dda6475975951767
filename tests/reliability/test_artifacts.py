"""A run that was killed, or out of disk, between two of its files: the same command makes what is missing."""

from pathlib import Path

import pytest

from reproduce.results import read_all
from tests.reliability.commands import COMMANDS, artifacts

pytestmark = pytest.mark.usefixtures("_pictures_in_no_time")  # which files there are is what is looked at


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_each_file_comes_back(tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks if one artifact of a recipe is not looked for, or if a row is stored a second time for its sake."""
    run = COMMANDS[command]
    assert run(tmp_path) == 0
    whole, rows = artifacts(tmp_path), read_all(tmp_path / "results/measured")
    assert whole
    assert rows
    # Of the slow ones one of each kind of file, where all of a kind go the same way.
    slow = command in ("two-stage", "ladder")
    for path in {(path.parent, path.suffix): path for path in whole}.values() if slow else whole:
        path.unlink()
        assert run(tmp_path) == 0
        assert artifacts(tmp_path) == whole, f"{path} did not come back"
    assert read_all(tmp_path / "results/measured") == rows
    capsys.readouterr()
    assert run(tmp_path) == 0
    assert "measured before" in capsys.readouterr().err
