"""Grids of images, and rows of named grids. Each image pixel is a whole number of figure pixels."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.plotting.style import DPI, NOTE_HEIGHT, NOTE_SIZE, PAGE, canvas, note_lines, resolution, styled
from jlebm.errors import UserError

GAP = 2  # pixels between two images of a grid
APART = 0.12  # inches between two grids
LETTER = 0.085  # inches kept for each letter of a label: more than the style's font takes
LINE = 0.16  # inches that a line of a title takes


@styled
def image_grid(images: UInt8[np.ndarray, "n c h w"], columns: int, scale: int = 2) -> Figure:
    """Tile images row by row, `scale` figure pixels to an image pixel, unchanged.

    Raises:
        UserError: there are no images, or `columns` or `scale` is below 1.
    """
    grid = tile(images, columns)
    _check_scale(scale)
    height, width = grid.shape[:2]
    figure = canvas(width * scale, height * scale, DPI)
    figure.add_axes((0, 0, 1, 1)).set_axis_off()
    figure.axes[0].imshow(grid, interpolation="none", aspect="auto")
    return figure


@styled
def image_rows(groups: Mapping[str, UInt8[np.ndarray, "_ c h w"]], columns: int, scale: int = 2) -> Figure:
    """Draw one grid per group, one below another, with the group's name at its left.

    Raises:
        UserError: there is no group, a group has no images, or `columns` or `scale` is below 1.
    """
    return image_panels({name: {"": images} for name, images in groups.items()}, columns, scale)


@styled
def image_panels(
    rows: Mapping[str, Mapping[str, UInt8[np.ndarray, "_ c h w"]]],
    columns: int,
    scale: int = 2,
    notes: Sequence[str] = (),
) -> Figure:
    """Draw rows of grids: the row's name at its left, the grids' names above the first row.

    The figure is as wide as a page, or narrower where that would take less than 100 pixels an inch.

    Args:
        rows: by name, "" for none; each holds grids by name, the same ones in each row. A name may have several lines.
        columns: images in a line of each grid.
        scale: figure pixels to an image pixel.
        notes: sentences that stand below.

    Raises:
        UserError: there is no row, its grids are not those of the first row, a grid has no images, or `columns` or
            `scale` is below 1.
    """
    titles = list(next(iter(rows.values()), {}))
    if not titles:
        raise UserError("there are no groups of images to draw")
    _check_scale(scale)
    for name, panels in rows.items():
        if list(panels) != titles:
            raise UserError(f"the row {name!r} has the grids {list(panels)}, and the first row has {titles}")
    grids = [[tile(images, columns) for images in panels.values()] for panels in rows.values()]
    # Everything is placed in whole figure pixels, so that each image pixel becomes `scale` by `scale` of them.
    wide = [max(row[place].shape[1] for row in grids) * scale for place in range(len(titles))]
    tall = [max(grid.shape[0] for grid in row) * scale for row in grids]
    left = LETTER * max(max(map(len, name.split("\n"))) for name in rows) + 0.15 * any(rows)
    dpi = resolution(sum(wide), PAGE - left - APART * (len(wide) - 1))
    margin, apart = round(left * dpi), round(APART * dpi)
    above = round(LINE * dpi * max(title.count("\n") + 1 for title in titles)) if any(titles) else 0
    width = margin + sum(wide) + apart * (len(wide) - 1)
    lines = note_lines(notes, width / dpi)
    below = round(dpi * (NOTE_HEIGHT * len(lines) + 0.08)) if lines else 0
    height = above + sum(tall) + apart * (len(tall) - 1) + below
    figure, top = canvas(width, height, dpi), height - above
    for name, row, high in zip(rows, grids, tall, strict=True):
        at = margin
        for title, grid, broad in zip(titles, row, wide, strict=True):
            axes = picture(figure, grid, at, top, scale)
            if at == margin:
                axes.set_ylabel(name, rotation=0, ha="right", va="center")
            if top == height - above and title:
                axes.set_title(title, fontsize="medium", pad=3)
            at += broad + apart
        top -= high + apart
    if lines:
        figure.text(0.01, 0.02 / (height / dpi), "\n".join(lines), va="bottom", fontsize=NOTE_SIZE)
    return figure


def picture(figure: Figure, grid: UInt8[np.ndarray, "height width 3"], left: int, top: int, scale: int) -> Axes:
    """Add a grid to a figure, with its upper left corner at these figure pixels from the left and the bottom."""
    width, height = round(figure.bbox.width), round(figure.bbox.height)
    tall, wide = grid.shape[0] * scale, grid.shape[1] * scale
    axes = figure.add_axes((left / width, (top - tall) / height, wide / width, tall / height))
    axes.imshow(grid, interpolation="none", aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return axes


def tile(images: UInt8[np.ndarray, "n c h w"], columns: int) -> UInt8[np.ndarray, "height width 3"]:
    """Tile images row by row on white; a single channel becomes grey.

    Raises:
        UserError: there are no images, or `columns` is below 1.
    """
    if len(images) == 0:
        raise UserError("there are no images to tile")
    if columns < 1:
        raise UserError(f"a grid has at least one column, not {columns}")
    import torch  # here: both take seconds to import
    from torchvision.utils import make_grid

    # make_grid repeats a single channel three times.
    grid = make_grid(torch.from_numpy(np.array(images)), nrow=columns, padding=GAP, pad_value=255)
    return grid.permute(1, 2, 0).numpy()


def _check_scale(scale: int) -> None:
    if scale < 1:
        raise UserError(f"the scale is {scale}; an image pixel needs at least one figure pixel")
