"""Figures of images, chains and training. Every function returns a matplotlib Figure; nothing is shown."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from torchvision.utils import make_grid

from jlebm.errors import UserError, nearest
from jlebm.files import write_atomically

STYLE = Path(__file__).with_suffix(".mplstyle")
DPI = 100  # the style's figure.dpi, with which an image pixel becomes a whole number of figure pixels
GAP = 2  # pixels between two images of a grid
APART = 12  # figure pixels between two grids
NOTE_WIDTH = 145  # letters of a line below a figure
NOTE_HEIGHT = 0.1  # inches that such a line takes
LETTER = 9  # figure pixels kept for each letter of a label: more than the style's font takes

P = ParamSpec("P")
R = TypeVar("R")


def _styled(draw: Callable[P, R]) -> Callable[P, R]:
    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(fname=STYLE):
            return draw(*args, **kwargs)

    return styled


@_styled
def image_grid(images: UInt8[np.ndarray, "n c h w"], columns: int, scale: int = 2) -> Figure:
    """Tile images row by row, `scale` figure pixels to an image pixel, unchanged.

    Raises:
        UserError: there are no images, or `columns` or `scale` is below 1.
    """
    grid = _grid(images, columns)
    if scale < 1:
        raise UserError(f"the scale is {scale}; an image pixel needs at least one figure pixel")
    height, width = grid.shape[:2]
    figure = Figure(figsize=(width * scale / DPI, height * scale / DPI))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(grid, interpolation="none", aspect="auto")
    axes.set_axis_off()
    return figure


@_styled
def image_rows(groups: Mapping[str, UInt8[np.ndarray, "_ c h w"]], columns: int, scale: int = 2) -> Figure:
    """Draw one grid for each group, one under another, with the group's name at its left.

    Raises:
        UserError: there is no group, a group has no images, or `columns` is below 1.
    """
    if not groups:
        raise UserError("there are no groups of images to draw")
    if scale < 1:
        raise UserError(f"the scale is {scale}; an image pixel needs at least one figure pixel")
    grids = [_grid(images, columns) for images in groups.values()]
    # Everything is placed in whole figure pixels, so that each image pixel becomes `scale` by `scale` of them.
    margin = 20 + LETTER * max(map(len, groups))
    width = margin + max(grid.shape[1] for grid in grids) * scale
    height = sum(grid.shape[0] * scale + APART for grid in grids) - APART
    figure = Figure(figsize=(width / DPI, height / DPI))
    top = height
    for name, grid in zip(groups, grids, strict=True):
        tall, wide = grid.shape[0] * scale, grid.shape[1] * scale
        axes = figure.add_axes((margin / width, (top - tall) / height, wide / width, tall / height))
        axes.imshow(grid, interpolation="none", aspect="auto")
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
        top -= tall + APART
    return figure


@_styled
def energy_trace(
    traces: Float[np.ndarray, "steps chains *layers"],
    quantity: str = "energy E(z), lower is more likely",
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
    lines = [line for note in notes for line in textwrap.wrap(note, NOTE_WIDTH, subsequent_indent="    ")]
    figure = Figure(figsize=(5, 3.2 + NOTE_HEIGHT * len(lines)), layout="constrained")
    axes = figure.add_subplot()
    steps = np.arange(len(traces))
    for name, curve in curves.items():
        mean, deviation = curve.mean(axis=1), curve.std(axis=1)
        (line,) = axes.plot(steps, mean, label=name)
        axes.fill_between(steps, mean - deviation, mean + deviation, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(xlabel="Langevin step", ylabel=quantity)
    axes.set_title(f"mean and standard deviation over {traces.shape[1]} chains", fontsize="small")
    if traces.ndim > 2:
        axes.legend()
    if lines:
        figure.supxlabel("\n".join(lines), x=0.02, ha="left", fontsize=5)
    return figure


@_styled
def training_curves(events: Sequence[Mapping[str, Any]], names: Sequence[str] | None = None) -> Figure:
    """Draw the figures that a run recorded, a panel each, over the training step.

    Args:
        events: records of `events.jsonl`; those with a whole-numbered "step" count, and of them the numbers.
        names: which figures; all of them by default.

    Raises:
        UserError: no event has a step and a number, or none has one of `names`.
    """
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for event in events:
        step = event.get("step")
        if type(step) is not int:
            continue
        for name, value in event.items():
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                xs, ys = curves.setdefault(name, ([], []))
                xs.append(step)
                ys.append(float(value))
    if not curves:
        raise UserError("no event has a step and a number: there is no training curve to draw yet")
    for name in names if names is not None else ():
        if name not in curves:
            raise UserError(f"no event records {name!r}{nearest(name, curves)}")
    shown = list(names) if names is not None else sorted(curves)
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.2 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, name in zip(panels, shown, strict=False):
        axes.plot(*curves[name])
        axes.set(title=name, xlabel="training step")
    for axes in panels[len(shown) :]:
        axes.remove()
    return figure


@_styled
def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem`.pdf (vector) and `stem`.png, whole or not at all, and return both paths.

    The same figure gives the same bytes: no date is written into them.
    """
    paths = []
    for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", {})):
        path = stem.with_name(stem.name + suffix)

        def write(part: Path, form: str = suffix[1:], metadata: dict[str, Any] = metadata) -> None:
            figure.savefig(part, format=form, metadata=metadata)

        write_atomically(path, write)
        paths.append(path)
    return paths


def _grid(images: np.ndarray, columns: int) -> np.ndarray:
    if len(images) == 0:
        raise UserError("there are no images to tile")
    if columns < 1:
        raise UserError(f"a grid has at least one column, not {columns}")
    # White between the images; make_grid repeats a single channel three times.
    grid = make_grid(torch.from_numpy(np.array(images)), nrow=columns, padding=GAP, pad_value=255)
    return grid.permute(1, 2, 0).numpy()
