"""Table 2 of the paper: every system trained and evaluated under one protocol.

    python -m reproduce.table                                     every system at the machine's preset
    python -m reproduce.table --systems ddpm ncsn --preset cpu --seeds 1 2 3
    python -m reproduce.table --only-table --preset cpu           print the stored rows, run nothing

All have the same data, the same evaluator and the same time: about five minutes of one CPU core at `cpu`, an hour at
`long`, 20 minutes of a GPU at `budget`. The rows of NVAE and of ours come from `reproduce.cifar10 --model two-stage`.
The paper's values are shown for comparison and are no criterion.
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
    from reproduce.pipelines.run_table import run_table  # here: --help needs no torch

    return run_table(arguments)


if __name__ == "__main__":
    sys.exit(main())
