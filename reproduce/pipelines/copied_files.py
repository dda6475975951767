"""Shares of copies among the images of a file or a folder, for the command that evaluates them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from figures import plotting
from jlebm.evaluation.training_images import SPACES, TrainingImages, copied_in, nearer_in
from reproduce.pipelines.copied_pictures import NAME, SHOWN


class Copied(NamedTuple):
    """A share of copies, with what it takes to trust it."""

    metric: str
    value: float
    error: float
    """Standard error."""
    reference: str
    extractor: str


def shares_of(
    images: UInt8[np.ndarray, "count channels height width"], training: TrainingImages, pairs: Path | None = None
) -> list[Copied]:
    """Return the shares of copies in each space, and report those that cannot be measured.

    Args:
        images: samples.
        training: training and held-out images.
        pairs: folder for the figure of samples and held-out images with their nearest training images.

    Raises:
        UserError: the figure cannot be written, or the disk is full.
    """
    found = []
    for space in SPACES:
        if (refused := training.refusal(space, len(images))) is not None:
            training.report.line(f"not measured: {refused.metric}: {refused.reason}; {refused.remedy}")
            continue
        by = "" if space == "pixels" else str(training.extractor)
        for name, share in zip((nearer_in(space), copied_in(space)), training.copying(images, space), strict=True):
            found.append(Copied(name, share.value, share.error, training.describe(space), by))
    if pairs is not None and found:
        kinds = {"samples": images, "held out": training.held_out.images}
        figure = plotting.nearest_pairs({name: training.beside(some, SHOWN) for name, some in kinds.items()})
        for path in plotting.save(figure, pairs / NAME):
            training.report.line(f"wrote {path}")
    return found
