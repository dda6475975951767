"""What each part of a prior is worth: the paper's Tables 1 and 5 as one ladder, at equal time and equal generator.

    python -m reproduce.priors                                      a first look at all priors
    python -m reproduce.priors --preset cpu --seeds 1 2 3           ten minutes of one core for each prior and seed
    python -m reproduce.priors --preset cpu --dataset celeba64
    python -m reproduce.priors --preset cpu --dataset svhn-first1083 --priors abp lebm

Priors: vae, abp and lebm have one layer, gaussian-chains, gaussian-inference, joint-chains and joint-inference two.
VAE and ...-inference learn with an inference network, the others by posterior chains; lebm and joint-... have energies.
"""

import sys
from collections.abc import Sequence

from jlebm.errors import exit_on_user_error
from reproduce.pipelines.command_arguments import PriorsArguments as Arguments
from reproduce.terminal.parsing import parse


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
    """Train and measure each prior and seed that is asked for; return the exit code."""
    arguments = parse(Arguments, argv, __doc__)
    from reproduce.pipelines.run_priors import run_priors  # here: --help needs no torch

    run_priors(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
