"""Figures of chains: strips of images above the energy, as in the paper."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure

from figures.plotting.curves import energy_curves
from figures.plotting.grids import LINE, picture, tile
from figures.plotting.style import NOTE_HEIGHT, NOTE_SIZE, PAGE, canvas, note_lines, resolution, styled
from jlebm.errors import UserError

LEFT = 0.75  # inches for the numbers and names of the vertical axes
RIGHT = 0.2
BELOW = 0.42  # inches for the numbers and the name of a horizontal axis
LEAST = 3.5  # inches of the energy's axes below short strips
ENERGY = 1.7  # inches of the energy's axes
LEVEL = 1.1  # and of those below them
HEADROOM = 1.35  # above the highest level, for the legend
SPARE = 0.15  # share of the energy's range that is left above it, for the legend


class Level(NamedTuple):
    """A statistic of the images at every snapshot, and of the data."""

    values: Float[np.ndarray, " snapshots"]
    data: float


@styled
def transition(
    strips: UInt8[np.ndarray, "chains snapshots c h w"],
    energy: Float[np.ndarray, "steps watched *layers"],
    levels: Mapping[str, Level] | None = None,
    notes: Sequence[str] = (),
    scale: int = 1,
) -> Figure:
    """Draw a strip of images for each chain, below them the energy of all watched chains, and levels of the images.

    Args:
        strips: the images of each chain from its start on, at equal distances in steps.
        energy: as for `energy_trace`: the mean over the watched chains with a band of one standard deviation.
        levels: by name, a curve over the snapshots each with the data's own level as a dashed line.
        notes: sentences that stand below.
        scale: figure pixels to an image pixel.

    Raises:
        UserError: there is no image or energy, an energy or level is not finite, or a level is not of as many
            snapshots as the strips.
    """
    levels, snapshots = levels or {}, strips.shape[1]
    for name, level in levels.items():
        if level.values.shape != (snapshots,) or not np.isfinite([*level.values, level.data]).all():
            raise UserError(
                f"the level {name!r} needs a finite number for the data and for each of {snapshots} snapshots"
            )
    grid = tile(strips.reshape(-1, *strips.shape[2:]), snapshots)
    tall, wide = grid.shape[0] * scale, grid.shape[1] * scale
    dpi = resolution(wide, PAGE - LEFT - RIGHT)
    across = max(wide / dpi, LEAST)  # width of the energy's axes
    inches = across + LEFT + RIGHT
    lines = note_lines(notes, inches)
    foot = NOTE_HEIGHT * len(lines) + 0.08 * bool(lines)
    under = foot + bool(levels) * (LEVEL + BELOW + 0.1)
    below = 2 * LINE + ENERGY + BELOW + under
    width, height = round(inches * dpi), tall + round(below * dpi) + round(LINE * dpi)
    figure, left, every = canvas(width, height, dpi), round(LEFT * dpi), _distance(len(energy) - 1, snapshots)
    axes = picture(figure, grid, left, height - round(LINE * dpi), scale)
    axes.set_title(f"{len(strips)} chains, an image every {every} steps from the start on", fontsize="small", pad=2)

    def place(start: float, bottom: float, broad: float, high: float) -> tuple[float, float, float, float]:
        return start / inches, bottom * dpi / height, broad / inches, high * dpi / height

    axes = figure.add_axes(place(LEFT, under + BELOW, across, ENERGY))
    energy_curves(axes, energy)
    axes.set(xlabel="Langevin step", ylabel="energy E(z)", xlim=(0, max(len(energy) - 1, 1)))
    axes.set_title(f"lower is more likely; mean and standard deviation over {energy.shape[1]} chains", fontsize="small")
    if axes.get_legend() is not None:
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + SPARE * (high - low))
        axes.legend(ncols=6, fontsize="small", loc="upper right")
    broad = (across - LEFT * (len(levels) - 1)) / max(len(levels), 1)
    for index, (name, level) in enumerate(levels.items()):
        axes = figure.add_axes(place(LEFT + index * (broad + LEFT), foot + BELOW, broad, LEVEL))
        axes.plot(np.arange(snapshots) * every, level.values, marker=".", label="chains")
        axes.axhline(level.data, color="black", linestyle="--", linewidth=1, label="data")
        top = max(level.values.max(), level.data) * HEADROOM or 1.0
        axes.set(xlabel="Langevin step", ylabel=name, ylim=(0, top))
        axes.legend(fontsize="small", loc="upper right", ncols=2)
    if lines:
        figure.text(0.02, 0.01, "\n".join(lines), ha="left", va="bottom", fontsize=NOTE_SIZE)
    return figure


def snapshot_steps(steps: int, snapshots: int) -> list[int]:
    """Return the steps at which the images of a strip were taken, from the start on."""
    return [index * _distance(steps, snapshots) for index in range(snapshots)]


def _distance(steps: int, snapshots: int) -> int:
    return max(steps // snapshots, 1)
