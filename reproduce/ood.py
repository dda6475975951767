"""Out-of-distribution detection with a trained ladder: the scores L^{>k} of Eq. 20 and their ratios.

    python -m reproduce.ood --run runs/fashion-mnist-variational-cpu-... --outside mnist
    python -m reproduce.ood --run runs/cifar10-... --outside svhn-first1083 --held-out cifar10-test1000
    python -m reproduce.ood --run runs/celeba64-... --held-out NAME --outside svhn --resize

Images outside are the positive class, detected by -L^{>k} and by LLR^{>k} = L^{>0} - L^{>k} (Havtorn et al., 2021)
among as many unseen images inside. With CIFAR-10 inside and SVHN outside the paper's AUROC is .087 at k = 0, where SVHN
is the likelier one, and .927 by LLR^{>9} (docs/facts, "Scores above a layer"). A score is averaged over `--draws` of
the latents; L^{>0} needs no chain, nor does a Gaussian twin.

The scores, L and LLR in nats without a change of sign, go to `ood_<outside>.npz` in the run's folder, and, for the
first seed of an EBM prior, to results/artifacts/<inside>_<model>_<preset>_ood_<outside>.npz.
"""

import sys
from collections.abc import Sequence

from jlebm.errors import exit_on_user_error
from reproduce.pipelines.command_arguments import OodArguments as Arguments
from reproduce.terminal.parsing import parse


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
    """Score, store and print; return the exit code."""
    arguments = parse(Arguments, argv, __doc__)
    from reproduce.pipelines.run_ood import run_ood  # here: --help needs no torch

    run_ood(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
