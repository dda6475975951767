"""GLOW at its four sizes."""

from jlebm.baselines.base import Adam, OneNetwork
from jlebm.baselines.glow import GlowConfig, GlowExperiment
from jlebm.experiment import TrainingConfig
from reproduce.systems import DATASET, PROTOCOL

PRESETS = {
    "tiny": GlowExperiment(
        PROTOCOL,
        "tiny",
        DATASET,
        model=GlowConfig(levels=2, steps=2, hidden=16, temperature=0.7),
        optimizer=OneNetwork("adamax", largest_gradient=50.0, ema_decay=0.9, network=Adam(2e-3, warmup=10)),
        training=TrainingConfig(steps=101, batch_size=16),
    ),
    # Five minutes on one CPU core; levels of 5 bits and a lower temperature are what the paper's pictures are of.
    "cpu": GlowExperiment(
        PROTOCOL,
        "cpu",
        DATASET,
        model=GlowConfig(steps=4, hidden=64, bits=5, temperature=0.7),
        optimizer=OneNetwork("adamax", largest_gradient=50.0, ema_decay=0.99, network=Adam(2e-3, warmup=50)),
        training=TrainingConfig(steps=3_000, batch_size=32),
    ),
    # 20 minutes on one data-centre GPU; not measured.
    "budget": GlowExperiment(
        PROTOCOL,
        "budget",
        DATASET,
        model=GlowConfig(steps=16, hidden=256),
        optimizer=OneNetwork("adamax", largest_gradient=50.0, ema_decay=0.999, network=Adam(1e-3, warmup=500)),
        training=TrainingConfig(steps=1_000_000, batch_size=64, budget_seconds=1200.0),
    ),
    # arXiv 1807.03039: 3 levels of 32 steps, couplings of 512 channels, 8 bits, on 8 GPUs; the table's FID is 48.9.
    # Batch and length are set here.
    "paper": GlowExperiment(
        PROTOCOL,
        "paper",
        DATASET,
        optimizer=OneNetwork("adamax", largest_gradient=50.0, network=Adam(1e-3, warmup=1_000)),
        training=TrainingConfig(steps=180_000, batch_size=512),
    ),
}
