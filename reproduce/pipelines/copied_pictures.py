"""The picture of samples with their nearest training images, and its arrays."""

from pathlib import Path

from figures import plotting
from jlebm.engines import parallel
from reproduce.measuring.row_store import Rows
from reproduce.measuring.sample_sets import SampleSets
from reproduce.pipelines import pictures

SHOWN = 8  # images of each panel
NAME = "nearest"


def draw_nearest(rows: Rows, samples: SampleSets, into: Path) -> None:
    """Draw samples and held-out images with their nearest training images, unless that was done; none without any.

    Args:
        rows: of the model, whose session has training and held-out images with --held-out.
        samples: of the model; those of its last prior are shown, the EBM prior's if it has one.
        into: the folder of the pictures.
    """
    training, source = rows.session.training, samples.priors[-1]
    if training is None or samples.count(source) < SHOWN:
        return
    left = [*pictures.files_of(rows, into, (NAME,)), *pictures.figures_of(into, (NAME,))]
    if parallel.agreed(pictures.there(left)):
        return
    shown = {"samples": samples[source].images, "held_out": training.held_out.images}
    arrays = {name: training.beside(images, SHOWN) for name, images in shown.items()}
    if parallel.first():
        pictures.store(NAME, arrays, rows, into)
        labels = {name.replace("_", " "): some for name, some in arrays.items()}
        plotting.save(plotting.nearest_pairs(labels), into / NAME)
