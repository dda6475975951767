"""StyleGAN2 without ADA at its four sizes."""

from jlebm.baselines.base import Adam, Adversaries
from jlebm.baselines.stylegan2 import StyleGAN2Config, StyleGAN2Experiment
from jlebm.experiment import TrainingConfig
from reproduce.systems import DATASET, PROTOCOL


def adversaries(lr: float, ema_decay: float, r1_every: int = 16) -> Adversaries:
    """Return the paper's optimisers: the discriminator's is slowed down for the moves that its penalty adds."""
    share = r1_every / (r1_every + 1)
    return Adversaries(
        ema_decay=ema_decay,
        generator=Adam(lr, beta1=0.0, beta2=0.99),
        discriminator=Adam(lr * share, beta1=0.0, beta2=0.99**share),
    )


PRESETS = {
    "tiny": StyleGAN2Experiment(
        PROTOCOL,
        "tiny",
        DATASET,
        model=StyleGAN2Config(latent_dim=16, generator_channels=(16, 16, 8, 8), discriminator_channels=(8, 8, 16, 16)),
        optimizer=adversaries(2.5e-3, ema_decay=0.9),
        training=TrainingConfig(steps=101, batch_size=16),
    ),
    # Five minutes on one CPU core.
    "cpu": StyleGAN2Experiment(
        PROTOCOL,
        "cpu",
        DATASET,
        model=StyleGAN2Config(
            latent_dim=64,
            generator_channels=(64, 64, 32, 16),
            discriminator_channels=(16, 32, 64, 64),
            flip=True,
        ),
        optimizer=adversaries(2.5e-3, ema_decay=0.99),
        training=TrainingConfig(steps=1_800, batch_size=32),
    ),
    # A quarter of the published width for 20 minutes on one data-centre GPU; not measured.
    "budget": StyleGAN2Experiment(
        PROTOCOL,
        "budget",
        DATASET,
        model=StyleGAN2Config(
            latent_dim=256,
            generator_channels=(256, 256, 128, 128),
            discriminator_channels=(128, 128, 256, 256),
            flip=True,
        ),
        optimizer=adversaries(2.5e-3, ema_decay=0.999),
        training=TrainingConfig(steps=1_000_000, batch_size=64, budget_seconds=1200.0),
    ),
    # arXiv 2006.06676 and its public code's configuration for CIFAR-10: 100 million images of 64 a step, the variation
    # of 32 of them looked at together; the average halves in 500,000 images. Table 2 reports IS 8.99 and FID 9.9.
    "paper": StyleGAN2Experiment(
        PROTOCOL,
        "paper",
        DATASET,
        optimizer=adversaries(2.5e-3, ema_decay=0.5 ** (64 / 500_000)),
        training=TrainingConfig(steps=1_562_500, batch_size=64),
    ),
}
