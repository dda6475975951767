"""Curves over steps: energies along chains, and values recorded in training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.plotting.panels import panels
from figures.plotting.style import NOTE_HEIGHT, NOTE_SIZE, note_lines, styled
from jlebm.errors import UserError, nearest

ENERGY = "energy E(z), lower is more likely"  # the project's energy, whose negative is the paper's f
WIDTH = 5.0  # inches of an energy trace


@styled
def energy_trace(
    traces: Float[np.ndarray, "steps chains *layers"],
    quantity: str = ENERGY,
    notes: Sequence[str] = (),
) -> Figure:
    """Draw the mean over chains at each step, with a band of one standard deviation over chains.

    Args:
        traces: index 0 is the chain's start. With a last axis of layers (index 0 the top one), each layer has its
            curve, named z2 and z1 where there are two, and their sum has one.
        quantity: what is plotted and its sign, written at the axis. The default is the project's energy, whose
            negative is the paper's f.
        notes: sentences that stand below it, such as the chains' diagnostics.

    Raises:
        UserError: there is no step or chain, or a value is not finite.
    """
    lines = note_lines(notes, WIDTH)
    figure = Figure(figsize=(WIDTH, 3.2 + NOTE_HEIGHT * len(lines)), layout="constrained")
    axes = figure.add_subplot()
    energy_curves(axes, traces)
    axes.set(xlabel="Langevin step", ylabel=quantity)
    axes.set_title(f"mean and standard deviation over {traces.shape[1]} chains", fontsize="small")
    if lines:
        figure.supxlabel("\n".join(lines), x=0.02, ha="left", fontsize=NOTE_SIZE)
    return figure


def energy_curves(axes: Axes, traces: Float[np.ndarray, "steps chains *layers"]) -> None:
    """Draw the curves of `energy_trace` into given axes.

    Raises:
        UserError: there is no step or chain, or a value is not finite.
    """
    if traces.size == 0:
        raise UserError("the energy trace is empty: it needs at least one step of one chain")
    if not np.isfinite(traces).all():
        raise UserError(f"the energy trace is not finite from step {int(np.argwhere(~np.isfinite(traces))[0, 0])} on")
    curves = {"": traces}
    if traces.ndim > 2:
        count = traces.shape[2]
        curves = {f"z{count - index}": traces[:, :, index] for index in range(count)}
        if count > 1:
            curves = {"all layers": traces.sum(axis=2), **curves}
    steps = np.arange(len(traces))
    for name, curve in curves.items():
        mean, deviation = curve.mean(axis=1), curve.std(axis=1)
        (line,) = axes.plot(steps, mean, label=name)
        axes.fill_between(steps, mean - deviation, mean + deviation, color=line.get_color(), alpha=0.2, linewidth=0)
    if traces.ndim > 2:
        axes.legend()


def training_curves(events: Sequence[Mapping[str, Any]], names: Sequence[str] | None = None) -> Figure:
    """Draw the values that a run recorded over the training step, as `curve_panels` does.

    Args:
        events: records of `events.jsonl`.
        names: which figures; all of them by default.

    Raises:
        UserError: no event has a step and a number, or none has one of `names`.
    """
    curves = recorded(events)
    for name in names if names is not None else ():
        if name not in curves:
            raise UserError(f"no event records {name!r}{nearest(name, curves)}")
    return curve_panels({name: curves[name] for name in (names if names is not None else curves)})


def recorded(events: Sequence[Mapping[str, Any]]) -> dict[str, Float[np.ndarray, "2 records"]]:
    """Return each value that a run recorded, sorted by name: training steps above values.

    Args:
        events: records of `events.jsonl`; those with a whole-numbered "step" count, and of them the numbers, but not
            the "seconds" that had gone by.

    Raises:
        UserError: no event has a step and a number.
    """
    curves: dict[str, list[tuple[float, float]]] = {}
    for event in events:
        step = event.get("step")
        if type(step) is not int:
            continue
        for name, value in event.items():
            if name not in ("step", "seconds") and isinstance(value, int | float) and not isinstance(value, bool):
                curves.setdefault(name, []).append((step, float(value)))
    if not curves:
        raise UserError("no event has a step and a number: there is no training curve to draw yet")
    return {name: np.array(curves[name]).T for name in sorted(curves)}


@styled
def curve_panels(curves: Mapping[str, Float[np.ndarray, "2 records"]]) -> Figure:
    """Draw curves over the training step in panels: the two sides of one quantity share one, with their gap shaded.

    Args:
        curves: by name, at least one: training steps above values, as `recorded` returns them.
    """
    shown = panels(curves)
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.2 * rows), layout="constrained")
    drawn = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, panel in zip(drawn, shown, strict=False):
        for label, (steps, values) in panel.curves.items():
            axes.plot(steps, values, label=label)
        if panel.gap:
            (steps, one), (others, other) = list(panel.curves.values())[:2]
            if np.array_equal(steps, others):
                axes.fill_between(steps, one, other, color="gray", alpha=0.25, linewidth=0, label="gap")
        if len(panel.curves) > 1:
            axes.legend(fontsize="small")
        axes.set(title=panel.title, xlabel="training step")
    for axes in drawn[len(shown) :]:
        axes.remove()
    return figure
