"""What every figure script shares: where its artifact is, what makes it, and where the drawing goes."""

from collections.abc import Sequence
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


def require(path: Path, array: np.ndarray, ndim: int, kinds: Sequence[str], meaning: str) -> np.ndarray:
    """Return the array where it has `ndim` axes and one of the dtype kinds.

    Raises:
        UserError: it has not; `meaning` says what it should be.
    """
    if array.ndim != ndim or array.dtype.kind not in kinds or array.size == 0:
        raise UserError(
            f"{path} holds an array of shape {array.shape} and type {array.dtype}, where {meaning} is meant"
        )
    return array
