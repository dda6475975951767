"""The first thing to run on a GPU: does it compute what a CPU computes, how fast, and in what memory.

    python -m reproduce.benchmark.gpu_check
    python -m reproduce.benchmark.gpu_check --pretend    the same logic on a CPU, at small sizes, recordings on a tape

It takes under ten minutes. The last line says what works; the exit code is 0 if everything does, else 1. All findings,
times and versions go to a JSON file too, for a report of a fault.
"""

import sys
from collections.abc import Sequence

from jlebm.errors import exit_on_user_error
from reproduce.benchmark.options import CheckArguments
from reproduce.terminal.parsing import parse


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
    """Check, print and write; return the exit code."""
    arguments = parse(CheckArguments, argv, __doc__)
    from reproduce.benchmark.checks_in_turn import run_checks  # here: --help needs no torch

    return run_checks(arguments)


if __name__ == "__main__":
    sys.exit(main())
