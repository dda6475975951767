"""Anomaly detection on MNIST, a digit held out: rows of the paper's Table 4, under its two test sets.

    python -m reproduce.anomaly                                     a first look, every held-out digit
    python -m reproduce.anomaly --preset cpu --seeds 1 2 3
    python -m reproduce.anomaly --protocol 80-20 --learning two-stage --preset long --seeds 1 2 3
    python -m reproduce.anomaly --protocol 80-20 --learning joint-mle --model one-layer --preset cpu

For each digit and seed a model learns from images of all other digits, and the held-out digit is the positive class
among the test images. `--protocol official` judges the official test images, of which a digit is about a tenth;
`80-20` is the split of BiGAN's, MEG's and DAMC's code, of which it is a third or more (docs/facts, "Two test sets in
Table 4"). The literal score is -L^{>0}, minus the unnormalised log posterior at posterior samples (docs/facts, "Scores
above a layer"). Without MNIST `tiny` takes the embedded digits, of which each fifth image is held out of all training.
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
    from reproduce.pipelines.run_anomaly import run_anomaly  # here: --help needs no torch

    run_anomaly(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
