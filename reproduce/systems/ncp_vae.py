"""NCP-VAE at its four sizes, each upon the backbone of the two-stage rows of that size."""

from jlebm.baselines.base import Adam, OneNetwork
from jlebm.baselines.ncp_vae import ClassifierConfig, NCPSampler, NCPVAEExperiment
from jlebm.experiment import TrainingConfig
from reproduce import cifar10
from reproduce.systems import DATASET, PROTOCOL

BACKBONES = {name: preset.plan.backbone.model for name, preset in cifar10.RECIPE.two_stage.items()}

PRESETS = {
    "tiny": NCPVAEExperiment(
        PROTOCOL,
        "tiny",
        DATASET,
        model=BACKBONES["tiny"],
        classifier=ClassifierConfig(channels=8, blocks=1),
        sampler=NCPSampler(proposals=10),
        optimizer=OneNetwork(ema_decay=0.9, network=Adam(2e-3)),
        training=TrainingConfig(steps=101, batch_size=16),
    ),
    # Five minutes on one CPU core, the backbone's half hour aside.
    "cpu": NCPVAEExperiment(
        PROTOCOL,
        "cpu",
        DATASET,
        model=BACKBONES["cpu"],
        classifier=ClassifierConfig(channels=32, blocks=2),
        sampler=NCPSampler(proposals=20),
        optimizer=OneNetwork(largest_gradient=10.0, ema_decay=0.99, network=Adam(1e-3, warmup=50)),
        training=TrainingConfig(steps=3_000, batch_size=32),
    ),
    # 20 minutes on one data-centre GPU, the backbone's own 20 aside; not measured.
    "budget": NCPVAEExperiment(
        PROTOCOL,
        "budget",
        DATASET,
        model=BACKBONES["budget"],
        sampler=NCPSampler(proposals=500),
        optimizer=OneNetwork(largest_gradient=10.0, ema_decay=0.999, network=Adam(1e-3, warmup=500)),
        training=TrainingConfig(steps=1_000_000, batch_size=64, budget_seconds=1200.0),
    ),
    # arXiv 2010.02917 reports FID 24.08, upon an NVAE of its own. Ratio, objective and sampler are the paper's; no
    # reference code was found, and sizes, proposals, rates and length are set here.
    "paper": NCPVAEExperiment(
        PROTOCOL,
        "paper",
        DATASET,
        model=BACKBONES["paper"],
        classifier=ClassifierConfig(channels=128, blocks=8),
        sampler=NCPSampler(proposals=5_000),
        optimizer=OneNetwork(largest_gradient=10.0, ema_decay=0.999, network=Adam(1e-3, warmup=500)),
        training=TrainingConfig(steps=100_000, batch_size=64),
    ),
}
