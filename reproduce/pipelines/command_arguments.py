"""Command-line options of the commands that are no dataset's recipe: anomaly, ood, table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reproduce.pipelines.arguments import RESULTS

PAPER_DIGITS = (1, 4, 5, 7, 9)


@dataclass(frozen=True)
class AnomalyArguments:
    """What a person can say to the detection of anomalies."""

    digits: tuple[int, ...] = PAPER_DIGITS
    """Held out, one after the other; by default the paper's five."""
    seeds: tuple[int, ...] = (1,)
    """One run and one set of rows for each, and for each digit."""
    preset: str = "tiny"
    """tiny: minutes for all digits; cpu: a few minutes of one core for each digit and seed."""
    learning: Literal["variational", "gaussian"] = "variational"
    """With the joint EBM prior, or the same ladder with its Gaussian prior, which is a VAE."""
    images: int | None = None
    """Test images, at even distances; by default the preset's."""
    development: bool = False
    """Whether to leave the test images alone: each sixth training image is held out and judged instead, and the preset
    is called so. For choosing settings."""
    data_root: Path | None = None
    """The folder with datasets; by default $JLEBM_DATA or the user's cache folder."""
    download: bool = True
    """Whether what the data root lacks may be downloaded into it."""
    device: str = "auto"
    """auto, cpu or cuda."""
    runs: Path = Path("runs")
    """Where the runs' folders lie; the same command goes on where it was stopped."""
    results: Path = RESULTS
    """The folder with paper.toml, expected.toml and measured/."""
    set: tuple[str, ...] = ()
    """Configuration keys to set, such as training.steps=100; the preset is then called custom."""


@dataclass(frozen=True)
class OutsideArguments:
    """What a person can say to the detection of images from elsewhere."""

    run: Path
    """The folder of a trained ladder, whose config.json names the dataset inside."""
    outside: str
    """The dataset outside, such as svhn or svhn-first1083; its test split where it has one."""
    held_out: str | None = None
    """Images inside that training has not seen, such as cifar10-test1000; by default the dataset's own test split."""
    images: int = 2_000
    """On each side, at even distances; of both sides as many as the smaller one has, where that is fewer."""
    draws: int = 1
    """Of the latents, over which each score is a mean."""
    resize: bool = False
    """Whether images outside of another size are brought to that inside (bilinear); the rows say so."""
    data_root: Path | None = None
    """The folder with datasets; by default $JLEBM_DATA or the user's cache folder."""
    download: bool = True
    """Whether what the data root lacks may be downloaded into it."""
    device: str = "auto"
    """auto, cpu or cuda."""
    results: Path = RESULTS
    """The folder with paper.toml, expected.toml and measured/."""


@dataclass(frozen=True)
class TableArguments:
    """What a person can say."""

    systems: tuple[str, ...] = ()
    """Which, such as ddpm ncsn; by default all that are built."""
    preset: str | None = None
    """tiny, cpu, budget or paper; by default budget on a GPU and tiny elsewhere."""
    seeds: tuple[int, ...] = (1,)
    """One run and one set of rows for each."""
    dataset: str | None = None
    """Another dataset of 32 x 32 pixels than CIFAR-10, such as photos; stored under its name."""
    only_table: bool = False
    """Print the table of the stored rows and run nothing."""
    data_root: Path | None = None
    """The folder with datasets and Inception weights; by default $JLEBM_DATA or the user's cache folder."""
    download: bool = True
    """Whether what the data root lacks may be downloaded into it."""
    budget: str | None = None
    """Wall-clock time to train each seed, such as 90s, 20m or 1.5h; part of the configuration."""
    images: int | None = None
    """Images sampled from each system; by default the preset's."""
    device: str = "auto"
    """auto, cpu or cuda."""
    runs: Path = Path("runs")
    """Where the runs' folders lie; the same command goes on where it was stopped."""
    results: Path = RESULTS
    """The folder with paper.toml, expected.toml and measured/."""
    set: tuple[str, ...] = ()
    """Configuration keys to set, such as training.steps=100, of one system; its preset is then called custom."""
