"""The first thing to run on a GPU: does it compute what a CPU computes, how fast, and in what memory.

    python -m reproduce.benchmark.gpu_check
    python -m reproduce.benchmark.gpu_check --pretend    the same logic on a CPU, at small sizes, recordings on a tape

It takes under ten minutes. The last line says what works; the exit code is 0 if everything does, else 1. All findings,
times and versions go to a JSON file too, for a report of a fault.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jlebm.errors import exit_on_user_error
from reproduce.terminal.parsing import parse


@dataclass(frozen=True)
class Arguments:
    """What to check, and where to write it."""

    device: str = "cuda"
    """cuda, or cuda:1 for another GPU of several."""
    pretend: bool = False
    """Run on a CPU, where nothing is fast and nothing can be wrong but the checks themselves."""
    out: Path = Path("gpu_check.json")
    """The file of findings, times and versions."""


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
    """Check, print and write; return the exit code."""
    arguments = parse(Arguments, argv, __doc__)
    from reproduce.benchmark.checks_in_turn import run_checks  # here: --help needs no torch

    return run_checks(arguments)


if __name__ == "__main__":
    sys.exit(main())
