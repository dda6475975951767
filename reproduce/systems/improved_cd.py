"""Improved contrastive divergence at its four sizes."""

from jlebm.baselines.base import Adam, OneNetwork
from jlebm.baselines.improved_cd import ImprovedCDConfig, ImprovedCDExperiment
from jlebm.experiment import TrainingConfig
from reproduce.systems import DATASET, PROTOCOL

PRESETS = {
    "tiny": ImprovedCDExperiment(
        PROTOCOL,
        "tiny",
        DATASET,
        model=ImprovedCDConfig(
            channels=(8, 16), stem=2, scales=2, chain_steps=8, buffer=256, neighbours=20, sampling_steps=8
        ),
        optimizer=OneNetwork(largest_gradient=1.0, ema_decay=0.9, network=Adam(5e-4, beta1=0.0)),
        training=TrainingConfig(steps=61, batch_size=16),
    ),
    # Five minutes on one CPU core, with chains of 15 steps, of the published 40. The buffer is small, so that a chain
    # goes on in many updates.
    "cpu": ImprovedCDExperiment(
        PROTOCOL,
        "cpu",
        DATASET,
        model=ImprovedCDConfig(
            channels=(16, 32, 64), stem=2, scales=2, chain_steps=15, buffer=1_000, sampling_steps=40
        ),
        optimizer=OneNetwork(largest_gradient=1.0, ema_decay=0.99, network=Adam(5e-4, beta1=0.0)),
        training=TrainingConfig(steps=700, batch_size=32),
    ),
    # 20 minutes on one data-centre GPU; not measured.
    "budget": ImprovedCDExperiment(
        PROTOCOL,
        "budget",
        DATASET,
        model=ImprovedCDConfig(channels=(64, 128, 128)),
        optimizer=OneNetwork(largest_gradient=1.0, ema_decay=0.999, network=Adam(2e-4, beta1=0.0)),
        training=TrainingConfig(steps=1_000_000, batch_size=64, budget_seconds=1200.0),
    ),
    # arXiv 2012.01316: 40 steps; the authors speak of 10,000 to 20,000 updates in two days. The paper reports IS 7.85
    # and FID 25.1. What is not known of their settings is said beside the configuration.
    "paper": ImprovedCDExperiment(
        PROTOCOL,
        "paper",
        DATASET,
        optimizer=OneNetwork(ema_decay=0.999, network=Adam(2e-4, beta1=0.0)),
        training=TrainingConfig(steps=20_000, batch_size=128),
    ),
}
