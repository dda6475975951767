"""Models that train in milliseconds, for tests of the loop: of the joint scheme and of both stages of the other."""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from jlebm.backbones.conv import ConvConfig
from jlebm.backbones.ladder import LadderConfig
from jlebm.backbones.nvae import NVAE, NVAEConfig
from jlebm.energies import ConvEnergy
from jlebm.experiment import Experiment, LearningName, OptimizerConfig
from jlebm.langevin import Chain
from jlebm.learning.backbone import AdamaxConfig, BackboneExperiment, ELBOConfig
from jlebm.learning.trainable import Trainable, TrainingConfig
from jlebm.learning.two_stage import EnergyOptimizer, TwoStageExperiment
from jlebm.run import Run, open_run
from jlebm.training import LoopControl, TrainState, fit

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
COLOURED = np.random.default_rng(1).integers(0, 256, (40, 3, 16, 16), dtype=np.uint8)
# Two groups of 2 x 8 x 8, the smallest that a convolutional energy takes.
HIERARCHY = NVAEConfig(
    image_size=16,
    num_channels_enc=4,
    num_channels_dec=4,
    num_latent_scales=1,
    num_groups_per_scale=2,
    num_latent_per_group=2,
    num_preprocess_blocks=1,
    num_preprocess_cells=1,
    num_postprocess_blocks=1,
    num_postprocess_cells=1,
    num_mixture_dec=1,
)


def experiment(learning: LearningName = "joint-mle", steps: int = 24, **changes) -> Experiment:
    """Return a whole experiment on 8x8 images, with an EMA, a penalty and 24 steps over three epochs."""
    one = Experiment(
        protocol="test/1",
        preset="tiny",
        dataset="noise",
        learning=learning,
        model=ConvConfig(
            image_shape=(1, 8, 8),
            latent_dims=(3, 4),
            channels=(6, 5),
            conditional_hidden=(8,),
            inference_network=learning != "joint-mle",
        ),
        energy_hidden=() if learning == "gaussian" else ((6,), (6, 6)),
        prior_chain=Chain.from_joint_paper(4, 0.4),
        posterior_chain=Chain.from_joint_paper(3, 0.1),
        optimizer=OptimizerConfig(1e-3, 1e-3, energy_l2=1e-3, ema_decay=0.9),
        training=TrainingConfig(steps=steps, batch_size=5),
    )
    return dataclasses.replace(one, **changes)


def ladder_experiment(learning: LearningName = "variational", **changes) -> Experiment:
    """Return an experiment on a ladder of three layers for 8x8 images, with an EMA and 20 steps, 8 of them warm-up."""
    one = Experiment(
        protocol="test/1",
        preset="tiny",
        dataset="noise",
        learning=learning,
        model=LadderConfig((1, 8, 8), (2, 3, 4), channels=(6, 5), conditional_hidden=(7,), features=9),
        energy_hidden=() if learning == "gaussian" else ((6,), (6,), (6, 6)),
        prior_chain=Chain.from_two_stage_paper(3, 0.04),
        optimizer=OptimizerConfig(1e-3, 1e-3, energy_l2=1e-3, ema_decay=0.9),
        training=TrainingConfig(steps=20, batch_size=5),
        kl_warmup=8,
    )
    return dataclasses.replace(one, **changes)


def backbone_experiment(**changes) -> BackboneExperiment:
    """Return a stage one on 16x16 images, with an EMA, a penalty and 12 steps of which 8 are the warm-up."""
    one = BackboneExperiment(
        protocol="test/1",
        preset="tiny",
        dataset="noise",
        model=HIERARCHY,
        elbo=ELBOConfig(warmup_steps=8, spectral=0.1),
        optimizer=AdamaxConfig(lr=2e-3, largest_gradient=200.0, ema_decay=0.9),
        training=TrainingConfig(steps=12, batch_size=5),
    )
    return dataclasses.replace(one, **changes)


def two_stage_experiment(**changes) -> TwoStageExperiment:
    """Return a stage two on what `backbone` makes, with an EMA, a penalty and 12 steps."""
    one = TwoStageExperiment(
        protocol="test/1",
        preset="tiny",
        dataset="noise",
        model=HIERARCHY,
        backbone="seed 3",
        energy=ConvEnergy(4, 6),
        prior_chain=Chain.from_two_stage_paper(3, 0.04),
        optimizer=EnergyOptimizer(1e-3, energy_l2=1e-3, ema_decay=0.9),
        training=TrainingConfig(steps=12, batch_size=5),
    )
    return dataclasses.replace(one, **changes)


def backbone(config: NVAEConfig = HIERARCHY, seed: int = 3) -> NVAE:
    """Return a hierarchy in eval mode whose every weight and batch statistic is random, in torch's default type.

    Its sigmas depend on the groups above by more than those of a network as it is initialised.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = NVAE(config)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for value, middle in ((module.running_mean, 0.0), (module.running_var, 1.0), (module.weight, 1.0)):
                    assert value is not None
                    value.copy_(middle + 0.4 * torch.rand(value.shape, generator=generator))
        for sampler in network.dec_sampler:
            for parameter in sampler.parameters():
                parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def fit_one(
    folder: Path,
    one: Trainable,
    images: np.ndarray,
    stop_after: int | None = None,
    seed: int = 1,
    backbone: NVAE | None = None,
) -> tuple[Run, TrainState]:
    """Open the run of an experiment and train it; return the run and the state."""
    cpu = torch.device("cpu")
    with open_run(folder, one, seed) as run:
        control = LoopControl(checkpoint_seconds=1e9, stop=lambda step: step == stop_after)
        return run, fit(run, images, cpu, control, backbone)


def train(folder: Path, stop_after: int | None = None, learning: LearningName = "joint-mle", seed: int = 1, **changes):
    """Train the joint experiment; return the run and the state."""
    return fit_one(folder, experiment(learning, **changes), IMAGES, stop_after, seed)


def train_stage(folder: Path, stage: str, stop_after: int | None = None, seed: int = 1, **changes):
    """Train one stage of the two-stage scheme, "backbone" or "two-stage"; return the run and the state."""
    if stage == "backbone":
        return fit_one(folder, backbone_experiment(**changes), COLOURED, stop_after, seed)
    return fit_one(folder, two_stage_experiment(**changes), COLOURED, stop_after, seed, backbone())
