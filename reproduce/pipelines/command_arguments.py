"""Command-line options of the commands that are no dataset's recipe: anomaly, ood, priors, table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reproduce.pipelines.arguments import Machine, Timed, Training


@dataclass(frozen=True)
class AnomalyArguments(Training):
    """Command-line options of anomaly detection."""

    digits: tuple[int, ...] = ()
    """Digits held out, one after the other: by default the paper's five; with --development, the other five."""
    preset: str = "tiny"
    """tiny: minutes for all digits; cpu: a few minutes of one core for each digit and seed; long: twenty."""
    protocol: Literal["official", "80-20"] = "official"
    """The official test images, or 20 % of the pooled images of the other digits and all of the held-out one's."""
    model: Literal["ladder", "two-layer", "one-layer"] | None = None
    """ladder is the official protocol's; by default two-layer for 80-20, whose one-layer model is LEBM."""
    learning: Literal["variational", "gaussian", "two-stage", "joint-mle"] = "variational"
    """With the joint EBM prior from the start; with a Gaussian prior, the twin; the twin, then energies on it; or by
    posterior chains."""
    images: int | None = None
    """Number of test images, evenly spaced; by default the preset's."""
    development: bool = False
    """Whether to judge a held-out part of the training images instead of the test images. For choosing settings."""
    oracle: bool = True
    """Whether 80-20 also judges ten checkpoints on the test set, of which it then tells the best as an oracle. Where
    posteriors are chains, that takes longer than the training."""


@dataclass(frozen=True, kw_only=True)
class OodArguments(Machine):
    """Command-line options of out-of-distribution detection."""

    run: Path
    """The folder of a trained ladder, whose config.json names the dataset inside."""
    outside: str
    """The dataset outside, such as svhn or svhn-first1083; its test split where it has one."""
    held_out: str | None = None
    """Images inside not used in training, such as cifar10-test1000; by default the dataset's own test split."""
    images: int = 2_000
    """Images on each side, evenly spaced; fewer if the smaller side has fewer."""
    draws: int = 1
    """Draws of the latents that each score is averaged over."""
    resize: bool = False
    """Whether images outside are resized to the size inside (bilinear); the rows record it."""


@dataclass(frozen=True)
class PriorsArguments(Timed):
    """Command-line options of the ladder of priors."""

    priors: tuple[str, ...] = ()
    """Priors to train, such as abp lebm; by default all."""
    preset: str = "tiny"
    """tiny: seconds for each prior; cpu: ten minutes of one core for each prior and seed; long: two hours."""
    dataset: str | None = None
    """A dataset of 32x32 or 64x64 images instead of CIFAR-10, such as celeba64 or svhn-first1083."""
    images: int | None = None
    """Images sampled from each prior; by default the preset's."""


@dataclass(frozen=True)
class TableArguments(Timed):
    """Command-line options of the table."""

    systems: tuple[str, ...] = ()
    """Systems to train, such as ddpm ncsn; by default all."""
    preset: str | None = None
    """tiny, cpu, long (an hour of one core a system), budget or paper; by default budget on a GPU, tiny elsewhere."""
    dataset: str | None = None
    """A dataset of 32x32 images instead of CIFAR-10, such as photos; rows carry its name."""
    only_table: bool = False
    """Print the table of the stored rows and run nothing."""
    images: int | None = None
    """Images sampled from each system; by default the preset's."""
