"""CelebA-64 in two stages: energies on a deep hierarchy, for the paper's figures of hierarchical sampling.

    python -m reproduce.celeba64                                  the largest preset that this machine can run
    python -m reproduce.celeba64 --preset cpu --data-root DIR
    python -m reproduce.celeba64 --preset long-chains             hours of one core: see docs/two_stage
    python -m reproduce.celeba64 --preset paper --backbone-checkpoint FILE
    python -m reproduce.celeba64 --model ladder                   a ladder of vector latents beside its Gaussian twin

The data root holds celeba64-64x64.zip (a StyleGAN/EDM dataset zip) or a folder celeba64/ of 64x64 images. The paper
trains its energies on a BIVA here, whose configuration is not released, and reports no number; this recipe uses an
NVAE, and for the presets `long...` the top-down hierarchy of CIFAR-10's.
"""

import dataclasses
import sys

from jlebm.backbones.nvae import NVAEConfig
from jlebm.backbones.topdown import TopDownConfig
from jlebm.energies import ConvEnergy
from jlebm.langevin import Chain
from jlebm.learning.backbone import AdamaxConfig, ELBOConfig
from jlebm.learning.trainable import TrainingConfig
from jlebm.learning.two_stage import EnergyOptimizer
from reproduce.presets.ladder_sizes import colour64
from reproduce.presets.recipes import Recipe, command
from reproduce.presets.staged import (
    Lengths,
    StageOne,
    StageTwo,
    TwoStagePreset,
    along_the_path,
    budget,
    by_long_chains,
    cpu,
    tiny,
    top_down,
    two_stage,
)

PROTOCOL = "celeba64-two-stage/1"
DATASET = "celeba64"

# Under a minute of training on one CPU core: a group of 4 x 8 x 8 and one of 4 x 16 x 16.
TINY_64 = NVAEConfig(
    image_size=64,
    num_channels_enc=4,
    num_channels_dec=4,
    num_latent_scales=2,
    num_groups_per_scale=1,
    num_latent_per_group=4,
    num_preprocess_cells=1,
    num_postprocess_cells=1,
    num_mixture_dec=1,
)

# 19 minutes on one CPU core for both stages, as measured: two groups of 4 x 8 x 8 and two of 4 x 16 x 16.
CPU = TwoStagePreset(
    cpu(
        PROTOCOL,
        DATASET,
        dataclasses.replace(TINY_64, num_channels_enc=8, num_channels_dec=8, num_groups_per_scale=2),
        Lengths(TrainingConfig(1_000, 32), TrainingConfig(600, 16), warmup=350),
    ),
    images=10_000,
    reference_images=7_000,
)

# An hour and a half on one CPU core: CIFAR-10's top-down hierarchy with one more level below the latents.
FACES = TopDownConfig(
    image_shape=(3, 64, 64),
    sides=(1, 4, 8, 16, 32),
    widths=(128, 96, 64, 32, 24),
    groups=(1, 2, 2, 0, 0),
    maps=(32, 8, 4, 0, 0),
    encoder_blocks=(0, 1, 1, 1, 0),
    decoder_blocks=(0, 0, 0, 1, 1),
    last_width=16,
)
LONG = TwoStagePreset(top_down(PROTOCOL, DATASET, FACES, (12_000, 3_200)), images=10_000, reference_images=7_000)

# The same hierarchy; energies of each layer with all layers above it.
LONG_PATH = dataclasses.replace(LONG, plan=along_the_path(LONG.plan, 6_000))

# The same energies, learned by noise contrast and then by chains alone, which have arrived.
LONG_CHAINS = dataclasses.replace(LONG, plan=by_long_chains(LONG_PATH.plan, (3_000, 1_500)))

# For one data-centre GPU, 20 and 5 minutes; an estimate that has not been measured. An image costs about one and a half
# times one of the CIFAR-10 recipe's `budget`, whose speed is itself estimated.
BUDGET = TwoStagePreset(
    budget(
        PROTOCOL,
        DATASET,
        NVAEConfig(
            image_size=64,
            num_channels_enc=32,
            num_channels_dec=32,
            num_latent_scales=3,
            num_groups_per_scale=3,
            num_latent_per_group=20,
            num_preprocess_blocks=1,
            num_postprocess_blocks=1,
            num_mixture_dec=1,
        ),
        Lengths(TrainingConfig(7_000, 64, 1200.0), TrainingConfig(1_000, 32, 300.0), warmup=2_100),
    ),
    images=10_000,
)

# The paper's sizes for LSUN-Church-64, which are also those of VAEBM's public CelebA-64 command: 3 scales of
# 5 groups, batch of 8 x 32, 50 epochs of 162,770 images, spectral weight 0.1; the KL warm-up (0.3 of the updates) is
# NVAE's default. Stage two as on LSUN-Church-64 (docs/facts, "Training settings").
PUBLIC_64 = NVAEConfig(
    image_size=64,
    num_channels_enc=48,
    num_channels_dec=48,
    num_latent_scales=3,
    num_groups_per_scale=5,
    num_latent_per_group=20,
    num_preprocess_blocks=1,
    num_postprocess_blocks=1,
    num_cell_per_cond_enc=2,
    num_cell_per_cond_dec=2,
    num_nf=1,
    num_mixture_dec=1,
)
ENERGIES_64 = StageTwo(
    ConvEnergy(), EnergyOptimizer(), TrainingConfig(16_000, 64), Chain.from_two_stage_paper(30, 4e-5)
)
TEST_64 = Chain.from_two_stage_paper(40, 4e-5)


def backbone_64(warmup: int, steps: int) -> StageOne:
    """Return stage one of both 64x64 datasets at the paper's size, for a number of updates and of its KL warm-up."""
    elbo = ELBOConfig(warmup_steps=warmup, spectral=0.1, precision="bf16")
    return StageOne(PUBLIC_64, elbo, AdamaxConfig(ema_decay=None), TrainingConfig(steps, 256))


PAPER = TwoStagePreset(
    two_stage(PROTOCOL, DATASET, "paper", backbone_64(9_500, 31_750), ENERGIES_64, TEST_64), images=50_000
)

RECIPE = Recipe(
    DATASET,
    {},
    fallback="photos64",
    two_stage={
        "tiny": tiny(PROTOCOL, DATASET, TINY_64),
        "cpu": CPU,
        "long": LONG,
        "long-path": LONG_PATH,
        "long-chains": LONG_CHAINS,
        "budget": BUDGET,
        "paper": PAPER,
    },
    ladder=colour64(DATASET, reference_images=6_000),
)

main = command(RECIPE, __doc__)

if __name__ == "__main__":
    sys.exit(main())
