"""Write all results, or those of some runs, into one HTML file: `python -m figures.report [--out FILE] [--run FOLDER]`.

The file needs no network and no server: tables that sort and filter, figures with sliders, training curves, the
provenance of each number, and what was never run.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from figures.report import all_results, of_run, write_page
from jlebm.errors import UserError, exit_on_user_error
from reproduce.results.default_folder import RESULTS
from reproduce.terminal.parsing import parse


@dataclass(frozen=True)
class Arguments:
    """Command-line options of the report."""

    out: Path | None = None
    """The HTML file: report.html here, or in the run's folder."""
    run: Path | None = None
    """The folder of a run, whose rows and pictures alone are shown; without it all stored results are."""
    results: Path = RESULTS
    """The folder with artifacts/, measured/, paper.toml and expected.toml."""


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
    """Write the page and say where; return the exit code."""
    arguments = parse(Arguments, argv, __doc__)
    if not arguments.results.is_dir():
        raise UserError(f"the results folder {arguments.results} does not exist")
    out = arguments.out or (arguments.run or Path()) / "report.html"
    if out.is_dir():
        raise UserError(f"{out} is a folder; give the name of an HTML file")
    contents = all_results(arguments.results) if arguments.run is None else of_run(arguments.run, arguments.results)
    size = write_page(contents, out)
    sys.stdout.write(f"{out} ({size / 1e6:.1f} MB): open it in a browser\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
