"""A system of the table whose training diverges: the weights are named, and a checkpoint only where there is one."""

from pathlib import Path
from typing import Any

from jlebm.run import Run
from jlebm.training import TrainState
from tests.systems.small import tiny, train
from tests.test_guard import WILD, keeps_the_last, promises_none

NAMED = r"weights [a-z_0-9.]+"
RATES = tuple(f"optimizer.{part}.lr" for part in ("energy", "encoder", "generator"))


def system(folder: Path, stop_after: int | None, wild: bool) -> tuple[Run, TrainState]:
    one: Any = tiny("divergence-triangle", steps=24)
    if wild:
        one = one.override([f"{key}={WILD}" for key in RATES])
    return train(folder, one, stop_after)


def test_without_a_checkpoint_none_is_promised(tmp_path: Path) -> None:
    """Breaks if "the last checkpoint stays" is said where there is none, or no weights are named."""
    promises_none(system, NAMED, tmp_path)


def test_a_checkpoint_from_before_is_named_and_stays(tmp_path: Path) -> None:
    """Breaks if weights that are not finite replace a good checkpoint, or the sentence does not say that it stays."""
    keeps_the_last(system, NAMED, tmp_path)
