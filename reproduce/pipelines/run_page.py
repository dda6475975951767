"""The page of one run, which every recipe leaves in the run's folder: its rows and pictures in one HTML file."""

from pathlib import Path

from jlebm.engines import parallel
from jlebm.run import Run
from reproduce.measuring.session import Session

PAGE = "report.html"


def leave_page(run: Run, session: Session, folder: Path) -> None:
    """Write the page of a run from the rows and pictures that it has so far, and report its path.

    Args:
        run: the open run.
        session: whose reporter receives the path.
        folder: the results folder.

    Raises:
        UserError: a stored row or an artifact is damaged, or the disk is full.
    """
    if not parallel.first():
        return
    from figures.report import of_run, write_page  # the template and the tables' library, when they are needed

    path = run.folder / PAGE
    write_page(of_run(run.folder, folder), path)
    session.report.line(f"all of this run on one page: {path}")
