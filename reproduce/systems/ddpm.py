"""DDPM at its four sizes."""

from jlebm.baselines.base import Adam, OneNetwork
from jlebm.baselines.ddpm import DDPMConfig, DDPMExperiment
from jlebm.experiment import TrainingConfig
from reproduce.systems import DATASET, PROTOCOL

PRESETS = {
    # Patches of 2 x 2 pixels make the small sizes four times as fast.
    "tiny": DDPMExperiment(
        PROTOCOL,
        "tiny",
        DATASET,
        model=DDPMConfig(
            channels=(8, 16), layers=1, attention=(), norm_groups=4, patch=2, sampler_steps=8, variance="small"
        ),
        optimizer=OneNetwork(ema_decay=0.9, network=Adam(2e-3)),
        training=TrainingConfig(steps=101, batch_size=16),
    ),
    # Five minutes on one CPU core; a few levels are sampled best without draws (arXiv 2010.02502).
    "cpu": DDPMExperiment(
        PROTOCOL,
        "cpu",
        DATASET,
        model=DDPMConfig(
            channels=(32, 64),
            layers=1,
            attention=(),
            norm_groups=8,
            patch=2,
            sampler_steps=15,
            eta=0.0,
            variance="small",
        ),
        optimizer=OneNetwork(largest_gradient=1.0, ema_decay=0.995, network=Adam(1e-3, warmup=50)),
        training=TrainingConfig(steps=1_000, batch_size=64, budget_seconds=None),
    ),
    # Half the paper's width for 20 minutes on one data-centre GPU; not measured.
    "budget": DDPMExperiment(
        PROTOCOL,
        "budget",
        DATASET,
        model=DDPMConfig(channels=(64, 128, 128, 128), sampler_steps=100, variance="small"),
        optimizer=OneNetwork(largest_gradient=1.0, ema_decay=0.999, network=Adam(warmup=500)),
        training=TrainingConfig(steps=1_000_000, batch_size=128, budget_seconds=1200.0),
    ),
    # arXiv 2006.11239, appendix B: 35.7 M parameters, 800,000 steps on a TPU v3-8; the paper reports FID 3.17.
    "paper": DDPMExperiment(
        PROTOCOL,
        "paper",
        DATASET,
        model=DDPMConfig(dropout=0.1),
        optimizer=OneNetwork(largest_gradient=1.0, ema_decay=0.9999, network=Adam(warmup=5_000)),
        training=TrainingConfig(steps=800_000, batch_size=128),
    ),
}
