"""Figure of out-of-distribution scores: histograms for images inside and outside."""

import sys
from pathlib import Path

import numpy as np

from figures.common import Artifact, Drawing, main, require
from figures.plotting import save, score_histograms
from jlebm.errors import UserError

ARRAYS = ("inside", "outside", "names", "auroc", "auprc", "fpr80", "positive")
COMMAND = "python -m reproduce.ood --run RUN --outside DATASET"
DRAWING = Drawing("ood_*", "out-of-distribution detection", ARRAYS, ("ladder", "gaussian"), 2, COMMAND)


def draw(artifact: Artifact, results: Path, out: Path) -> list[Path]:
    """Draw one histogram per score, titled with AUROC, AUPRC and FPR at 80 % TPR, and return the files written.

    Raises:
        UserError: the artifact is damaged or of another run, or its arrays are not scores with their numbers.
    """
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
    titles = [
        f"{name}\nAUROC {auroc:.3f}, AUPRC {auprc:.3f}\nFPR at 80 % TPR {fpr80:.3f}"
        for name, auroc, auprc, fpr80 in zip(names, *numbers, strict=True)
    ]
    ours, _, other = artifact.name.rpartition("ood_")  # "cifar10_ood_svhn", or "ood_svhn" in the folder of a run
    labels = (f"inside{ours and ': ' + ours.rstrip('_')}", f"outside: {other}")
    try:
        figure = score_histograms(inside, outside, titles, labels, f"positive: {arrays['positive']}")
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return save(figure, out / artifact.name)


if __name__ == "__main__":
    sys.exit(main(DRAWING, draw))
