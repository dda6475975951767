"""Anomaly detection on MNIST with one digit held out: rows of the paper's Table 4.

    python -m reproduce.anomaly                                     a first look, every held-out digit
    python -m reproduce.anomaly --preset cpu --seeds 1 2 3
    python -m reproduce.anomaly --preset cpu --digits 1 9 --learning gaussian

For each digit and seed a ladder is trained on all other digits. The score of a test image is -L^{>0}, minus the
unnormalised log posterior at posterior samples (docs/facts, "Scores above a layer"). The held-out digit is the positive
class among all test images, so the AUPRC at chance is its share, about a tenth. Without MNIST, `tiny` takes the
embedded digits, every fifth of which is held out of training.
"""

import sys
from collections.abc import Sequence

from jlebm.errors import exit_on_user_error
from reproduce.pipelines.command_arguments import AnomalyArguments as Arguments
from reproduce.terminal.parsing import parse


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
    """Train and judge one model for each digit and seed; return the exit code."""
    arguments = parse(Arguments, argv, __doc__)
    from reproduce.pipelines.held_out_digits import run_anomaly  # here: --help needs no torch

    return run_anomaly(arguments)


if __name__ == "__main__":
    sys.exit(main())
