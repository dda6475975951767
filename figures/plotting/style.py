"""Style of all figures: style file, page width, notes below a figure, and files."""

import math
import textwrap
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import matplotlib
from matplotlib.figure import Figure

from jlebm.files import atomic_write

STYLE = Path(__file__).with_suffix(".mplstyle")
DPI = 100  # the style's figure.dpi, the least that a figure has
PAGE = 7.2  # inches: no figure of images is wider, so that letters are printed at the size of the style
NOTE_SIZE = 6.5  # points
NOTE_HEIGHT = 0.125  # inches that a line of notes takes
NOTE_LETTERS = 20  # letters of notes in an inch

P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Make a function draw in the project's style, independent of the process's style."""

    @wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(fname=STYLE):
            return draw(*args, **kwargs)

    return wrapped


def note_lines(notes: Sequence[str], inches: float) -> list[str]:
    """Break each note into lines that fit into a figure of this width in inches."""
    width = int(inches * NOTE_LETTERS)
    return [line for note in notes for line in textwrap.wrap(note, width, subsequent_indent="    ")]


def resolution(pixels: int, inches: float) -> int:
    """Return the dots per inch, at least `DPI`, at which the figure pixels fit into the inches."""
    return max(DPI, math.ceil(pixels / inches))


def canvas(width: int, height: int, dpi: int) -> Figure:
    """Return an empty figure of a size in pixels, plus a hundredth so that rounding does not cut the last one."""
    return Figure(figsize=((width + 0.01) / dpi, (height + 0.01) / dpi), dpi=dpi)


@styled
def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem`.pdf (vector) and `stem`.png atomically and return both paths.

    The same figure gives the same bytes: no date is written into them.
    """
    paths = []
    for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", {})):
        path = stem.with_name(stem.name + suffix)
        with atomic_write(path) as file:
            figure.savefig(file, format=suffix[1:], metadata=metadata)
        paths.append(path)
    return paths
