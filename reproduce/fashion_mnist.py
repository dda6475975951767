"""Fashion-MNIST by a ladder of three layers: hierarchical sampling, reconstruction, transitions.

    python -m reproduce.fashion_mnist                             the largest preset that this machine can run
    python -m reproduce.fashion_mnist --preset cpu --data-root DIR --seeds 1 2 3

Each seed trains a model with a joint EBM prior and its twin with a Gaussian one. The paper's own hierarchical models
are of other datasets and deeper backbones. Without Fashion-MNIST the first look uses digits.
"""

import sys
from collections.abc import Sequence

from jlebm.errors import exit_on_user_error
from reproduce.presets.ladder_sizes import grey28
from reproduce.presets.recipes import Recipe

DATASET = "fashion-mnist"

RECIPE = Recipe(DATASET, {}, fallback="digits28", ladder=grey28(DATASET))


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
    """Run the recipe; return the exit code."""
    from reproduce.pipelines.recipe import run_recipe  # here: presets are data, and importing them runs nothing

    return run_recipe(RECIPE, argv, __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
