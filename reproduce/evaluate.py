"""Evaluate sample images against a dataset: FID, Inception score, KID, precision, recall, fid768, and shares of copies.

    python -m reproduce.evaluate --images samples.npz --against cifar10
    python -m reproduce.evaluate --images folder/ --against cifar10 --data-root DIR --json
    python -m reproduce.evaluate --images folder/ --against cifar10 --held-out cifar10-test1000 --pairs figures/

The images are a .npy or .npz file of uint8, a folder of PNG files or a StyleGAN/EDM dataset zip. Metrics that
cannot be measured are listed with the reason and the remedy; if there are no others, the exit code is 2.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jlebm import evaluation
from jlebm.data import data_root, load, writable_cache
from jlebm.data.formats import account
from jlebm.errors import UserError, exit_on_user_error
from jlebm.evaluation.sample_files import doubt_of, find_images
from reproduce.terminal.console import ConsoleReporter
from reproduce.terminal.parsing import parse
from reproduce.terminal.printing import print_table

if TYPE_CHECKING:
    from jlebm.evaluation import Score

HEADER = ("metric", "value", "images", "reference", "extractor, or remedy")


@dataclass(frozen=True)
class Arguments:
    """Command-line options of an evaluation."""

    images: Path
    """A .npy or .npz file of uint8 images, a folder of PNG files, or a StyleGAN/EDM dataset zip."""
    against: str
    """The dataset to compare with, such as cifar10."""
    split: str = "train"
    """The dataset's split: train or test."""
    data_root: Path | None = None
    """The folder with datasets and Inception weights; by default $JLEBM_DATA or the user's cache folder."""
    download: bool = True
    """Whether what the data root lacks may be downloaded."""
    reference_images: int | None = None
    """Number of the dataset's images to compare with, evenly spaced; by default all."""
    held_out: str | None = None
    """Images that nothing was trained on, such as cifar10 for its test images or cifar10-test1000 for the first 1,000.
    With them it is also measured whether the samples are nearer to their nearest training images than these are
    (docs/numbers)."""
    pairs: Path | None = None
    """A folder for the figure of samples and held-out images with their nearest training images; needs --held-out."""
    name: str = ""
    """Name of the images in the table; by default that of their file."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:1 for another GPU of several."""
    json: bool = False
    """Print JSON instead of a table."""


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    arguments = parse(Arguments, argv, __doc__)
    # Here: --help needs no torch.
    from jlebm.devices import resolve_device
    from jlebm.evaluation.training_images import TrainingImages
    from reproduce.measuring.data_root import DataRoot, not_trained_on
    from reproduce.pipelines.copied_files import shares_of

    if arguments.pairs is not None and arguments.held_out is None:
        raise UserError("--pairs needs --held-out NAME, images that nothing was trained on")
    report = ConsoleReporter()
    device = resolve_device(arguments.device)
    root = data_root(arguments.data_root)
    samples = find_images(arguments.images)
    dataset = load(arguments.against, root, arguments.split, arguments.download, report)
    if samples.shape[1:] != dataset.images.shape[2:]:  # refused before the images are read
        ours, theirs = (" x ".join(map(str, sides)) for sides in (samples.shape[1:], dataset.images.shape[2:]))
        raise UserError(
            f"the images of {arguments.images} are {ours} pixels (height x width) and those of {dataset.name} are "
            f"{theirs}; compare images of one size"
        )
    extractor = evaluation.find_extractor(root, arguments.download, report)
    evaluation.self_check(extractor, device)
    images = samples.read(report)
    report.line(account(samples.count, arguments.images, samples.left_out))
    if (doubt := doubt_of(images, arguments.images)) is not None:
        report.line(doubt)
    compared = evaluation.ReferenceSet(dataset, writable_cache(root), arguments.reference_images)
    copied = []
    if arguments.held_out is not None:
        others = not_trained_on(DataRoot(arguments.data_root, arguments.download, report), arguments.held_out)
        training = TrainingImages(compared, others, extractor, device, report)
        copied = shares_of(images, training, arguments.pairs)
    found = evaluation.evaluate(images, compared, extractor, device, report=report)
    scores = [score for score in found if isinstance(score, evaluation.Score)]
    missing = [score for score in found if isinstance(score, evaluation.NotMeasured)]
    if not scores and not copied:
        first = missing[0]
        raise UserError(f"nothing can be measured on {arguments.images}: {first.metric} {first.reason}; {first.remedy}")
    number = arguments.reference_images or len(dataset.images)
    floor = None
    if scores and scores[0].metric == "fid768" and number >= 2 * evaluation.NEEDS["fid768"].images:
        floor = evaluation.halves(compared, extractor, device, report=report)
    reference = evaluation.describe_reference(dataset, number)
    name = arguments.name or arguments.images.name
    if arguments.json:
        answer = {
            "name": name,
            "images": len(images),
            "left_out": dict(samples.left_out),
            "doubt": doubt,
            "reference": reference,
            "extractor": str(extractor),
            "scores": [asdict(score) for score in scores],
            "copies": [one._asdict() for one in copied],
            "reference_halves": None if floor is None else asdict(floor),
            "reference_halves_are": None if floor is None else _of_floor(floor, len(images)),
            "not_measured": [asdict(score) for score in missing],
        }
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
        return 0
    rows = [(score.metric, _value(score), str(score.images), reference, str(extractor)) for score in scores]
    if floor is not None:
        label = f"fid768 of {dataset.name}'s own halves, the floor"
        rows.append((label, _value(floor), f"2 x {floor.images}", reference, _of_floor(floor, len(images))))
    rows += [
        (one.metric, f"{one.value:.4f} ± {one.error:.4f}", str(len(images)), one.reference, one.extractor)
        for one in copied
    ]
    rows += [(score.metric, f"not measured: {score.reason}", "", "", score.remedy) for score in missing]
    print_table(f"{name} against {dataset.name}", HEADER, rows)
    return 0


def _of_floor(floor: "Score", images: int) -> str:
    """Describe how the floor relates to the measurement, as the distance falls with the number of images."""
    if floor.images == images:
        return f"a floor of {images} images, as many as here"
    relation = "above" if floor.images < images else "below"
    return f"a floor of {floor.images} images, not of the {images} here: {relation} theirs"


def _value(score: "Score") -> str:
    spread = "" if score.spread is None else f" ± {score.spread:.4f}"
    return f"{score.value:.4f}{spread}"


if __name__ == "__main__":
    sys.exit(main())
