"""Draw every figure and table whose artifacts are stored: `python -m figures [--out DIR]`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from figures import langevin, measured, samples, tables
from jlebm.errors import UserError, exit_on_user_error

ROOT = Path(__file__).resolve().parents[1]
DRAWN_FROM_ARTIFACTS = (samples, langevin)


@dataclass(frozen=True)
class Arguments:
    """Draw figures and tables from stored artifacts."""

    out: Path = ROOT / "build" / "figures"
    """Where they go."""
    results: Path = ROOT / "results"
    """The folder with artifacts/, measured/, paper.toml and expected.toml."""


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
    """Draw what can be drawn, say what is missing and what would make it; return the exit code."""
    arguments = tyro.cli(Arguments, args=argv, description=__doc__)
    if arguments.out.exists() and not arguments.out.is_dir():
        raise UserError(f"{arguments.out} is a file; give a folder")
    written = [*tables.draw(arguments.results, arguments.out), *measured.draw(arguments.results, arguments.out)]
    for script in DRAWN_FROM_ARTIFACTS:
        for artifact in script.ARTIFACTS:
            path = artifact.path(arguments.results)
            if path.exists():
                written += script.draw(artifact, arguments.results, arguments.out)
            else:
                sys.stdout.write(f"not drawn: {path.name} does not exist; `{artifact.command}` makes it\n")
    for path in written:
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
