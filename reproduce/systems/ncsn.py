"""NCSN at its four sizes."""

from jlebm.baselines.base import Adam, OneNetwork
from jlebm.baselines.ncsn import NCSNConfig, NCSNExperiment
from jlebm.experiment import TrainingConfig
from reproduce.systems import DATASET, PROTOCOL

PRESETS = {
    # Patches of 2 x 2 pixels make the small sizes four times as fast.
    "tiny": NCSNExperiment(
        PROTOCOL,
        "tiny",
        DATASET,
        model=NCSNConfig(
            channels=(8, 16),
            layers=1,
            attention=(),
            norm_groups=4,
            patch=2,
            chain_steps=1,
            step_size=4e-4,
            denoise=True,
        ),
        optimizer=OneNetwork(ema_decay=0.9, network=Adam(2e-3)),
        training=TrainingConfig(steps=101, batch_size=16),
    ),
    # Five minutes on one CPU core. A step takes half of the way to the mean and leaves 1.3 of a level's variance, so
    # four of them, of the published hundred, come from one level's noise to the next one's.
    "cpu": NCSNExperiment(
        PROTOCOL,
        "cpu",
        DATASET,
        model=NCSNConfig(
            channels=(32, 64),
            layers=1,
            attention=(),
            norm_groups=8,
            patch=2,
            chain_steps=4,
            step_size=4e-4,
            denoise=True,
        ),
        optimizer=OneNetwork(largest_gradient=1.0, ema_decay=0.995, network=Adam(1e-3, warmup=50)),
        training=TrainingConfig(steps=1_000, batch_size=64),
    ),
    # 20 minutes on one data-centre GPU; not measured.
    "budget": NCSNExperiment(
        PROTOCOL,
        "budget",
        DATASET,
        model=NCSNConfig(channels=(64, 128, 128, 128), chain_steps=20, step_size=4e-4 / 4, denoise=True),
        optimizer=OneNetwork(largest_gradient=1.0, ema_decay=0.999, network=Adam(warmup=500)),
        training=TrainingConfig(steps=1_000_000, batch_size=128, budget_seconds=1200.0),
    ),
    # arXiv 1907.05600, section 5 and the public configuration: 200,001 steps of 128 images, 10 levels of 100 steps;
    # its RefineNet is DDPM's U-Net here. The paper reports IS 8.87 and FID 25.32.
    "paper": NCSNExperiment(
        PROTOCOL,
        "paper",
        DATASET,
        training=TrainingConfig(steps=200_001, batch_size=128),
    ),
}
