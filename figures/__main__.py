"""Draw every figure and table whose artifacts are stored: `python -m figures [--out DIR] [--pictures]`."""

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from figures import pages, tables
from figures.common import ROOT, folder_for
from figures.registry import draw_stored
from jlebm.errors import exit_on_user_error
from jlebm.files import atomic_write
from reproduce.results.default_folder import RESULTS
from reproduce.terminal.parsing import parse


@dataclass(frozen=True)
class Arguments:
    """Draw figures and tables from stored artifacts."""

    out: Path | None = None
    """Output folder; by default build/figures."""
    results: Path = RESULTS
    """The folder with artifacts/, measured/, paper.toml and expected.toml."""
    pictures: bool = False
    """Whether to renew the pictures that README.md and the pages of docs show, too."""


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
    """Draw every stored figure, print which are missing and what makes them; return the exit code."""
    arguments = parse(Arguments, argv, __doc__)
    out = folder_for(arguments.out)
    drawn, missing = draw_stored(arguments.results, out)
    written = [*tables.draw(arguments.results, out), *pages.draw(arguments.results, out), *drawn]
    sys.stdout.writelines(f"{line}\n" for line in missing)
    if arguments.pictures:
        written += illustrate(ROOT, written)
    sys.stdout.writelines(f"{path}\n" for path in written)
    return 0


def illustrate(root: Path, drawn: Iterable[Path]) -> list[Path]:
    """Copy the drawn PNG files that README.md or a page of docs shows into the docs' pictures and return the copies."""
    shown, copies = pictures(root), []
    for path in drawn:
        if path.name in shown:
            copy = root / "docs" / "pictures" / path.name
            with atomic_write(copy) as file:
                file.write(path.read_bytes())
            copies.append(copy)
    return copies


def pictures(root: Path) -> set[str]:
    """Return the names of the docs' pictures that README.md and the pages of docs show."""
    shown = set()
    for page in (root / "README.md", *(root / "docs").glob("*.md")):
        shown |= set(re.findall(r"\]\((?:docs/)?pictures/([^)]+\.png)\)", page.read_text(encoding="utf-8")))
    return shown


if __name__ == "__main__":
    sys.exit(main())
