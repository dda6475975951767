"""The whole table: every system trained and judged under one protocol, a row each of the paper's Table 2.

    python -m reproduce.table                                     every system at the machine's preset
    python -m reproduce.table --systems ddpm ncsn --preset cpu --seeds 1 2 3
    python -m reproduce.table --only-table --preset cpu           the stored rows, nothing is run

All have the same data, the same evaluator and, at `budget`, the same 20 minutes. The rows of NVAE and of ours are those
of `reproduce.cifar10 --model two-stage`. What the paper reports stands beside what is measured here and is no gate.
"""

import sys
from collections.abc import Sequence

from jlebm.errors import exit_on_user_error
from reproduce.pipelines.command_arguments import TableArguments as Arguments
from reproduce.terminal.parsing import parse


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
    """Train, sample and evaluate what is asked for, print the table; return the exit code."""
    arguments = parse(Arguments, argv, __doc__)
    from reproduce.pipelines.systems_in_turn import run_table  # here: --help needs no torch

    return run_table(arguments)


if __name__ == "__main__":
    sys.exit(main())
