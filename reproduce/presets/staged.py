"""Two-stage presets as data: a backbone, the energies on it, how samples are drawn, and how much is measured."""

from dataclasses import dataclass, field

from jlebm.backbones.nvae import NVAEConfig
from jlebm.config import Config
from jlebm.energies import ConvEnergy
from jlebm.langevin import Chain
from jlebm.learning.backbone import AdamaxConfig, BackboneExperiment, ELBOConfig
from jlebm.learning.trainable import TrainingConfig
from jlebm.learning.two_stage import EnergyOptimizer, TwoStageExperiment
from jlebm.sampling import Sampler
from reproduce.presets.extents import FIRST_LOOK, PRIORS, SOURCES, WHOLE, Extent


@dataclass(frozen=True)
class TwoStagePlan(Config):
    """A whole two-stage row: backbone, energies, sampling."""

    preset: str
    backbone: BackboneExperiment
    energies: TwoStageExperiment
    sampler: Sampler


@dataclass(frozen=True)
class Sampled(Config):
    """What the digest of a two-stage row is taken of: the energies, the backbone within them, and the sampling."""

    energies: TwoStageExperiment
    sampler: Sampler
    training_seed: int = field(default=1, metadata={"since": "0.2", "least": None})
    """Of the energies; the backbone's is in its name. Rows have the seed of their samples."""


@dataclass(frozen=True)
class TwoStagePreset:
    """One size of the two-stage recipe: what is trained, and how many images it is measured on."""

    plan: TwoStagePlan
    images: int
    """Sampled from each prior."""
    reference_images: int | None = None
    """Training images that the samples are held against; None for all."""
    judged: tuple[str, ...] = SOURCES
    """The sources whose images go through Inception."""
    batch_size: int = 100
    """Samples that are drawn at a time, as many as memory has room for; the images do not depend on it."""
    extent: Extent = WHOLE
    """Of the figures of the hierarchy."""


def two_stage(
    protocol: str,
    dataset: str,
    preset: str,
    model: NVAEConfig,
    backbone: tuple[ELBOConfig, AdamaxConfig, TrainingConfig],
    energies: tuple[ConvEnergy, EnergyOptimizer, TrainingConfig],
    train: Chain,
    test: Chain,
) -> TwoStagePlan:
    """Put a two-stage row together; which backbone the energies are upon is known when there is one."""
    elbo, adamax, length = backbone
    energy, adam, energy_length = energies
    return TwoStagePlan(
        preset,
        BackboneExperiment(protocol, preset, dataset, model, elbo=elbo, optimizer=adamax, training=length),
        TwoStageExperiment(
            protocol,
            preset,
            dataset,
            model,
            backbone="",
            energy=energy,
            prior_chain=train,
            optimizer=adam,
            training=energy_length,
        ),
        Sampler(test),
    )


def tiny(
    protocol: str,
    dataset: str,
    model: NVAEConfig,
    batch_size: int = 16,
    updates: tuple[int, int] = (60, 40),
    images: int = 768,  # the fewest that fid768 can be measured on
) -> TwoStagePreset:
    """Return the size of a first look, under a minute of training on one core, for a hierarchy of two groups."""
    steps, energy_steps = updates
    plan = two_stage(
        protocol,
        dataset,
        "tiny",
        model,
        (
            ELBOConfig(warmup_steps=20, spectral=0.1),
            AdamaxConfig(least_lr=1e-3, largest_gradient=200.0, ema_decay=0.9),
            TrainingConfig(steps, batch_size),
        ),
        (
            ConvEnergy(8, 16),
            EnergyOptimizer(1e-3, beta1=0.9, weight_decay=0.0, energy_l2=1e-3),
            TrainingConfig(energy_steps, batch_size),
        ),
        train=Chain.from_two_stage_paper(10, 0.04),
        test=Chain.from_two_stage_paper(10, 0.04),
    )
    return TwoStagePreset(plan, images, reference_images=images, judged=PRIORS, extent=FIRST_LOOK)
