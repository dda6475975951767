"""Benchmark: time each part against a plain implementation of the same mathematics, and how its cost grows.

    python -m reproduce.benchmark                          everything, ten minutes on two cores; one stored row per line
    python -m reproduce.benchmark --only "prior chain"     only lines that begin with this
    python -m reproduce.benchmark --peers                  also beside torchebm, JAX and blackjax
    python -m reproduce.benchmark --no-store               store nothing

Plain and ours run alternately in one process, after a check that both agree in float64 with the same noise; a line
shows medians. The floor is the number of operations divided by the speed of this machine's fastest kernel, which the
row names.
"""

import sys
from collections.abc import Sequence

from jlebm.config import MOST
from jlebm.errors import UserError, exit_on_user_error
from reproduce.benchmark.options import FEWEST, Arguments
from reproduce.terminal.parsing import parse


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
    """Time, print and store; return the exit code."""
    arguments = parse(Arguments, argv, __doc__)
    if not FEWEST <= arguments.repetitions <= MOST:
        bound = f"at least {FEWEST}" if arguments.repetitions < FEWEST else f"at most {MOST:,}"
        raise UserError(f"--repetitions must be {bound}, not {arguments.repetitions}")
    from reproduce.benchmark.timed import run_benchmark  # here: --help needs no torch

    return run_benchmark(arguments)


if __name__ == "__main__":
    sys.exit(main())
