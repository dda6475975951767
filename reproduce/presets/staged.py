"""Two-stage presets as data: a backbone, the energies on it, how samples are drawn, and how much is measured."""

import dataclasses
from dataclasses import dataclass, field

from jlebm.backbones.nvae import NVAEConfig
from jlebm.backbones.topdown import TopDownConfig
from jlebm.config import Config
from jlebm.energies import ConvEnergy, MapEnergy, PathFieldEnergy, PathMapEnergy
from jlebm.experiment import Experiment, OptimizerConfig
from jlebm.langevin import Chain
from jlebm.learning.backbone import AdamaxConfig, BackboneExperiment, ELBOConfig
from jlebm.learning.step_sizes import Adaptation
from jlebm.learning.trainable import TrainingConfig
from jlebm.learning.two_stage import EnergyOptimizer, TwoStageExperiment
from jlebm.persistence import Persistence
from jlebm.sampling import Sampler
from reproduce.presets.extents import FIRST_LOOK, PRIORS, WHOLE, Extent, Size


@dataclass(frozen=True)
class TwoStagePlan(Config):
    """Configuration of a two-stage row: backbone, energies, sampling."""

    preset: str
    backbone: BackboneExperiment | Experiment
    """Stage one: an NVAE, or any backbone of this library learned with its Gaussian prior."""
    energies: TwoStageExperiment
    sampler: Sampler


def name_of_backbone(experiment: BackboneExperiment | Experiment, seed: int, steps: int | None = None) -> str:
    """Return the name that energies have for a trained backbone; without `steps`, the beginning of it."""
    return f"{experiment.digest()}, seed {seed}, " + ("" if steps is None else f"{steps} steps")


@dataclass(frozen=True)
class Sampled(Config):
    """Configuration behind a two-stage row's digest: the energies, the backbone named in them, and the sampling."""

    energies: TwoStageExperiment
    sampler: Sampler
    training_seed: int = field(default=1, metadata={"since": "0.2", "least": None})
    """Seed of the energies; the backbone's is in its name, and a row's `seed` is that of its samples."""
    kept: str = field(default="", metadata={"since": "0.3"})
    """Digest of the repository's file, if its weights were measured in place of a training's own."""


SHORT_RUN = EnergyOptimizer(1e-3, beta1=0.9, weight_decay=0.0, energy_l2=1e-3)  # for hundreds of updates


@dataclass(frozen=True)
class TwoStagePreset(Size):
    """One size of the two-stage model: what is trained and how it is measured."""

    plan: TwoStagePlan
    batch_size: int = 100
    """Samples drawn at a time, as many as fit in memory; the images do not depend on it."""
    extent: Extent = WHOLE
    """How much is drawn for the figures of the hierarchy."""

    @property
    def nvae(self) -> BackboneExperiment | None:
        """Stage one, if its backbone is an NVAE."""
        return self.plan.backbone if isinstance(self.plan.backbone, BackboneExperiment) else None


@dataclass(frozen=True)
class StageOne:
    """Training of the backbone."""

    model: NVAEConfig
    elbo: ELBOConfig
    optimizer: AdamaxConfig
    training: TrainingConfig


@dataclass(frozen=True)
class StageTwo:
    """Training of the energies on the frozen backbone."""

    energy: ConvEnergy
    optimizer: EnergyOptimizer
    training: TrainingConfig
    chain: Chain
    """Chain of the prior in training."""


def two_stage(
    protocol: str, dataset: str, preset: str, backbone: StageOne, energies: StageTwo, test: Chain | None = None
) -> TwoStagePlan:
    """Return the plan of a two-stage row; the energies name their backbone once it is trained.

    Args:
        protocol: of both stages.
        dataset: whose images both stages see.
        preset: its name.
        backbone: stage one.
        energies: stage two.
        test: chain at test time; None for the chain of training.
    """
    names, model = (protocol, preset, dataset), backbone.model
    return TwoStagePlan(
        preset,
        BackboneExperiment(*names, model, elbo=backbone.elbo, optimizer=backbone.optimizer, training=backbone.training),
        TwoStageExperiment(
            *names,
            model,
            backbone="",
            energy=energies.energy,
            prior_chain=energies.chain,
            optimizer=energies.optimizer,
            training=energies.training,
        ),
        Sampler(test or energies.chain),
    )


def top_down(protocol: str, dataset: str, model: TopDownConfig, updates: tuple[int, int]) -> TwoStagePlan:
    """Return the plan of hours on one CPU core: a top-down hierarchy whose upper layers are used, then its energies.

    Free bits, rates, step sizes and noise contrast are those of the search (docs/exploration).

    Args:
        protocol: of both stages.
        dataset: whose images both stages see.
        model: levels of 1, 4 and 8 pixels, with one, two and two layers of latents.
        updates: of the backbone, and of the energies.
    """
    names = (protocol, "long", dataset)
    stage_one = Experiment(
        *names,
        learning="gaussian",
        model=model,
        energy_hidden=(),
        optimizer=OptimizerConfig(
            generator_lr=2e-3,
            beta2=0.99,
            ema_decay=0.999,
            largest_gradient=2_000.0,
            lr_warmup=100,
            schedule="cosine",
        ),
        training=TrainingConfig(steps=updates[0], batch_size=32),
        kl_warmup=updates[0] // 5,
        free_bits=(15.0, 20.0, 20.0, 0.0, 0.0),
    )
    # Corrected: one uncorrected step of this size in a steep place can carry a chain away for good.
    chain = Chain(
        10,
        epsilon=0.5,
        start="ancestral",
        space="noise",
        metropolis=True,
        discretisation="crank-nicolson",
        sizes="adapted",
    )
    stage_two = TwoStageExperiment(
        *names,
        model,
        backbone="",
        energy=MapEnergy(64, 128),
        prior_chain=chain,
        optimizer=EnergyOptimizer(
            1e-3,
            beta1=0.9,
            weight_decay=0.0,
            energy_l2=1e-3,
            ema_decay=0.995,
            schedule="cosine",
            largest_gradient=5.0,
        ),
        training=TrainingConfig(steps=updates[1], batch_size=32),
        adaptation=Adaptation(acceptance=0.9),  # for each layer alone; all five together are accepted less often
        persistence=Persistence(1_024),
        noise_contrast=1.0,
    )
    return TwoStagePlan("long", stage_one, stage_two, Sampler(dataclasses.replace(chain, steps=60)))


def along_the_path(plan: TwoStagePlan, updates: int) -> TwoStagePlan:
    """Return a plan of `top_down` whose energies see each layer with all above it, trained for longer.

    One update in five runs chains: the others, by noise contrast, cost a seventh of it (docs/exploration).

    Args:
        plan: its backbone stays.
        updates: of the energies.
    """
    name, training = f"{plan.preset}-path", dataclasses.replace(plan.energies.training, steps=updates)
    energies = dataclasses.replace(
        plan.energies, preset=name, energy=PathMapEnergy(), training=training, chains_every=5
    )
    return dataclasses.replace(plan, preset=name, energies=energies)


def by_long_chains(plan: TwoStagePlan, updates: tuple[int, int], fields: PathFieldEnergy | None = None) -> TwoStagePlan:
    """Return a plan of `along_the_path` whose energies are learned by noise contrast first, then by chains alone.

    The chains are few and none begins anew, so that they have arrived where the energies are low before noise contrast
    ends. Samples are drawn by chains long enough to arrive there from p0 (docs/exploration).

    Args:
        plan: its backbone stays.
        updates: of the energies, with noise contrast and by chains alone.
        fields: energies in place of the plan's, for which noise contrast has a classifier for each layer.
    """
    contrast, chains = updates
    name = plan.preset.replace("path", "chains")
    energies = dataclasses.replace(
        plan.energies,
        preset=name,
        energy=fields or plan.energies.energy,
        contrast="layers" if fields else "whole",
        prior_chain=dataclasses.replace(plan.energies.prior_chain, steps=30),
        training=dataclasses.replace(plan.energies.training, steps=contrast + chains),
        persistence=Persistence(512, restarts=0.0),
        chains_every=10,
        contrast_updates=contrast,
    )
    sampler = dataclasses.replace(plan.sampler, chain=dataclasses.replace(energies.prior_chain, steps=600))
    return dataclasses.replace(plan, preset=name, energies=energies, sampler=sampler)


@dataclass(frozen=True)
class Lengths:
    """Length of both stages' training."""

    backbone: TrainingConfig
    energies: TrainingConfig
    warmup: int
    """Updates over which the weight of the backbone's KL rises to its full value."""


def cpu(protocol: str, dataset: str, model: NVAEConfig, lengths: Lengths) -> TwoStagePlan:
    """Return the plan of a short training on one CPU core."""
    return two_stage(
        protocol,
        dataset,
        "cpu",
        StageOne(
            model,
            ELBOConfig(warmup_steps=lengths.warmup, spectral=0.1),
            AdamaxConfig(least_lr=1e-3, largest_gradient=200.0, ema_decay=0.99),
            lengths.backbone,
        ),
        StageTwo(ConvEnergy(32, 64), SHORT_RUN, lengths.energies, Chain.from_two_stage_paper(20, 0.04)),
    )


def budget(protocol: str, dataset: str, model: NVAEConfig, lengths: Lengths) -> TwoStagePlan:
    """Return the plan of a training that a time budget ends, on one data-centre GPU."""
    return two_stage(
        protocol,
        dataset,
        "budget",
        StageOne(
            model,
            ELBOConfig(warmup_steps=lengths.warmup, spectral=0.1, precision="bf16"),
            AdamaxConfig(largest_gradient=200.0),
            lengths.backbone,
        ),
        StageTwo(
            ConvEnergy(),
            EnergyOptimizer(5e-4, beta1=0.9, energy_l2=1e-3),
            lengths.energies,
            Chain.from_two_stage_paper(20, 0.01),
        ),
    )


def tiny(
    protocol: str,
    dataset: str,
    model: NVAEConfig,
    batch_size: int = 16,
    updates: tuple[int, int] = (60, 40),
    images: int = 768,  # the fewest that fid768 can be measured on
) -> TwoStagePreset:
    """Return the size of a first look: under a minute of training on one core for a hierarchy of two groups."""
    steps, energy_steps = updates
    plan = two_stage(
        protocol,
        dataset,
        "tiny",
        StageOne(
            model,
            ELBOConfig(warmup_steps=20, spectral=0.1),
            AdamaxConfig(least_lr=1e-3, largest_gradient=200.0, ema_decay=0.9),
            TrainingConfig(steps, batch_size),
        ),
        StageTwo(
            ConvEnergy(8, 16),
            SHORT_RUN,
            TrainingConfig(energy_steps, batch_size),
            Chain.from_two_stage_paper(10, 0.04),
        ),
    )
    return TwoStagePreset(plan, images=images, reference_images=images, judged=PRIORS, kept=False, extent=FIRST_LOOK)
