"""Nearest training images of samples, in pixels and in Inception features, beside those of held-out images."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8

from jlebm.data import Dataset
from jlebm.errors import UserError
from jlebm.evaluation.copying import FEWEST, Copying, copying
from jlebm.evaluation.extractor import FULL_WEIGHTS, PARTIAL_WEIGHTS, Extractor
from jlebm.evaluation.feature_files import features, kept_features
from jlebm.evaluation.fidelity import NotMeasured, describe_reference
from jlebm.evaluation.neighbours import Nearest, nearest_rows
from jlebm.evaluation.reference import ReferenceSet
from jlebm.progress import SILENT, Reporter

Space = Literal["pixels", "768"]
SPACES: tuple[Space, ...] = ("pixels", "768")

Images = UInt8[np.ndarray, "_count channels height width"]


def nearer_in(space: Space) -> str:
    """Return the name of the metric `Copying.nearer` in a space: "nearer_pixels"."""
    return f"nearer_{space}"


def copied_in(space: Space) -> str:
    """Return the name of the metric `Copying.copied` in a space: "copied_768"."""
    return f"copied_{space}"


@dataclass
class TrainingImages:
    """Training images that samples may have been copied from, and held-out images to compare the samples with.

    Distances in pixels are Euclidean over all pixels from 0 to 255, those in features over the 768 Inception features.
    """

    reference: ReferenceSet
    """The training images: all of its dataset in pixels, those of its number in features, which it caches."""
    held_out: Dataset
    """Images of the same kind that nothing was trained on."""
    extractor: Extractor | None
    """Inception weights; without them there are pixels alone."""
    device: torch.device
    report: Reporter = SILENT
    _held_out: dict[Space, Nearest] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse held-out images that are training images, or of another size.

        Raises:
            UserError: they are, or there are too few.
        """
        training, held_out = self.reference.dataset, self.held_out
        if training.digest == held_out.digest:
            raise UserError(f"the held-out images are the training images of {training.name}; name others")
        if training.images.shape[1:] != held_out.images.shape[1:]:
            ours, theirs = (" x ".join(map(str, one.images.shape[1:])) for one in (held_out, training))
            raise UserError(f"the held-out images of {held_out.name} are {ours}, and the training images {theirs}")
        if len(held_out.images) < FEWEST:
            raise UserError(
                f"{held_out.name} has {len(held_out.images)} held-out images and a share of copies needs {FEWEST}"
            )

    def refusal(self, space: Space, count: int) -> NotMeasured | None:
        """Return why so many samples cannot be compared in a space; None if they can."""
        if count < FEWEST:
            return NotMeasured(
                nearer_in(space), f"needs {FEWEST} images, got {count}", f"give at least {FEWEST} images"
            )
        if space == "pixels":
            return None
        if self.extractor is None:
            put = f"put {FULL_WEIGHTS} or {PARTIAL_WEIGHTS} into the data root"
            return NotMeasured(nearer_in(space), "there are no Inception weights", put)
        return None

    def describe(self, space: Space) -> str:
        """Describe the training and the held-out images of a space, for a row."""
        number = None if space == "pixels" else self.reference.number
        training = describe_reference(self.reference.dataset, number)
        return f"{training}; held out {describe_reference(self.held_out)}"

    def nearest(self, images: Images, space: Space) -> Nearest:
        """Return the nearest training image of each image.

        Raises:
            UserError: the images have another size, or there are no weights that give the features.
        """
        if space == "pixels":
            return nearest_rows(images, self.reference.dataset.images)
        extractor = self._extractor()
        known = kept_features(self.reference, extractor, self.device, self.report)
        return nearest_rows(features(images, extractor, self.device, self.report), known)

    def held_out_nearest(self, space: Space) -> Nearest:
        """Return the nearest training image of each held-out image, computed once."""
        if space not in self._held_out:
            self._held_out[space] = self.nearest(self.held_out.images, space)
        return self._held_out[space]

    def copying(self, images: Images, space: Space) -> Copying:
        """Return how much nearer images are to the training images than held-out images are (`copying`).

        Raises:
            UserError: as in `nearest`, or there are too few images.
        """
        return copying(self.nearest(images, space).distance, self.held_out_nearest(space).distance)

    def _extractor(self) -> Extractor:
        if self.extractor is None:
            raise UserError("there are no Inception weights; compare in pixels, or put them into the data root")
        return self.extractor
