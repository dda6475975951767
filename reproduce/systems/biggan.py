"""BigGAN at its four sizes."""

from jlebm.baselines.base import Adam, Adversaries
from jlebm.baselines.biggan import BigGANConfig, BigGANExperiment
from jlebm.experiment import TrainingConfig
from reproduce.systems import DATASET, PROTOCOL

PRESETS = {
    # The batch norms' statistics are averaged over as many steps as the weights, in every preset.
    "tiny": BigGANExperiment(
        PROTOCOL,
        "tiny",
        DATASET,
        model=BigGANConfig(
            latent_dim=16,
            embedding_dim=8,
            generator_channels=(16, 16, 8, 8),
            discriminator_channels=(8, 16, 16),
            discriminator_steps=2,
        ),
        optimizer=Adversaries(ema_decay=0.9, generator=Adam(1e-3, beta1=0.0), discriminator=Adam(3e-4, beta1=0.0)),
        training=TrainingConfig(steps=101, batch_size=16),
    ),
    # Five minutes on one CPU core.
    "cpu": BigGANExperiment(
        PROTOCOL,
        "cpu",
        DATASET,
        model=BigGANConfig(
            latent_dim=64,
            embedding_dim=32,
            generator_channels=(64, 64, 32, 16),
            discriminator_channels=(16, 32, 64, 64),
            halvings=3,
            discriminator_steps=2,
            norm_momentum=0.02,
            flip=True,
        ),
        optimizer=Adversaries(ema_decay=0.98, generator=Adam(4e-4, beta1=0.0), discriminator=Adam(4e-4, beta1=0.0)),
        training=TrainingConfig(steps=1_300, batch_size=64),
    ),
    # Half the published width for 20 minutes on one data-centre GPU; not measured.
    "budget": BigGANExperiment(
        PROTOCOL,
        "budget",
        DATASET,
        model=BigGANConfig(
            generator_channels=(128, 128, 128, 128),
            discriminator_channels=(128, 128, 128, 128),
            discriminator_steps=2,
            norm_momentum=0.001,
            flip=True,
        ),
        optimizer=Adversaries(ema_decay=0.999, generator=Adam(2e-4, beta1=0.0), discriminator=Adam(2e-4, beta1=0.0)),
        training=TrainingConfig(steps=1_000_000, batch_size=128, budget_seconds=1200.0),
    ),
    # arXiv 1809.11096 and the authors' PyTorch script for CIFAR-10: 500 epochs, four moves of the discriminator of 50
    # images each. Table 2 reports IS 9.22 and FID 14.73, given the classes.
    "paper": BigGANExperiment(
        PROTOCOL,
        "paper",
        DATASET,
        model=BigGANConfig(norm_momentum=0.0001),
        training=TrainingConfig(steps=125_000, batch_size=200),
    ),
}
