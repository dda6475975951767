"""The folders of a command, tried before it works for hours: what it will write to, and what it will read."""

from pathlib import Path

from jlebm.engines import parallel
from jlebm.folders import try_folder
from reproduce import results
from reproduce.results import rows


def try_places(folder: Path, runs: Path | None = None, artifacts: bool = False) -> None:
    """Make the folders that a command writes to, put a file into each and take it away again, and read the stored rows.

    Args:
        folder: the results folder; in a new one nothing is expected and nothing reported.
        runs: where the runs' folders lie, where one is opened.
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
    """Read what is expected of a results folder's rows; nothing in one that has no expected.toml."""
    path = folder / "expected.toml"
    return results.read_expected(path) if path.exists() else []


def paper_of(folder: Path) -> dict[str, results.Reported]:
    """Read what the papers report; nothing in a results folder that has no paper.toml."""
    path = folder / "paper.toml"
    return results.read_paper(path) if path.exists() else {}
