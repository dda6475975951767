"""Command-line options of the commands that are no dataset's recipe: anomaly, ood, table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reproduce.pipelines.arguments import Machine, Training

PAPER_DIGITS = (1, 4, 5, 7, 9)


@dataclass(frozen=True)
class AnomalyArguments(Training):
    """Command-line options of anomaly detection."""

    digits: tuple[int, ...] = PAPER_DIGITS
    """Held out, one after the other; by default the paper's five."""
    preset: str = "tiny"
    """tiny: minutes for all digits; cpu: a few minutes of one core for each digit and seed."""
    learning: Literal["variational", "gaussian"] = "variational"
    """With the joint EBM prior, or the same ladder with its Gaussian prior, which is a VAE."""
    images: int | None = None
    """Test images, at even distances; by default the preset's."""
    development: bool = False
    """Whether to leave the test images alone: each sixth training image is held out and judged instead, and the preset
    is called so. For choosing settings."""


@dataclass(frozen=True, kw_only=True)
class OutsideArguments(Machine):
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
class TableArguments(Training):
    """Command-line options of the table."""

    systems: tuple[str, ...] = ()
    """Systems to train, such as ddpm ncsn; by default all."""
    preset: str | None = None
    """tiny, cpu, budget or paper; by default budget on a GPU and tiny elsewhere."""
    dataset: str | None = None
    """Another dataset of 32x32 images than CIFAR-10, such as photos; rows carry its name."""
    only_table: bool = False
    """Print the table of the stored rows and run nothing."""
    budget: str | None = None
    """Wall-clock time to train each seed, such as 90s, 20m or 1.5h; part of the configuration."""
    images: int | None = None
    """Images sampled from each system; by default the preset's."""
