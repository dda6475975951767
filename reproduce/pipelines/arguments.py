"""Command-line options shared by the recipes."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from jlebm.choices import GENERATOR, Drift, Scheme
from jlebm.errors import UserError
from jlebm.progress import Reporter
from reproduce.results.default_folder import RESULTS

if TYPE_CHECKING:
    from reproduce.measuring.data_root import DataRoot

LONGEST = 3.2e10  # seconds
ModelName = Literal["two-layer", "two-stage", "ladder"]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Options of every command that measures: data root, noise, device, results folder."""

    data_root: Path | None = None
    """The folder with datasets and Inception weights; by default $JLEBM_DATA or the user's cache folder."""
    download: bool = True
    """Whether files missing from the data root may be downloaded into it."""
    noise: Scheme = GENERATOR
    """Scheme of the noise of sampled images and latents; philox/1 is made on the GPU, for deep hierarchies there
    (docs/noise). The rows name it; trained weights do not depend on it."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:1 for another GPU of several."""
    results: Path = RESULTS
    """The folder with paper.toml, expected.toml and measured/; a row that it holds is not measured again."""

    def root(self, report: Reporter) -> "DataRoot":
        """Return the data root that datasets are loaded from."""
        from reproduce.measuring.data_root import DataRoot  # here: --help loads no dataset

        return DataRoot(self.data_root, self.download, report)


@dataclass(frozen=True, kw_only=True)
class Training(Machine):
    """Options of every command that trains."""

    seeds: tuple[int, ...] = (1,)
    """One run and one set of rows per seed; for the two-stage model, one set of samples per seed."""
    runs: Path = Path("runs")
    """The folder of the runs; the same command continues an interrupted one."""
    set: tuple[str, ...] = ()
    """Configuration keys to set, such as training.steps=100; the preset is then called custom."""

    def __post_init__(self) -> None:
        refuse_odd_seeds("--seeds", self.seeds)


@dataclass(frozen=True, kw_only=True)
class Timed(Training):
    """Options of every command that trains for a time."""

    budget: str | None = None
    """Wall-clock time to train each run, such as 90s, 20m or 1.5h; part of the configuration."""

    @property
    def budget_seconds(self) -> float | None:
        """The budget in seconds; None without one.

        Raises:
            UserError: it is not a time such as 90s, 20m or 1.5h.
        """
        return None if self.budget is None else parse_duration(self.budget)


@dataclass(frozen=True)
class Variation:
    """Options of the two-stage model: its backbone, and sampling that differs from the preset's."""

    backbone_checkpoint: Path | None = None
    """A published NVAE checkpoint, or a backbone.safetensors of this program, instead of training a backbone."""
    kept_weights: bool = False
    """Whether to measure the weights that the repository keeps for this preset (docs/library), and train nothing."""
    training_seed: int = 1
    """Seed of both stages; --seeds are those of the samples."""
    energies_seed: int | None = None
    """Seed of the energies alone, on the backbone of the training seed; by default the same seed."""
    chain_steps: int | None = None
    """Number of Langevin steps at test time; 0 shows the starting points."""
    chain_leapfrog: int | None = None
    """Steps of a Hamiltonian trajectory at test time; their number divides that of all steps."""
    drift: Drift | None = None
    """Drift of the chain at test time: exact, or that of the released code."""
    chain_precision: Literal["float32", "bf16"] | None = None
    """Arithmetic of the networks in the chain at test time; bf16 pays on CPUs with AMX (docs/performance)."""
    chain_noise: bool = True
    """Whether the chain at test time adds noise; without, it is gradient ascent."""
    temperature: float | None = None
    """Factor of every sigma of the hierarchy."""
    batch_norm: Literal["trained", "re-estimated"] | None = None
    """Statistics of the decoder's batch norms: as trained, or re-estimated on samples of the Gaussian prior."""
    decoding: Literal["mean", "sample"] | None = None
    """The decoder's mean, or a draw from its distribution."""
    decoder: Literal["gaussian", "mixture"] | None = None
    """Another decoder than the preset's; the only one of these options that trains a backbone anew."""

    def __post_init__(self) -> None:
        refuse_odd_seeds("--training-seed", (self.training_seed,))
        refuse_odd_seeds("--energies-seed", (0 if self.energies_seed is None else self.energies_seed,))


@dataclass(frozen=True)
class Arguments(Timed):
    """Command-line options of a recipe."""

    preset: str | None = None
    """tiny, cpu, long, budget or paper, where the recipe has it; by default the largest that this machine can run."""
    model: ModelName | None = None
    """The two-layer generator trained with its prior, the two-stage model with energies on a trained backbone, or a
    ladder of vector latents beside its twin with a Gaussian prior; by default the first that the recipe has."""
    learning: Literal["joint-mle", "variational"] | None = None
    """Learning of the two-layer generator: joint maximum likelihood with posterior chains, the default, or variational
    learning with an inference network."""
    dataset: str | None = None
    """Another dataset of the same image size as the recipe's own, such as photos; rows carry its name."""
    images: int | None = None
    """Images sampled from each prior; by default the preset's."""
    held_out: str | None = None
    """Images not used in training, such as cifar10 for its test images or cifar10-test1000 for the first 1,000: samples
    of both priors are compared with their nearest training images, beside these with theirs (docs/numbers). By default
    they are not."""
    variation: Annotated[Variation, tyro.conf.arg(name="", prefix_name=False)] = field(default_factory=Variation)


def refuse_odd_seeds(option: str, seeds: Sequence[int]) -> None:
    """Refuse seeds that no run can have, or that two would share.

    Raises:
        UserError: there is none, one stands twice, or one is negative.
    """
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        given = " ".join(map(str, seeds)) or "nothing"
        raise UserError(f"{option} needs at least one seed, each only once and none negative, not {given}")


def refuse_processes(trained: str) -> None:
    """Refuse the processes of torchrun, each of which would train the same.

    Raises:
        UserError: there are several.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(f"{trained} are trained by one process each; leave torchrun out")


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
