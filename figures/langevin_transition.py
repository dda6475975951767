"""Figure of Langevin transitions: strips of images above the energy along short and long prior chains."""

import sys
from pathlib import Path

import numpy as np

from figures.common import Artifact, Drawing, main, require, scale_for, sentences
from figures.exploring import Curve, Exploration, Plot, energy_plot
from figures.plotting import Level, save, snapshot_steps, transition
from jlebm.errors import UserError

LEVELS = {"saturated": "saturated pixels", "diversity": "diversity"}
LENGTHS = ("short", "long")
DRAWING = Drawing(
    "transition",
    "the Langevin transition",
    (
        *(f"{length}_{what}" for length in LENGTHS for what in ("images", "energy")),
        *(f"{level}{of}" for level in LEVELS for of in ("", "_data")),
    ),
    ("ladder", "two-stage"),
)


def draw(artifact: Artifact, results: Path, out: Path) -> list[Path]:
    """Draw the short and the long chains, two figures, and return the files written.

    Raises:
        UserError: the artifact is damaged or of another run, or its arrays are not strips, energies and levels.
    """
    arrays, path = artifact.load(results), artifact.path(results)
    levels = _levels(arrays, path)
    written = []
    for length in LENGTHS:
        strips, energy = _chains(arrays, path, length)
        # Only the long chains have levels and notes.
        more = (levels, sentences(arrays, "notes")) if length == "long" else ({}, ())
        try:
            figure = transition(strips, energy, *more, scale=scale_for(strips.shape[-1]))
        except UserError as error:
            raise UserError(f"{path}, {length} chains: {error}") from error
        written += save(figure, out / f"{artifact.name}_{length}")
    return written


def explore(artifact: Artifact, results: Path) -> list[Exploration]:
    """Return the short and the long chains, by their steps: the images at a step beside the energy until the end.

    Raises:
        UserError: as in `draw`.
    """
    arrays, path = artifact.load(results), artifact.path(results)
    found = []
    for length in LENGTHS:
        strips, energy = _chains(arrays, path, length)
        chains, snapshots = strips.shape[:2]
        steps = snapshot_steps(len(energy) - 1, snapshots)
        plots = [energy_plot(f"energy E(z), lower is more likely ({energy.shape[1]} chains)", energy)]
        if length == "long":
            x = np.array(steps, np.float64)
            plots += [
                Plot(name, "Langevin step", (Curve("chains", x, level.values), Curve("data", x, x * 0 + level.data)))
                for name, level in _levels(arrays, path).items()
            ]
        found.append(
            Exploration(
                f"Langevin transition, {length} chains of {len(energy) - 1} steps",
                "Langevin step",
                tuple(f"step {step} of {len(energy) - 1}" for step in steps),
                {f"{chains} chains from reference noise": np.swapaxes(strips, 0, 1)},
                columns=chains,
                plots=tuple(plots),
                marks=tuple(map(float, steps)),
                notes=tuple(sentences(arrays, "notes")) if length == "long" else (),
            )
        )
    return found


def _levels(arrays: dict[str, np.ndarray], path: Path) -> dict[str, Level]:
    levels = {}
    for name, label in LEVELS.items():
        values = require(path, arrays[name], 1, np.floating, f"{name}: floating point (snapshots,)")
        data = require(
            path, np.ravel(arrays[f"{name}_data"]), 1, np.floating, f"{name}_data: one floating point number"
        )
        levels[label] = Level(values.astype(np.float64), float(data[0]))
    return levels


def _chains(arrays: dict[str, np.ndarray], path: Path, length: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the strips and the energy of the short or the long chains."""
    meaning = f"{length}_images: uint8 (chains, snapshots, C, H, W) with 1 or 3 channels"
    strips = require(path, arrays[f"{length}_images"], 5, np.uint8, meaning, channels=2)
    meaning = f"{length}_energy: floating point (steps + 1, chains, layers)"
    energy = require(path, arrays[f"{length}_energy"], 3, np.floating, meaning)
    return strips, energy.astype(np.float64)


if __name__ == "__main__":
    sys.exit(main(DRAWING, draw))
