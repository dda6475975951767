"""Figure of out-of-distribution scores: histograms for images inside and outside."""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from figures.common import Artifact, Drawing, main, require
from figures.exploring import Curve, Exploration, Plot
from figures.plotting import save, score_histograms
from jlebm.errors import UserError
from reproduce.results import read_artifact

ARRAYS = ("inside", "outside", "names", "auroc", "auprc", "fpr80", "positive")
COMMAND = "python -m reproduce.ood --run RUN --outside DATASET"
BINS = 40
DRAWING = Drawing("ood_*", "out-of-distribution detection", ARRAYS, ("ladder", "gaussian"), 2, COMMAND)


def draw(artifact: Artifact, results: Path, out: Path) -> list[Path]:
    """Draw one histogram per score, titled with AUROC, AUPRC and FPR at 80 % TPR, and return the files written.

    Raises:
        UserError: the artifact is damaged or of another run, or its arrays are not scores with their numbers.
    """
    path, found = artifact.path(results), _scores(artifact, results)
    names, inside, outside = found.names, found.inside, found.outside
    titles = [
        f"{name}\nAUROC {auroc:.3f}, AUPRC {auprc:.3f}\nFPR at 80 % TPR {fpr80:.3f}"
        for name, auroc, auprc, fpr80 in zip(names, *found.numbers, strict=True)
    ]
    try:
        figure = score_histograms(inside, outside, titles, found.sides, f"positive: {found.positive}")
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return save(figure, out / artifact.name)


def explore(artifact: Artifact, results: Path) -> list[Exploration]:
    """Return the histograms of both sides, by the score.

    Raises:
        UserError: as in `draw`.
    """
    found = _scores(artifact, results)
    plots, positions = [], []
    for name, inside, outside, *numbers in zip(found.names, found.inside, found.outside, *found.numbers, strict=True):
        both = np.concatenate([inside, outside])
        if not np.isfinite(both).all():
            raise UserError(f"{artifact.path(results)} has scores {name} that are not finite; make it again")
        low, high = np.quantile(both, [0.005, 0.995])
        edges = np.linspace(low, high, BINS + 1)
        sides = zip(found.sides, (inside, outside), strict=True)
        curves = [Curve(side, edges[:-1], np.histogram(np.clip(some, low, high), edges)[0]) for side, some in sides]
        plots.append(
            Plot(f"score {name}: images in each of {BINS} intervals", f"score {name}", tuple(curves), steps=True)
        )
        auroc, auprc, fpr80 = numbers
        positions.append(f"score {name}: AUROC {auroc:.3f}, AUPRC {auprc:.3f}, FPR at 80 % TPR {fpr80:.3f}")
    title = f"Out-of-distribution detection, {found.sides[1]}"
    note = f"positive: {found.positive}; scores beyond 99 % of the images stand in the first and the last interval"
    return [Exploration(title, "score", tuple(positions), plot_at=tuple(plots), notes=(note,))]


class _Scores(NamedTuple):
    """What an artifact of detection holds."""

    names: list[str]
    inside: np.ndarray
    outside: np.ndarray
    numbers: list[np.ndarray]
    """AUROC, AUPRC and FPR at 80 % TPR, each of all scores."""
    sides: tuple[str, str]
    positive: str


def _scores(artifact: Artifact, results: Path) -> _Scores:
    arrays, path = artifact.load(results), artifact.path(results)
    names = [str(name) for name in require(path, arrays["names"], 1, np.str_, "names: text (scores,)")]
    inside, outside = [
        require(path, arrays[side], 2, np.floating, f"{side}: floating point (scores, images)").astype(np.float64)
        for side in ("inside", "outside")
    ]
    numbers = [
        require(path, arrays[name], 1, np.floating, f"{name}: floating point (scores,)")
        for name in ("auroc", "auprc", "fpr80")
    ]
    if any(len(array) != len(names) for array in (inside, outside, *numbers)):
        raise UserError(f"{path} has the scores {names} and not as many numbers of each; make it again")
    # "cifar10_ladder_cpu_ood_svhn", or "ood_svhn" in the folder of a run
    ours, _, other = artifact.name.rpartition("ood_")
    dataset = str(read_artifact(path, (), ())[1]["dataset"]).replace("-", "_")
    sides = (f"inside{ours and f': {dataset}'}", f"outside: {other}")
    return _Scores(names, inside, outside, numbers, sides, str(arrays["positive"]))


if __name__ == "__main__":
    sys.exit(main(DRAWING, draw))
