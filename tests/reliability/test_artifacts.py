"""A run that was killed, or out of disk, between two of its files: the same command makes what is missing."""

from pathlib import Path

import pytest

from figures import plotting
from jlebm.files import write_text
from reproduce.results import read_all
from tests.reliability.commands import COMMANDS, artifacts


@pytest.fixture(autouse=True)
def _pictures_in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a word where a figure would be drawn; which files there are is what is looked at."""

    def save(figure: object, stem: Path) -> list[Path]:
        paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("pdf", "png")]
        for path in paths:
            write_text(path, "a figure")
        return paths

    monkeypatch.setattr(plotting, "save", save)


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
