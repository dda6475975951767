"""MNIST by a ladder of three layers: hierarchical sampling and reconstruction, Langevin transitions, layer by layer.

    python -m reproduce.mnist                                     the largest preset that this machine can run
    python -m reproduce.mnist --preset cpu --data-root DIR --seeds 1 2 3

Each seed trains a model with a joint EBM prior and its twin with a Gaussian one. The paper's own hierarchical models
are of other datasets and deeper backbones; MNIST is the data of its anomaly detection.
"""

import sys

from reproduce.presets.ladder_sizes import grey28
from reproduce.presets.recipes import Recipe, command

DATASET = "mnist"

RECIPE = Recipe(DATASET, {}, fallback="digits28", ladder=grey28(DATASET))

main = command(RECIPE, __doc__)

if __name__ == "__main__":
    sys.exit(main())
