"""SVHN by a ladder of three layers: hierarchical sampling and reconstruction, Langevin transitions, layer by layer.

    python -m reproduce.svhn                                      the largest preset that this machine can run
    python -m reproduce.svhn --preset cpu --data-root DIR --seeds 1 2 3
    python -m reproduce.svhn --preset cpu --dataset svhn-first1083

Each seed trains a model with a joint EBM prior and its twin with a Gaussian one. The paper reports FID 26.81 on SVHN
for joint maximum likelihood with two layers and 28.60 for the inference network (Tables 1 and 5): another model.
"""

import sys

from reproduce.presets.ladder_sizes import colour32
from reproduce.presets.recipes import Recipe, command

DATASET = "svhn"

# The subset of 1,083 images and the whole set are compared with the same number of images.
RECIPE = Recipe(DATASET, {}, fallback="photos", ladder=colour32(DATASET, reference_images=1_000))

main = command(RECIPE, __doc__)

if __name__ == "__main__":
    sys.exit(main())
