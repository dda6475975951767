"""Nearest training images of samples, in pixels and in Inception features, beside those of held-out images."""

import hashlib
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
    _found: dict[tuple[Space, str], Nearest] = field(default_factory=dict)
    """Answers by the space and the digest of the images."""

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
        if self.extractor is None or space not in self.extractor.layers:
            put = f"put {FULL_WEIGHTS} or {PARTIAL_WEIGHTS} into the data root"
            return NotMeasured(nearer_in(space), "there are no Inception weights that give these features", put)
        return None

    def describe(self, space: Space) -> str:
        """Describe the training and the held-out images of a space, for a row."""
        number = None if space == "pixels" else self.reference.number
        training = describe_reference(self.reference.dataset, number)
        return f"{training}; held out {describe_reference(self.held_out)}"

    @property
    def spaces(self) -> tuple[Space, ...]:
        """Spaces in which images can be compared."""
        return tuple(space for space in SPACES if self.refusal(space, FEWEST) is None)

    def nearest(self, images: Images, space: Space) -> Nearest:
        """Return the nearest training image of each image; the same images are searched once.

        Raises:
            UserError: the images have another size, or there are no weights that give the features.
        """
        key = space, hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()
        if key not in self._found:
            self._found[key] = self._searched(images, space)
        return self._found[key]

    def copying(self, images: Images, space: Space) -> Copying:
        """Return how much nearer images are to the training images than held-out images are (`copying`).

        Raises:
            UserError: as in `nearest`, or there are too few images.
        """
        ours, theirs = (self.nearest(some, space).distance for some in (images, self.held_out.images))
        return copying(ours, theirs)

    def beside(self, images: Images, count: int) -> UInt8[np.ndarray, "panels rows _count channels height width"]:
        """Return some images with their nearest training images, for a picture.

        The first panel has the first images; a further one for each space those that are nearest to the training images
        there. The first row has the images, a further one for each space their nearest training images.

        Args:
            images: samples or held-out images.
            count: number in each panel.
        """
        found = [self.nearest(images, space) for space in self.spaces]
        chosen = [np.arange(len(images))[:count]]
        chosen += [np.argsort(one.distance, kind="stable")[:count] for one in found]
        known = [self.reference.dataset.images, self.reference.images]
        panels = []
        for some in chosen:
            nearest = [among[one.row[some]] for among, one in zip(known, found, strict=False)]
            panels.append(np.stack([np.array(images[some]), *map(np.array, nearest)]))
        return np.stack(panels)

    def _searched(self, images: Images, space: Space) -> Nearest:
        if space == "pixels":
            return nearest_rows(images, self.reference.dataset.images)
        if self.extractor is None:
            raise UserError("there are no Inception weights; compare in pixels, or put them into the data root")
        known = kept_features(self.reference, self.extractor, self.device, self.report)
        return nearest_rows(features(images, self.extractor, self.device, self.report), known)
