"""A figure as a reader moves through it: pictures and curves at each position of one slider, as arrays and texts.

Each figure script makes them of its artifact (`explore`); `figures.report` writes them into its page.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, UInt8

from figures.plotting.panels import panels

MOST_POINTS = 260  # points of a curve; a longer one keeps evenly spaced points, the last one always


@dataclass(frozen=True)
class Curve:
    """One line of a plot, the value y at each x."""

    label: str
    x: Float[np.ndarray, " points"]
    y: Float[np.ndarray, " points"]
    band: Float[np.ndarray, " points"] | None = None
    """Half the width of a band around it, such as a standard deviation."""

    def thinned(self, most: int = MOST_POINTS) -> "Curve":
        """Return the curve with at most so many points."""
        if len(self.x) <= most:
            return self
        kept = np.unique(np.linspace(0, len(self.x) - 1, most).round().astype(int))
        return Curve(self.label, self.x[kept], self.y[kept], None if self.band is None else self.band[kept])


@dataclass(frozen=True)
class Plot:
    """Curves over one axis."""

    title: str
    across: str
    """What the horizontal axis is of."""
    curves: tuple[Curve, ...]
    gap: bool = False
    """Whether the first two curves are two sides of one quantity, whose difference is to be seen."""
    steps: bool = False
    """Whether the curves are histograms, a value for each interval from one x to the next."""


@dataclass(frozen=True)
class Exploration:
    """What is seen of one artifact.

    Attributes:
        title: what it shows, in words.
        slider: what the slider moves; "" where there is one position alone.
        positions: what is said at each position, one at least.
        pictures: uint8 (positions, images, C, H, W) by name; one that is the same at each position has a first axis
            of 1.
        columns: images in a line of each picture.
        plots: curves beside the pictures, the same at each position.
        marks: where on the plots' horizontal axis each position is; empty where it is nowhere.
        plot_at: one more plot for each position; empty for none.
        notes: sentences that stand below.
    """

    title: str
    slider: str = ""
    positions: tuple[str, ...] = ("",)
    pictures: Mapping[str, UInt8[np.ndarray, "positions images c h w"]] = field(default_factory=dict)
    columns: int = 8
    plots: tuple[Plot, ...] = ()
    marks: tuple[float, ...] = ()
    plot_at: tuple[Plot, ...] = ()
    notes: tuple[str, ...] = ()


def training_plots(curves: Mapping[str, Float[np.ndarray, "2 records"]], across: str = "training step") -> list[Plot]:
    """Return the panels of what a training recorded: its steps above its values by name, as `recorded` returns them."""
    plots = []
    for panel in panels(curves):
        lines = (Curve(label or "value", x, y).thinned() for label, (x, y) in panel.curves.items())
        plots.append(Plot(panel.title, across, tuple(lines), gap=panel.gap))
    return plots


def energy_plot(title: str, energy: Float[np.ndarray, "steps chains *layers"]) -> Plot:
    """Return the mean energy over chains at each step, with a band of one standard deviation: of all layers, of each.

    Index 0 of the last axis is the top layer.
    """
    energy = energy.astype(np.float64)
    curves = {"": energy}
    if energy.ndim > 2:
        count = energy.shape[2]
        layers = {f"z{count - index}": energy[:, :, index] for index in range(count)}
        curves = ({"all layers": energy.sum(axis=2)} if count > 1 else {}) | layers
    steps = np.arange(len(energy), dtype=np.float64)
    lines = (Curve(name, steps, some.mean(axis=1), some.std(axis=1)).thinned() for name, some in curves.items())
    return Plot(title, "Langevin step", tuple(lines))
