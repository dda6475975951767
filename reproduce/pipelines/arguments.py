"""What a person can say to a recipe."""

import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jlebm.densities import Drift
from jlebm.errors import UserError
from jlebm.randomness import GENERATOR, Scheme

RESULTS = Path(__file__).resolve().parents[2] / "results"
LONGEST = 3.2e10  # seconds
ModelName = Literal["two-layer", "two-stage", "ladder"]


@dataclass(frozen=True)
class Variation:
    """Of the two-stage model: which backbone, and how its samples are drawn where that is not as the preset says."""

    backbone_checkpoint: Path | None = None
    """A published NVAE checkpoint, or a backbone.safetensors of this program, instead of training one."""
    training_seed: int = 1
    """Of both stages; --seeds are those of the samples."""
    energies_seed: int | None = None
    """Of the energies alone, upon the backbone of the training seed; by default the same seed."""
    chain_steps: int | None = None
    """Another number of Langevin steps at test time; 0 shows what the start is."""
    drift: Drift | None = None
    """The drift of the chain at test time: exact, or what the public code climbs."""
    chain_noise: bool = True
    """Whether the chain at test time is given noise; without, it is gradient ascent."""
    temperature: float | None = None
    """Of the hierarchy, a factor of every sigma."""
    batch_norm: Literal["trained", "re-estimated"] | None = None
    """Statistics of the decoder's batch norms: as trained, or of samples of the Gaussian prior."""
    decoding: Literal["mean", "sample"] | None = None
    """The decoder's mean, or a draw from its distribution."""
    decoder: Literal["gaussian", "mixture"] | None = None
    """Another decoder than the preset's; alone of these it is trained anew."""


@dataclass(frozen=True)
class Arguments:
    """What a person can say to a recipe."""

    preset: str | None = None
    """tiny, cpu, budget or paper; by default the largest that this machine can run."""
    model: ModelName | None = None
    """The two-layer generator that is trained with its prior, a deep hierarchy that the prior is put upon, or a ladder
    of vector latents beside its twin with a Gaussian prior; by default the first that the recipe has."""
    learning: Literal["joint-mle", "variational"] | None = None
    """Of the two-layer generator: joint maximum likelihood by posterior chains, the default, or variational learning by
    an inference network."""
    dataset: str | None = None
    """Another dataset than the recipe's own, of the same image size, such as photos; stored under its name."""
    seeds: tuple[int, ...] = (1,)
    """One run and one set of rows for each; of the two-stage model, one set of samples for each."""
    data_root: Path | None = None
    """The folder with datasets and Inception weights; by default $JLEBM_DATA or the user's cache folder."""
    download: bool = True
    """Whether what the data root lacks may be downloaded into it."""
    budget: str | None = None
    """Wall-clock time to train each seed, such as 90s, 20m or 1.5h; part of the configuration."""
    images: int | None = None
    """Images sampled from each prior; by default the preset's."""
    noise: Scheme = GENERATOR
    """Scheme of the noise of sampled images; philox/1 is made on the GPU, for deep hierarchies there (docs/noise). The
    rows name it; trained weights do not depend on it."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:1 for another GPU of several."""
    runs: Path = Path("runs")
    """Where the runs' folders lie; the same command goes on where it was stopped."""
    results: Path = RESULTS
    """The folder with paper.toml, expected.toml and measured/."""
    set: tuple[str, ...] = ()
    """Configuration keys to set, such as training.steps=100; the preset is then called custom."""
    variation: Annotated[Variation, tyro.conf.arg(name="", prefix_name=False)] = field(default_factory=Variation)


def refuse_what_does_not_fit(images: int, shape: Sequence[int], sets: int, runs: Path) -> None:
    """See, before anything is trained, whether the disk has room for the images that are to be sampled.

    Args:
        images: of one set; how many --images asks for.
        shape: of one image, channels, height and width, a byte each.
        sets: how many sets of images are stored: each source of each seed.
        runs: the folder that they go into; what earlier calls stored there counts as room.

    Raises:
        UserError: there is not.
    """
    there = next((folder for folder in (runs, *runs.absolute().parents) if folder.is_dir()), None)
    if there is None:
        return
    needed, free = images * math.prod(shape) * sets, shutil.disk_usage(there).free
    if needed > free and needed > free + sum(path.stat().st_size for path in runs.rglob("*.npy")):
        raise UserError(
            f"--images {images} takes {needed / 1e9:,.3g} GB in all, and {runs} has {free / 1e9:,.3g} GB free; ask for "
            "fewer, or name --runs on a larger disk"
        )


def parse_duration(text: str) -> float:
    """Return seconds for "90s", "20m" or "1.5h".

    Raises:
        UserError: it is none of these, or not positive.
    """
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*([smh])", text.strip())
    if match is None:
        raise UserError(f"the budget {text!r} is not a time such as 90s, 20m or 1.5h")
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
    if not 0 < seconds < LONGEST:
        raise UserError(f"the budget must be positive and shorter than a thousand years, not {text[:40]!r}")
    return seconds
