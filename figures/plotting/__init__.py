"""Figures of images, chains, scores and training. Every function returns a matplotlib Figure; nothing is shown."""

# isort: off
from figures.plotting.backend import matplotlib as _first  # noqa: F401

# isort: on
from figures.plotting.chains import Level, snapshot_steps, transition
from figures.plotting.curves import curve_panels, energy_trace, recorded, training_curves
from figures.plotting.grids import GAP, image_grid, image_panels, image_rows
from figures.plotting.histograms import score_histograms
from figures.plotting.nearest_pairs import nearest_pairs
from figures.plotting.panels import Panel, panels
from figures.plotting.style import STYLE, save

__all__ = [
    "GAP",
    "STYLE",
    "Level",
    "Panel",
    "curve_panels",
    "energy_trace",
    "image_grid",
    "image_panels",
    "image_rows",
    "nearest_pairs",
    "panels",
    "recorded",
    "save",
    "score_histograms",
    "snapshot_steps",
    "training_curves",
    "transition",
]
