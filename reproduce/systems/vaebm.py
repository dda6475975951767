"""VAEBM at its four sizes, each upon the backbone of the two-stage rows of that size."""

from jlebm.baselines.base import Adam, OneNetwork
from jlebm.baselines.vaebm import PixelEnergyConfig, VAEBMConfig, VAEBMExperiment
from jlebm.experiment import TrainingConfig
from jlebm.langevin import Chain
from reproduce import cifar10
from reproduce.systems import DATASET, PROTOCOL

BACKBONES = {name: preset.plan.backbone.model for name, preset in cifar10.RECIPE.two_stage.items()}

PRESETS = {
    "tiny": VAEBMExperiment(
        PROTOCOL,
        "tiny",
        DATASET,
        model=BACKBONES["tiny"],
        energy=VAEBMConfig(
            PixelEnergyConfig(channels=(8, 16), blocks=1, patch=4),
            spectral=0.02,
            l2=1e-3,
            train_chain=Chain.from_two_stage_paper(3, 0.01),
            chain=Chain.from_two_stage_paper(3, 0.01),
        ),
        optimizer=OneNetwork(ema_decay=0.9, network=Adam(1e-3)),
        training=TrainingConfig(steps=61, batch_size=8),
    ),
    # Five minutes on one CPU core, the backbone's half hour aside. So small a decoder has a large sigma, so its mean is
    # what the energy is of, as in the rows of the other priors.
    "cpu": VAEBMExperiment(
        PROTOCOL,
        "cpu",
        DATASET,
        model=BACKBONES["cpu"],
        energy=VAEBMConfig(
            PixelEnergyConfig(channels=(32, 64), blocks=1, patch=2),
            spectral=0.02,
            l2=1e-3,
            train_chain=Chain.from_two_stage_paper(5, 0.02),
            chain=Chain.from_two_stage_paper(6, 0.02),
            image="mean",
        ),
        optimizer=OneNetwork(largest_gradient=10.0, ema_decay=0.99, network=Adam(5e-4, warmup=50)),
        training=TrainingConfig(steps=420, batch_size=32),
    ),
    # 20 minutes on one data-centre GPU, the backbone's own 20 aside; not measured.
    "budget": VAEBMExperiment(
        PROTOCOL,
        "budget",
        DATASET,
        model=BACKBONES["budget"],
        energy=VAEBMConfig(
            PixelEnergyConfig(channels=(64, 128, 128)),
            l2=1e-3,
            train_chain=Chain.from_two_stage_paper(10, 1e-3),
            chain=Chain.from_two_stage_paper(16, 1e-3),
        ),
        optimizer=OneNetwork(largest_gradient=10.0, ema_decay=0.999, network=Adam(1e-4, warmup=200)),
        training=TrainingConfig(steps=1_000_000, batch_size=32, budget_seconds=1200.0),
    ),
    # The public run: 30,000 steps of 32 images on one V100, chains of 10 steps in training and of 16 at test, variance
    # 8e-5, weight 0.2 of the spectral norms. The network is of that kind, its sizes are set here, and the optional
    # replay buffer is left out. The paper reports IS 8.43 and FID 12.19.
    "paper": VAEBMExperiment(
        PROTOCOL,
        "paper",
        DATASET,
        model=BACKBONES["paper"],
        training=TrainingConfig(steps=30_000, batch_size=32),
    ),
}
