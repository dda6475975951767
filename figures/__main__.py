"""Draw every figure and table whose artifacts are stored: `python -m figures [--out DIR] [--readme]`."""

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from figures import pages, tables
from figures.common import ROOT, folder_for
from figures.registry import draw_stored
from jlebm.errors import UserError, exit_on_user_error
from jlebm.files import atomic_write
from reproduce.terminal.parsing import parse


@dataclass(frozen=True)
class Arguments:
    """Draw figures and tables from stored artifacts."""

    out: Path | None = None
    """Output folder; by default build/figures."""
    results: Path = ROOT / "results"
    """The folder with artifacts/, measured/, paper.toml and expected.toml."""
    readme: Path | None = None
    """A README.md whose pictures docs/NAME.png are replaced by the figures of the same names."""


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
    """Draw every stored figure, print which are missing and what makes them; return the exit code."""
    arguments = parse(Arguments, argv, __doc__)
    out = folder_for(arguments.out)
    drawn, missing = draw_stored(arguments.results, out)
    written = [*tables.draw(arguments.results, out), *pages.draw(arguments.results, out), *drawn]
    sys.stdout.writelines(f"{line}\n" for line in missing)
    if arguments.readme is not None:
        written += illustrate(arguments.readme, written)
    sys.stdout.writelines(f"{path}\n" for path in written)
    return 0


def illustrate(readme: Path, drawn: Iterable[Path]) -> list[Path]:
    """Copy the drawn PNG files that a README shows into its docs folder and return the copies.

    Raises:
        UserError: there is no such README.
    """
    if not readme.is_file():
        raise UserError(f"{readme} does not exist; give a README.md that shows docs/NAME.png")
    shown, copies = pictures(readme), []
    for path in drawn:
        if path.name in shown:
            copy = readme.parent / "docs" / path.name
            with atomic_write(copy) as file:
                file.write(path.read_bytes())
            copies.append(copy)
    return copies


def pictures(readme: Path) -> set[str]:
    """Return the names of the pictures in docs/ that a README shows."""
    return set(re.findall(r"\]\(docs/([^)]+\.png)\)", readme.read_text(encoding="utf-8")))


if __name__ == "__main__":
    sys.exit(main())
