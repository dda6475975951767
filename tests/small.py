"""A model that trains in milliseconds, for tests of the loop."""

import dataclasses
from pathlib import Path

import numpy as np

from jlebm.backbones.conv import ConvConfig
from jlebm.experiment import Experiment, LearningName, OptimizerConfig, TrainingConfig
from jlebm.langevin import Chain

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)


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
            inference_network=learning == "variational",
        ),
        energy_hidden=((6,), (6, 6)),
        prior_chain=Chain.from_joint_paper(4, 0.4),
        posterior_chain=Chain.from_joint_paper(3, 0.1),
        optimizer=OptimizerConfig(1e-3, 1e-3, energy_l2=1e-3, ema_decay=0.9),
        training=TrainingConfig(steps=steps, batch_size=5),
    )
    return dataclasses.replace(one, **changes)


def train(folder: Path, stop_after: int | None = None, learning: LearningName = "joint-mle", seed: int = 1, **changes):
    """Open the run and train it; return the run and the state."""
    import torch

    from jlebm.run import open_run
    from jlebm.training import fit

    with open_run(folder, experiment(learning, **changes), seed) as run:
        return run, fit(run, IMAGES, torch.device("cpu"), stop=lambda step: step == stop_after, checkpoint_seconds=1e9)
