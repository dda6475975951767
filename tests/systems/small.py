"""The table's systems at their tiny size on a few images, for what every one of them has to keep."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from jlebm.backbones.nvae import NVAE
from jlebm.errors import UserError
from jlebm.learning.trainable import TrainingConfig
from jlebm.run import Run, open_run
from jlebm.training import LoopControl, TrainState, fit
from reproduce import cifar10
from reproduce.systems import presets_of
from reproduce.systems.system import BaselineExperiment, OnBackbone
from tests import small

COUNT = 24
CLASSES = np.arange(COUNT) % 10
_coarse = np.random.default_rng(2).integers(0, 256, (COUNT, 3, 8, 8), dtype=np.uint8)
IMAGES = _coarse.repeat(4, axis=2).repeat(4, axis=3)


def needs_library(experiment: BaselineExperiment) -> None:
    """Skip the test where the extra that the system needs is not installed."""
    if isinstance(experiment, OnBackbone):
        return
    try:
        with torch.random.fork_rng(devices=[]):
            experiment.build()
    except UserError as error:
        if "jlebm[baselines]" not in str(error):
            raise
        pytest.skip(str(error))


def tiny(name: str, steps: int = 4, **changes: object) -> BaselineExperiment:
    """Return a system's tiny preset for a few steps of four images."""
    one = dataclasses.replace(
        presets_of(name)["tiny"], training=TrainingConfig(steps=steps, batch_size=4), dataset="blocks", **changes
    )
    needs_library(one)
    if isinstance(one, OnBackbone):
        model = cifar10.RECIPE.two_stage["tiny"].plan.backbone.model
        one = dataclasses.replace(one, model=model, backbone="seed 3")
    return one


def backbone_of(one: BaselineExperiment) -> NVAE | None:
    """Return the frozen backbone that a system is put upon, random weights, where it is."""
    return small.backbone(one.model) if isinstance(one, OnBackbone) else None


def built(one: BaselineExperiment, seed: int = 0):
    """Build a system from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return one.build(backbone_of(one))


def train(folder: Path, one: BaselineExperiment, stop_after: int | None = None) -> tuple[Run, TrainState]:
    """Train a system on a few images with classes; return the run and the state."""
    cpu = torch.device("cpu")
    with open_run(folder, one, 1) as run:

        def stop(step: int) -> bool:
            return step == stop_after

        state = fit(run, IMAGES, cpu, LoopControl(checkpoint_seconds=1e9, stop=stop), backbone_of(one), CLASSES)
        return run, state
