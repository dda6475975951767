"""Histograms of a score on two sets of images."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from figures.plotting.style import PAGE, styled
from jlebm.errors import UserError

BINS = 50
TAIL = 0.2  # percent of either set beyond the outermost bins at each end


@styled
def score_histograms(
    inside: Float[np.ndarray, "scores n"],
    outside: Float[np.ndarray, "scores m"],
    titles: Sequence[str],
    labels: tuple[str, str],
    note: str = "",
) -> Figure:
    """Draw the densities of each score on two sets, one panel per score.

    The sets differ in colour, in filling and in the line, so that they are told apart in grey print. The few scores of
    long tails are counted in the outermost bins.

    Args:
        inside: the scores of the set that the model was trained on.
        outside: those of the other set.
        titles: of the panels.
        labels: the names of the two sets.
        note: stands above the panels.

    Raises:
        UserError: there is no score, one is not finite, or there are not as many titles.
    """
    if not len(inside) == len(outside) == len(titles) > 0:
        raise UserError(f"{len(inside)} and {len(outside)} scores have {len(titles)} titles; give each score one")
    columns = min(3, len(titles))
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(PAGE * columns / 3, 2.1 * rows + 0.4), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    looks = ({"color": "C0", "alpha": 0.35}, {"facecolor": "none", "hatch": "/////"})
    for axes, title, *pair in zip(panels, titles, inside, outside, strict=False):
        edges = _edges(pair, title)
        for label, scores, look, line in zip(labels, pair, looks, ("-", "--"), strict=True):
            heights, _ = np.histogram(np.clip(scores, edges[0], edges[-1]), edges, density=True)
            color = "C0" if line == "-" else "C1"
            edge = {"edgecolor": color, "linewidth": 0} if "hatch" in look else {"linewidth": 0}
            axes.stairs(heights, edges, fill=True, **edge, **look)
            axes.stairs(heights, edges, color=color, linestyle=line, linewidth=1.2, label=label)
        axes.set_title(title, fontsize="medium")
        axes.set(yticks=[], xlabel="score")
    panels[0].set_ylabel("density")
    for axes in panels[len(titles) :]:
        axes.remove()
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=2)
    if note:
        figure.suptitle(note, x=0.99, ha="right", fontsize="small")
    return figure


def _edges(pair: Sequence[np.ndarray], title: str) -> np.ndarray:
    if min(scores.size for scores in pair) == 0 or not all(np.isfinite(scores).all() for scores in pair):
        raise UserError(f"the scores of {title.splitlines()[0]!r} are empty or not finite; there is no density of them")
    low = min(float(np.percentile(scores, TAIL, method="higher")) for scores in pair)
    high = max(float(np.percentile(scores, 100 - TAIL, method="lower")) for scores in pair)
    return np.linspace(low, max(high, low + 1e-6 * max(1.0, abs(low))), BINS + 1)
