"""What the figures look like: pytest-mpl holds toy ones against stored pictures.

After a change that is meant, `python -m pytest tests/figures/test_figures_looks.py --mpl-generate-path
tests/figures/baseline` draws the pictures anew.
"""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from matplotlib.figure import Figure

from figures import (
    energy_trace,
    front,
    hierarchical_reconstruction,
    hierarchical_sampling,
    langevin_transition,
    nearest_images,
    samples,
    score_histograms,
)
from figures.plotting import STYLE

look = pytest.mark.mpl_image_compare(baseline_dir="baseline", style=str(STYLE), savefig_kwargs={"dpi": 40})


def figures_of(script: ModuleType, results: Path, monkeypatch: Any) -> list[Figure]:
    drawn: list[Figure] = []
    monkeypatch.setattr(script, "save", lambda figure, stem: drawn.append(figure) or [stem])
    (artifact,) = script.DRAWING.stored(results)
    script.draw(artifact, results, results)
    return drawn


@look
def test_hierarchical_sampling(results: Path, monkeypatch: Any) -> Figure:
    """Would break if a panel stood in another's place, the twin above, or a name were cut."""
    figure, _ = figures_of(hierarchical_sampling, results, monkeypatch)
    return figure


@look
def test_hierarchical_reconstruction(results: Path, monkeypatch: Any) -> Figure:
    """Would break if a column had another's heading, or the twin's columns were the model's."""
    (figure,) = figures_of(hierarchical_reconstruction, results, monkeypatch)
    return figure


@look
def test_short_chains(results: Path, monkeypatch: Any) -> Figure:
    """Would break if strips ran downwards, or the energy lost its band."""
    return figures_of(langevin_transition, results, monkeypatch)[0]


@look
def test_long_chains(results: Path, monkeypatch: Any) -> Figure:
    """Would break if a level stood without that of the data, or the notes were left out."""
    return figures_of(langevin_transition, results, monkeypatch)[1]


@look
def test_detection(results: Path, monkeypatch: Any) -> Figure:
    """Would break if the two sets changed colours, or a score had another's numbers above it."""
    (figure,) = figures_of(score_histograms, results, monkeypatch)
    return figure


@look
def test_nearest_training_images(results: Path, monkeypatch: Any) -> Figure:
    """Would break if a row stood below another kind, or a panel had another's heading."""
    (figure,) = figures_of(nearest_images, results, monkeypatch)
    return figure


@look
def test_samples_with_the_twin(results_with_twin: Path, monkeypatch: Any) -> Figure:
    """Would break if the twin's samples were left out, or stood under another name."""
    return figures_of(samples, results_with_twin, monkeypatch)[0]


@look
def test_the_front_page(results_with_twin: Path, monkeypatch: Any) -> Figure:
    """Would break if the EBM prior and its twin changed places or names."""
    (figure,) = figures_of(front, results_with_twin, monkeypatch)
    return figure


@look
def test_the_front_page_without_a_twin(results: Path, monkeypatch: Any) -> Figure:
    """Would break if the Gaussian prior of the same generator were called a twin."""
    (figure,) = figures_of(front, results, monkeypatch)
    return figure


@look
def test_the_sheet_of_two_priors(results: Path, monkeypatch: Any) -> Figure:
    """Would break if the priors changed places."""
    return figures_of(samples, results, monkeypatch)[1]


@look
def test_the_energy_of_chains(results: Path, monkeypatch: Any) -> Figure:
    """Would break if a layer's curve were left out."""
    (figure,) = figures_of(energy_trace, results, monkeypatch)
    return figure
