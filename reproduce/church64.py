"""LSUN-Church-64 in two stages: energies on a deep hierarchy, a row of the paper's Table 3.

    python -m reproduce.church64                                  a first look
    python -m reproduce.church64 --preset paper --data-root DIR
    python -m reproduce.church64 --preset paper --backbone-checkpoint FILE

The data root holds church64-64x64.zip (a StyleGAN/EDM dataset zip), a folder church64/ of 64x64 images, or LSUN's own
church_outdoor_train_lmdb/. The paper reports FID 8.38, and 38.13 for the backbone alone (50,000 images, Table 3).
"""

import sys

from reproduce.celeba64 import ENERGIES_64, TEST_64, TINY_64, backbone_64
from reproduce.presets.recipes import Recipe, command
from reproduce.presets.staged import TwoStagePreset, tiny, two_stage

PROTOCOL = "church64-two-stage/1"
DATASET = "church64"

# The published configuration (docs/facts, "Training settings"). Cells, batch of 8 x 32 and spectral weight of the
# backbone are those of VAEBM's public command, its 60 epochs are of 126,227 images, its KL warm-up (0.3 of the updates)
# is NVAE's default.
PAPER = TwoStagePreset(
    two_stage(PROTOCOL, DATASET, "paper", backbone_64(8_900, 29_580), ENERGIES_64, TEST_64), images=50_000
)

RECIPE = Recipe(
    DATASET,
    {},
    fallback="photos64",
    two_stage={"tiny": tiny(PROTOCOL, DATASET, TINY_64), "paper": PAPER},
)

main = command(RECIPE, __doc__)

if __name__ == "__main__":
    sys.exit(main())
