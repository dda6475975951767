"""What every figure script shares: where its artifact is, what makes it, and where the drawing goes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jlebm.errors import UserError
from jlebm.results import read_all, read_artifact


@dataclass(frozen=True)
class Artifact:
    """A stored npz file that a figure is drawn from, and the command that makes it."""

    name: str
    command: str
    arrays: tuple[str, ...]

    def path(self, results: Path) -> Path:
        """Return where it is stored."""
        return results / "artifacts" / f"{self.name}.npz"

    def load(self, results: Path) -> dict[str, np.ndarray]:
        """Return its arrays.

        Raises:
            UserError: the file is damaged, or its provenance does not fit its arrays or the stored rows.
        """
        arrays, _ = read_artifact(self.path(results), self.arrays, read_all(results / "measured"))
        return arrays


@dataclass(frozen=True)
class Kept:
    """A run whose artifacts the repository keeps: the first seed of a recipe's preset."""

    name: str
    command: str

    def of(self, kind: str, arrays: tuple[str, ...]) -> Artifact:
        """Return the run's artifact of one kind."""
        return Artifact(f"{self.name}_{kind}", self.command, arrays)


KEPT = (
    Kept("cifar10_joint_mle_cpu", "nox -s reproduce_cifar10 -- --preset cpu"),
    Kept("cifar10_two_stage_cpu", "nox -s reproduce_cifar10 -- --model two-stage --preset cpu"),
    Kept("celeba64_two_stage_cpu", "nox -s reproduce_celeba64 -- --preset cpu"),
)


def require(
    path: Path, array: np.ndarray, ndim: int, dtype: type[np.generic], meaning: str, channels: int | None = None
) -> np.ndarray:
    """Return the array where it has `ndim` axes, the dtype, and 1 or 3 entries along the axis `channels`, if any.

    Raises:
        UserError: it has not, or is empty; `meaning` says what it should be.
    """
    fits = array.ndim == ndim and np.issubdtype(array.dtype, dtype) and array.size > 0
    if not fits or (channels is not None and array.shape[channels] not in (1, 3)):
        raise UserError(
            f"{path} holds an array of shape {array.shape} and type {array.dtype}, where {meaning} is meant"
        )
    return array
