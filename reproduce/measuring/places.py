"""Folders of a command, checked before hours of work: written to and read from."""

from pathlib import Path

from jlebm.engines import parallel
from jlebm.folders import try_folder
from reproduce import results
from reproduce.results import rows


def try_places(folder: Path, runs: Path | None = None, artifacts: bool = False) -> None:
    """Create the folders that a command writes to, write and delete a file in each, and read the stored rows.

    Args:
        folder: the results folder; a new one has no expectations and no reported values.
        runs: the folder of the runs, if one is opened.
        artifacts: whether the command keeps arrays for the repository's figures.

    Raises:
        UserError: a folder cannot be written or has no locks, or a stored file cannot be read.
    """

    def attempt() -> None:
        if runs is not None:
            try_folder(runs)
        rows.hold(folder / "measured").release()
        try_folder(folder / "measured")
        if artifacts:
            try_folder(folder / "artifacts")
        results.read_all(folder / "measured")
        expected_of(folder)
        paper_of(folder)

    parallel.after_first(lambda: attempt() if parallel.first() else None)


def expected_of(folder: Path) -> list[results.Expectation]:
    """Return the expectations of a results folder; empty without an expected.toml."""
    path = folder / "expected.toml"
    return results.read_expected(path) if path.exists() else []


def paper_of(folder: Path) -> dict[str, results.Reported]:
    """Return the papers' reported values; empty without a paper.toml."""
    path = folder / "paper.toml"
    return results.read_paper(path) if path.exists() else {}
