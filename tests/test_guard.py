"""A training that diverges: the layer is named, and a checkpoint only where there is one."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jlebm import checkpoints
from jlebm.experiment import OptimizerConfig
from jlebm.guard import Diverged
from jlebm.learning.two_stage import EnergyOptimizer
from jlebm.run import Run
from jlebm.training import TrainState
from tests.small import COLOURED, IMAGES, backbone_experiment, fit_one, ladder_experiment, train, train_stage

NONE, KEPT = "no checkpoint had been written yet", "the last checkpoint is from before and stays"
Fit = Callable[[Path, int | None, bool], tuple[Run, TrainState]]
WILD = 1e30  # a learning rate


def joint(folder: Path, stop_after: int | None, wild: bool) -> tuple[Run, TrainState]:
    changes: dict[str, Any] = {"optimizer": OptimizerConfig(WILD, WILD, ema_decay=0.9)} if wild else {}
    return train(folder, stop_after, **changes)


def variational(folder: Path, stop_after: int | None, wild: bool) -> tuple[Run, TrainState]:
    changes: dict[str, Any] = {"optimizer": OptimizerConfig(WILD, WILD, ema_decay=0.9)} if wild else {}
    return train(folder, stop_after, "variational", **changes)


def ladder(folder: Path, stop_after: int | None, wild: bool) -> tuple[Run, TrainState]:
    changes: dict[str, Any] = {"optimizer": OptimizerConfig(WILD, WILD, ema_decay=0.9)} if wild else {}
    return fit_one(folder, ladder_experiment(**changes), IMAGES, stop_after)


def energies(folder: Path, stop_after: int | None, wild: bool) -> tuple[Run, TrainState]:
    changes: dict[str, Any] = {"optimizer": EnergyOptimizer(WILD, energy_l2=1e-3, ema_decay=0.9)} if wild else {}
    return train_stage(folder, "two-stage", stop_after, **changes)


def backbone(folder: Path, stop_after: int | None, wild: bool) -> tuple[Run, TrainState]:
    one = backbone_experiment()
    if wild:
        unclipped = dataclasses.replace(one.optimizer, lr=WILD, largest_gradient=None)
        one = dataclasses.replace(one, optimizer=unclipped)
    return fit_one(folder, one, COLOURED, stop_after)


# What diverges, and what its sentence names: a layer where a figure has one, else the weights.
KINDS: dict[str, tuple[Fit, str]] = {
    "joint MLE": (joint, r" of layer z[12] = "),
    "variational": (variational, r" of layer z[12] = "),
    "ladder": (ladder, r" of layer z[123] = "),
    "energies": (energies, r" of layer z[12] = "),
    "backbone": (backbone, r" of layer z[12] = "),
}


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_checkpoint_none_is_promised(kind: str, tmp_path: Path) -> None:
    """Breaks if "the last checkpoint stays" is said where there is none, or no layer or weights are named."""
    promises_none(*KINDS[kind], tmp_path)


def promises_none(fit: Fit, named: str, tmp_path: Path) -> None:
    with pytest.raises(Diverged) as caught:
        fit(tmp_path, None, True)
    said = str(caught.value)
    assert re.search(r"training diverged at step \d+: ", said)
    assert re.search(named, said), said
    assert NONE in said
    assert KEPT not in said
    assert not list(tmp_path.rglob("checkpoint.pt"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_from_before_is_named_and_stays(kind: str, tmp_path: Path) -> None:
    """Breaks if weights that are not finite replace a good checkpoint, or the sentence does not say that it stays."""
    keeps_the_last(*KINDS[kind], tmp_path)


def keeps_the_last(fit: Fit, named: str, tmp_path: Path) -> None:
    run, _ = fit(tmp_path, 2, False)
    content = checkpoints.load(run.checkpoint, run.experiment.digest(), run.seed)
    for group in content["optimizer"]["param_groups"]:
        group["lr"] = WILD
        group["initial_lr"] = WILD
    if content["schedule"] is not None:
        content["schedule"]["base_lrs"] = [WILD for _ in content["schedule"]["base_lrs"]]
    checkpoints.save(run.checkpoint, content, run.experiment.digest(), run.seed)
    before = run.checkpoint.read_bytes()
    with pytest.raises(Diverged) as caught:
        fit(tmp_path, None, False)
    said = str(caught.value)
    assert re.search(named, said), said
    assert KEPT in said
    assert NONE not in said
    assert run.checkpoint.read_bytes() == before
