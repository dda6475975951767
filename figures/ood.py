"""Histograms of the scores of images that the model was trained on the like of, and of others."""

import sys
from pathlib import Path

import numpy as np

from figures.common import Artifact, Drawing, main, require
from jlebm.errors import UserError
from jlebm.plotting import save, score_histograms

ARRAYS = ("inside", "outside", "names", "auroc", "auprc", "fpr80", "positive")
DRAWING = Drawing("ood", "out-of-distribution detection", ARRAYS, ("ladder", "two-stage"), layers=2)
KEPT = {
    "cifar10_ood_svhn": "nox -s reproduce_ood -- --dataset cifar10 --preset cpu",
    "fashion_mnist_ood_mnist": "nox -s reproduce_ood -- --dataset fashion-mnist --preset cpu",
}
ARTIFACTS = tuple(Artifact(name, command, ARRAYS) for name, command in KEPT.items())


def draw(artifact: Artifact, results: Path, out: Path) -> list[Path]:
    """Draw a histogram a score, its AUROC, AUPRC and FPR at 80 % TPR above it, and return the files written.

    Raises:
        UserError: the artifact is damaged or of another run, or its arrays are not scores with their numbers.
    """
    arrays, path = artifact.load(results), artifact.path(results)
    names = [str(name) for name in require(path, arrays["names"], 1, np.str_, "names: text (scores,)")]
    sides = [
        require(path, arrays[side], 2, np.floating, f"{side}: floating point (scores, images)").astype(np.float64)
        for side in ("inside", "outside")
    ]
    numbers = [
        require(path, arrays[name], 1, np.floating, f"{name}: floating point (scores,)")
        for name in ("auroc", "auprc", "fpr80")
    ]
    if any(len(array) != len(names) for array in (*sides, *numbers)):
        raise UserError(f"{path} has the scores {names} and not as many numbers of each; make it again")
    titles = [
        f"{name}\nAUROC {auroc:.3f}, AUPRC {auprc:.3f}\nFPR at 80 % TPR {fpr80:.3f}"
        for name, auroc, auprc, fpr80 in zip(names, *numbers, strict=True)
    ]
    try:
        figure = score_histograms(*sides, titles, ("inside", "outside"), f"positive: {arrays['positive']}")
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return save(figure, out / artifact.name)


if __name__ == "__main__":
    sys.exit(main(DRAWING, ARTIFACTS, draw))
