"""IGEBM at its four sizes."""

from jlebm.baselines.base import Adam, OneNetwork
from jlebm.baselines.igebm import IGEBMConfig, IGEBMExperiment
from jlebm.experiment import TrainingConfig
from reproduce.systems import DATASET, PROTOCOL

PRESETS = {
    "tiny": IGEBMExperiment(
        PROTOCOL,
        "tiny",
        DATASET,
        model=IGEBMConfig(channels=(8, 16), stem=2, chain_steps=10, buffer=256, sampling_steps=10),
        optimizer=OneNetwork(ema_decay=0.9, network=Adam(1e-3, beta1=0.0)),
        training=TrainingConfig(steps=61, batch_size=16),
    ),
    # Five minutes on one CPU core, with chains of a third of the published length. The buffer is so small that each
    # place is written twenty times: in a larger one most chains would be too young to have left their noise.
    "cpu": IGEBMExperiment(
        PROTOCOL,
        "cpu",
        DATASET,
        model=IGEBMConfig(channels=(16, 32, 64), stem=2, chain_steps=20, buffer=2_000, sampling_steps=40),
        optimizer=OneNetwork(largest_gradient=1.0, ema_decay=0.99, network=Adam(5e-4, beta1=0.0)),
        training=TrainingConfig(steps=1_300, batch_size=32),
    ),
    # 20 minutes on one data-centre GPU at half the published width; not measured.
    "budget": IGEBMExperiment(
        PROTOCOL,
        "budget",
        DATASET,
        model=IGEBMConfig(channels=(64, 128, 128)),
        optimizer=OneNetwork(largest_gradient=1.0, ema_decay=0.999, network=Adam(1e-4, beta1=0.0)),
        training=TrainingConfig(steps=1_000_000, batch_size=128, budget_seconds=1200.0),
    ),
    # arXiv 1903.08689: 60 steps, 5 % restarts, Adam 1e-4; the paper reports IS 6.78 and FID 38.2 of ten models
    # together, this is one. Its length in updates is a choice.
    "paper": IGEBMExperiment(
        PROTOCOL,
        "paper",
        DATASET,
        training=TrainingConfig(steps=60_000, batch_size=128),
    ),
}
