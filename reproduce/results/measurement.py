"""One measured number with its provenance, and the files of such rows, one for each dataset."""

import dataclasses
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from jlebm.errors import UserError
from jlebm.files import cannot_read
from reproduce.results import rows
from reproduce.results.first_format import packed, unpacked
from reproduce.results.identity import Described, OfTraining, Option, noise_of
from reproduce.results.metrics import DETECTION, EBM, GAUSSIAN, METRICS, POSTERIOR, SAMPLES
from reproduce.results.records import known, moment, refuse_unwritable
from reproduce.results.table_lines import BASELINES
from reproduce.results.timing import TIMINGS

SOURCES = (GAUSSIAN, EBM, POSTERIOR, SAMPLES, "held-out", "training-halves", *DETECTION, "all")
LEARNINGS = ("joint-mle", "variational", "gaussian", "two-stage", *(system.name for system in BASELINES), "")
WEIGHTS = ("raw", "ema", "")


@dataclass(frozen=True)
class Measurement(Described, OfTraining, rows.Row):
    """One row of `results/measured/<dataset>.jsonl`.

    Attributes:
        protocol: the recipe and its version, "cifar10/1"; any change that may move a number needs a new version.
        dataset: its name.
        preset: the size of the recipe, "tiny", "cpu", "long", "budget" or "paper", or "custom".
        learning: "joint-mle", "variational", "gaussian" (the hierarchy without energies) or "two-stage"; the name of
            another system of the table, "ddpm"; "" if nothing was learned (the training images' halves).
        seed: the run's seed.
        metric: a name of `METRICS`.
        source: origin of the samples: "gaussian-prior", "ebm-prior", "posterior", "training-halves", "samples" of
            another system of the table, "held-out" for a likelihood of images of `reference`, or "all" for a number
            made of several; "out-of-distribution" or "anomaly" for a detection.
        value: the number.
        spread: of the metric itself (IS over its splits), not over seeds; its standard error for `fitted_auc` and its
            kin, `nearer_...` and `copied_...`; None if it has none.
        images: number of images, or latents, behind the value.
        reference: "cifar10/train, 50000 images, sha256:47af8b02cfcf".
        extractor: "inception-2015-12-05, sha256:..."; "" if none is used.
        weights: "raw" or "ema"; "" if no network made the images.
        chain: how the images were drawn, "60 steps, epsilon 0.08, from standard normal"; "" without a chain.
        steps: training steps done.
        complete: False if a wall-clock budget ended the training early.
        config_digest: of the frozen configuration.
        commit: of the code.
        dirty: whether tracked files differed from that commit.
        device: the device class, "cpu-avx2".
        versions: of python, torch, torchvision, torch-fidelity, numpy and jlebm.
        wall_seconds: of the parts: train, sample, evaluate.
        date: UTC, ISO 8601.
        format: of the line as first stored, from which the row digest is taken: 1 or 2.
        recipe: module of `reproduce` that measured it, "cifar10", "anomaly", "table".
        model: "two-layer", "two-stage", "ladder"; of the recipe `table` the system's name.
        variation: options beside the preset by name, in the order on the command line.
        layer: "z3", for a number of a single layer.
        target: the held-out digit or outside dataset of a detection.
        score: detection score, "L>0".
        bits: bits per colour of the images behind a likelihood; None for other metrics.

    Raises:
        UserError: a number is not finite, a name is unknown, or the date is not ISO 8601 with its time zone.
    """

    protocol: str
    dataset: str
    preset: str
    learning: str
    seed: int
    metric: str
    source: str
    value: float
    spread: float | None
    images: int
    reference: str
    extractor: str
    weights: str
    chain: str
    steps: int
    complete: bool
    config_digest: str
    commit: str
    dirty: bool
    device: str
    versions: dict[str, str]
    wall_seconds: dict[str, float]
    date: str
    format: int = 2
    recipe: str = ""
    model: str = ""
    variation: dict[str, Option] = field(default_factory=dict)
    layer: str = ""
    target: str = ""
    score: str = ""
    bits: int | None = None

    def __post_init__(self) -> None:
        refuse_unwritable(self)
        if self.format not in (1, 2):
            raise UserError(f"'format' is {self.format}; this version knows 1 and 2")
        known(self.metric, METRICS, "metric")
        known(self.source, SOURCES, "source")
        known(self.learning, LEARNINGS, "learning scheme")
        known(self.weights, WEIGHTS, "kind of weights")
        moment(self.date)

    @classmethod
    def upgraded(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the parsed fields of a line; format 1 is unpacked."""
        whole = {"preset", "source", "chain", "protocol", "learning"} <= fields.keys()
        return fields if "format" in fields or not whole else unpacked(fields)

    def signed(self) -> dict[str, Any]:
        """Return the fields behind the row digest, in the format in which the row was first stored."""
        return packed(super().signed()) if self.format == 1 else super().signed()

    @property
    def noise(self) -> str:
        """The scheme of the samples' noise: an entry of `variation`, "generator/1" without one."""
        return noise_of(self.variation)

    def look_for_fault(self) -> str:
        """Return the fault of the row, as `Row.fault` does; impossible counts are one, too."""
        if self.format == 1:
            fields = super().signed()
            if unpacked(packed(fields)) != fields:
                return rows.CHANGED
        if self.images < 1 or self.steps < 0:
            return f"says {self.images} images and {self.steps} steps, which no recipe stores"
        return super().look_for_fault()

    @cached_property
    def time(self) -> datetime:
        """Moment of `date`; rows are ordered by it."""
        return moment(self.date)


def read(path: Path) -> list[Measurement]:
    """Read all measurements of one JSONL file, as `rows.read` does; `check` fails on one that is not intact."""
    return rows.read(path, Measurement)


def read_all(folder: Path) -> list[Measurement]:
    """Read the measurements of every dataset's `*.jsonl` of a folder, by file name; empty without the folder.

    A row in the file of another dataset is returned as `misplaced`.

    Raises:
        UserError: the folder may not be read, or a file cannot be, as in `read`.
    """
    try:
        paths = sorted(folder.iterdir()) if folder.exists() else []
    except OSError as error:
        raise cannot_read(folder, error) from error
    return [_placed(row, path) for path in paths if _is_of_a_dataset(path) for row in read(path)]


def _is_of_a_dataset(path: Path) -> bool:
    return path.suffix == ".jsonl" and path.name != TIMINGS


def _placed(row: Measurement, path: Path) -> Measurement:
    if row.dataset == path.stem:
        return row
    return dataclasses.replace(row, misplaced=f"is a row of {row.dataset!r} in the file of {path.stem!r}")
