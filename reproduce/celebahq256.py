"""CelebA-HQ-256 in two stages: energies on a deep hierarchy of 5-bit images, a row of the paper's Table 3.

    python -m reproduce.celebahq256                               a first look
    python -m reproduce.celebahq256 --preset paper --backbone-checkpoint FILE --data-root DIR

The data root holds celebahq256-256x256.zip (a StyleGAN/EDM dataset zip) or a folder celebahq256/ of 256x256 images. The
paper reports FID 9.89, and 30.25 for the backbone alone (30,000 images, Table 3); it trains its energies on the public
"qualitative" NVAE checkpoint, which --backbone-checkpoint reads.

Memory of `paper`, in float32, counted on torch's meta device from what autograd keeps (tests/test_backbones_nvae.py);
not run on a GPU. One chain step of two images keeps 0.85 GiB, as the tower's activations are computed again, module by
module, in the backward pass; 9.69 GiB if they were kept. Weights are 1.2 GiB. Stage one, which recomputes nothing,
keeps 26.0 GiB of two images.
"""

import sys

from jlebm.backbones.nvae import NVAEConfig
from jlebm.energies import ConvEnergy
from jlebm.langevin import Chain
from jlebm.learning.backbone import AdamaxConfig, ELBOConfig
from jlebm.learning.trainable import TrainingConfig
from jlebm.learning.two_stage import EnergyOptimizer
from reproduce.presets.recipes import Recipe, command
from reproduce.presets.staged import StageOne, StageTwo, TwoStagePreset, tiny, two_stage

PROTOCOL = "celebahq256-two-stage/1"
DATASET = "celebahq256"
KEPT_GIB = {True: 0.85, False: 9.69}  # by one chain step of two images, with recomputation and without

# A minute or two on one CPU core: a group of 4 x 8 x 8 and one of 4 x 16 x 16, with the published decoder and bits.
TINY = tiny(
    PROTOCOL,
    DATASET,
    NVAEConfig(
        image_size=256,
        num_channels_enc=4,
        num_channels_dec=4,
        num_latent_scales=2,
        num_groups_per_scale=1,
        num_latent_per_group=4,
        num_preprocess_blocks=4,
        num_preprocess_cells=1,
        num_postprocess_blocks=4,
        num_postprocess_cells=1,
        num_mixture_dec=2,
        num_x_bits=5,
    ),
    batch_size=4,
    updates=(30, 20),
    images=64,
)

# The sizes of NVAE's public command: the paper names the checkpoint and not its sizes, and a published file brings its
# own (docs/facts, "Two-stage training").
PUBLISHED = NVAEConfig(
    image_size=256,
    num_channels_enc=30,
    num_channels_dec=30,
    num_latent_scales=5,
    num_groups_per_scale=16,
    num_latent_per_group=20,
    num_preprocess_blocks=1,
    num_postprocess_blocks=1,
    num_cell_per_cond_enc=2,
    num_cell_per_cond_dec=2,
    num_nf=2,
    num_mixture_dec=10,
    num_x_bits=5,
    ada_groups=True,
    min_groups_per_scale=4,
)

# Stage two is the published one (docs/facts, "Training settings"). For training the backbone: batch of 24 x 4, 300
# epochs of 27,000 images and spectral weight are those of NVAE's public command, 94 hours on 24 V100s; that command
# lets the spectral weight fall from 1 to 0.01 over the training, which is not built.
PAPER = TwoStagePreset(
    two_stage(
        PROTOCOL,
        DATASET,
        "paper",
        StageOne(
            PUBLISHED,
            ELBOConfig(warmup_steps=25_300, spectral=0.01, precision="bf16"),
            AdamaxConfig(ema_decay=None),
            TrainingConfig(steps=84_300, batch_size=96),
        ),
        StageTwo(
            ConvEnergy(),
            EnergyOptimizer(2e-5),
            TrainingConfig(steps=6_500, batch_size=4),
            Chain.from_two_stage_paper(10, 1e-5),
        ),
    ),
    images=30_000,
    batch_size=2,
)

RECIPE = Recipe(DATASET, {}, fallback="photos256", two_stage={"tiny": TINY, "paper": PAPER})

main = command(RECIPE, __doc__)

if __name__ == "__main__":
    sys.exit(main())
