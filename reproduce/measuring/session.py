"""What every seed of a recipe is measured with, and the rows that a run has stored and still lacks."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import jlebm
from jlebm.data import CATALOGUE, Dataset, DatasetNotFound, data_root, load, writable_cache
from jlebm.devices import peak_memory
from jlebm.engines import parallel
from jlebm.evaluation import Extractor, ExtractorNotFound, ReferenceSet, fidelity, find_extractor, self_check
from jlebm.folders import try_folder
from jlebm.progress import Reporter
from jlebm.randomness import GENERATOR, Scheme
from jlebm.run import provenance
from reproduce import results
from reproduce.presets.extents import SOURCES
from reproduce.results.identity import Identity, Of, Option, noise_of, recipe_of

ASKED = (
    "protocol",
    "metric",
    "of",
    "bits",
    "images",
    "reference",
    "extractor",
    "weights",
    "chain",
)  # of one subject's rows


@dataclass
class Session:
    """The same data, extractor, cache, device and provenance for all seeds."""

    dataset: Dataset
    images: int
    """Images sampled from each prior, and training images whose posterior samples are decoded."""
    reference_images: int | None
    """How many training images the samples are held against, at even distances; None for all."""
    extractor: Extractor | None
    cache: Path
    device: torch.device
    report: Reporter
    provenance: dict[str, Any]
    judged: tuple[str, ...] = SOURCES
    """The sources whose images go through Inception."""
    noise: Scheme = GENERATOR
    """The scheme of the noise of sampled images."""
    missing: dict[str, fidelity.NotMeasured] = field(default_factory=dict)

    @classmethod
    def prepare(
        cls,
        dataset: Dataset,
        images: int,
        reference_images: int | None,
        root: Path | None,
        download: bool,
        device: torch.device,
        report: Reporter,
        judged: tuple[str, ...] = SOURCES,
    ) -> "Session":
        """Find the extractor, where images are to be judged, and check it before anything long begins."""
        folder = data_root(root)
        known = provenance(device)
        known["versions"]["jlebm"] = jlebm.__version__
        session = cls(dataset, images, reference_images, None, writable_cache(folder), device, report, known, judged)

        def find() -> Extractor | None:
            try:
                return find_extractor(folder, download, report)
            except ExtractorNotFound as missing:
                report.line(f"{missing}")
                return None

        if not judged:
            return session
        session.extractor = parallel.after_first(find)
        if session.extractor is not None:
            self_check(session.extractor, device)
            parallel.after_first(lambda: try_folder(session.cache))
        return session

    @property
    def reference(self) -> ReferenceSet:
        """The images that samples are compared with, and the cache of their statistics."""
        return ReferenceSet(self.dataset, self.cache, self.reference_images)

    @property
    def references(self) -> int:
        """The number of reference images."""
        return self.reference_images or len(self.dataset.images)

    def judged_by(self) -> dict[str, str]:
        """Return what a distance between images was measured with, for its row."""
        return {
            "reference": fidelity.describe_reference(self.dataset, self.reference_images),
            "extractor": str(self.extractor),
        }

    def lacks(self, one: fidelity.NotMeasured) -> None:
        """Remember what could not be measured, each metric once."""
        self.missing.setdefault(one.metric, one)

    def not_measured(self) -> list[str]:
        """Say what could not be measured and what to do about it, a line for each reason."""
        reasons: dict[tuple[str, str], list[str]] = {}
        for one in self.missing.values():
            reasons.setdefault((one.reason, one.remedy), []).append(one.metric)
        return [
            f"not measured: {', '.join(metrics)}: {reason}; {remedy}" for (reason, remedy), metrics in reasons.items()
        ]


def loaded(
    name: str, chosen: str | None, fallback: str | None, root: Path | None, download: bool, report: Reporter
) -> Dataset:
    """Load the dataset that a person chose or the recipe's own, or what is embedded in its place; it says so.

    Raises:
        UserError: it cannot be had, and it was chosen or nothing takes its place.
    """
    try:
        return load(chosen or name, root, download=download, report=report)
    except DatasetNotFound as missing:
        if chosen is not None or fallback is None:
            raise
        report.line(f"{missing}")
        report.line(
            f"{name} is not here: this tiny run is on the embedded {fallback!r} and its rows are stored under that name"
        )
        return load(fallback)


def unseen(dataset: Dataset, root: Path | None, download: bool, report: Reporter) -> Dataset:
    """Return the test split of a dataset, which no training sees; without one the training images, which it says."""
    why = f"{dataset.name} has no test split"
    if "test" in CATALOGUE[dataset.name].splits:
        try:
            return parallel.after_first(lambda: load(dataset.name, root, "test", download, report))
        except DatasetNotFound as missing:
            why = f"{missing}"
    report.line(f"{why}: training images stand for images that no training saw")
    return dataset


@dataclass(frozen=True)
class Subject:
    """What rows are about: a trained model, and how its samples are drawn."""

    protocol: str
    dataset: str
    preset: str
    learning: str
    seed: int
    steps: int
    complete: bool
    weights: str
    """raw or ema"""
    config_digest: str
    chains: Mapping[str, str]
    """In words, by source; a source without one is drawn without a chain."""
    train_seconds: float
    shared: tuple[str, ...] = ("training-halves",)
    """Sources whose rows are the same for every seed."""
    variation: Mapping[str, Option] = field(default_factory=dict)
    """Options beside the preset."""
    twin_digest: str = ""
    """The configuration digest of the twin with a Gaussian prior that is shown beside the model, where there is one."""
    run: tuple[str, int] | None = None
    """The digest and the seed in the run's own header, where the rows, of samples of its weights, have others."""

    @property
    def identity(self) -> Identity:
        """Which training it is."""
        recipe, model = recipe_of(self.protocol, self.learning)
        return Identity(recipe, model, self.learning, self.dataset, self.preset, self.variation, self.seed)

    def provenance(self, commit: str) -> dict[str, Any]:
        """Return the provenance of an artifact."""
        names = ("protocol", "dataset", "preset", "learning", "seed", "config_digest")
        rest: dict[str, Any] = {"twin_digest": self.twin_digest} if self.twin_digest else {}
        if self.variation:
            rest["variation"] = dict(self.variation)
        if self.run is not None:
            rest["run_digest"], rest["run_seed"] = self.run
        return {name: getattr(self, name) for name in names} | {"commit": commit} | rest


class Rows:
    """The rows of one subject: those that stand, and how another one is added at once."""

    def __init__(self, subject: Subject, session: Session, folder: Path):
        self.path = folder / "measured" / f"{subject.dataset}.jsonl"
        self.subject, self.session = subject, session
        self.added = 0
        parallel.barrier()  # all processes see the rows as they stand now, before the first one adds to them
        self.standing = [row for row in results.read(self.path) if self._ours(row)]
        parallel.barrier()

    def _ours(self, row: results.Measurement) -> bool:
        subject = self.subject
        same = (row.config_digest, row.device) == (subject.config_digest, self.session.provenance["device"])
        run = (row.seed, row.steps) == (subject.seed, subject.steps)
        return (
            row.intact and same and row.noise == noise_of(subject.variation) and (run or row.source in subject.shared)
        )

    @property
    def begun(self) -> bool:
        """Whether a row of these very weights is stored, and not only one that all seeds share."""
        return any(row.source not in self.subject.shared or row.seed == self.subject.seed for row in self.standing)

    def _answers(self, stored: results.Measurement, new: results.Measurement) -> bool:
        """Whether a row that was stored since this process looked says what a new one is about to say."""
        seen = any(stored.row_digest == row.row_digest for row in self.standing)
        return not seen and self._ours(stored) and all(getattr(stored, name) == getattr(new, name) for name in ASKED)

    def find(
        self, metric: str, of: Of | str, images: int, judged: bool = False, reference: str = ""
    ) -> results.Measurement | None:
        """Return the row that stands for this question at this number of images, judged by the same extractor.

        `reference` is that of a row that no extractor judged; a text in place of an `Of` is its source alone.
        """
        by = self.session.judged_by() if judged else {"reference": reference, "extractor": ""}
        for row in reversed(self.standing):
            asked = (metric, _of(of), images, by["reference"], by["extractor"])
            if (row.metric, row.of, row.images, row.reference, row.extractor) == asked:
                return row
        return None

    def add(
        self, metric: str, of: Of | str, value: float, images: int, seconds: dict[str, float], **rest: Any
    ) -> results.Measurement:
        """Store one more row, whole with its provenance; `rest` sets further fields of it.

        Where another process has stored an answer to the same question in the meantime, that row stands and is
        returned: two seeds at once store what they share once.
        """
        subject, of = self.subject, _of(of)
        fields = {
            "weights": subject.weights,
            "spread": None,
            "reference": "",
            "extractor": "",
            "chain": subject.chains.get(of.source, ""),
        }
        names = ("protocol", "dataset", "preset", "learning", "seed", "steps", "complete", "config_digest")
        versions = self.session.provenance["versions"] | peak_memory(self.session.device)
        row = results.Measurement(
            **{name: getattr(subject, name) for name in names},
            **of._asdict(),
            metric=metric,
            recipe=subject.identity.recipe,
            model=subject.identity.model,
            variation=dict(subject.variation),
            value=value,
            images=images,
            wall_seconds={"train": subject.train_seconds, **seconds},
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **(self.session.provenance | {"versions": versions}),
            **(fields | rest),
        )
        if parallel.first():
            (row,) = results.append(self.path, [row], stands=self._answers)
        self.standing.append(row)
        self.added += 1
        return row


def _of(of: Of | str) -> Of:
    return Of(of) if isinstance(of, str) else of
