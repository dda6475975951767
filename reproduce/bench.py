"""What every seed of a recipe is measured with, and the rows that a run has stored and still lacks."""

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import jlebm
from jlebm import parallel, results
from jlebm.data import Dataset, data_root, writable_cache
from jlebm.evaluation import Extractor, ExtractorNotFound, fidelity, find_extractor, self_check
from jlebm.progress import Reporter
from jlebm.run import Run, provenance
from jlebm.training import TrainState

SOURCES = ("gaussian-prior", "ebm-prior", "posterior")


@dataclass
class Bench:
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
    ) -> "Bench":
        """Find the extractor and check it before anything long begins."""
        folder = data_root(root)
        known = provenance(device)
        known["versions"]["jlebm"] = jlebm.__version__
        bench = cls(dataset, images, reference_images, None, writable_cache(folder), device, report, known, judged)

        def find() -> Extractor | None:
            try:
                return find_extractor(folder, download, report)
            except ExtractorNotFound as missing:
                report.line(f"{missing}")
                return None

        bench.extractor = parallel.after_first(find)
        if bench.extractor is not None:
            self_check(bench.extractor, device)
        return bench

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


class Rows:
    """The rows of one trained state: those that stand, and how another one is added at once."""

    def __init__(self, run: Run, state: TrainState, bench: Bench, folder: Path):
        self.path = folder / "measured" / f"{run.experiment.dataset}.jsonl"
        self.run, self.state, self.bench = run, state, bench
        self.added = 0
        parallel.barrier()  # all processes see the rows as they stand now, before the first one adds to them
        self.standing = [row for row in results.read(self.path) if self._ours(row)]
        parallel.barrier()

    def _ours(self, row: results.Measurement) -> bool:
        same = (row.config_digest, row.device) == (self.run.experiment.digest(), self.bench.provenance["device"])
        run = (row.seed, row.steps) == (self.run.seed, self.state.step)
        return row.intact and same and (run or row.source == "training-halves")

    def find(self, metric: str, source: str, images: int, judged: bool) -> results.Measurement | None:
        """Return the row that stands for this question at this number of images, judged by the same extractor."""
        by = self.bench.judged_by() if judged else {"reference": "", "extractor": ""}
        for row in reversed(self.standing):
            asked = (metric, source, images, by["reference"], by["extractor"])
            if (row.metric, row.source, row.images, row.reference, row.extractor) == asked:
                return row
        return None

    def add(
        self, metric: str, source: str, value: float, images: int, seconds: dict[str, float], **rest: Any
    ) -> results.Measurement:
        """Store one more row, whole with its provenance; `rest` sets further fields of it."""
        experiment = self.run.experiment
        chain = ""
        if source == "ebm-prior":
            chain = experiment.prior_chain.describe()
        elif source == "posterior" and experiment.learning == "joint-mle":
            chain = experiment.posterior_chain.describe()
        fields = {
            "weights": "raw" if self.state.ema is None else "ema",
            "spread": None,
            "reference": "",
            "extractor": "",
            "chain": chain,
        }
        row = results.Measurement(
            protocol=experiment.protocol,
            dataset=experiment.dataset,
            preset=experiment.preset,
            learning=experiment.learning,
            seed=self.run.seed,
            metric=metric,
            source=source,
            value=value,
            images=images,
            steps=self.state.step,
            complete=self.state.step >= experiment.training.steps,
            config_digest=experiment.digest(),
            wall_seconds={"train": self.state.seconds, **seconds},
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **self.bench.provenance,
            **(fields | rest),
        )
        if parallel.first():
            results.append(self.path, [row])
        self.standing.append(row)
        self.added += 1
        return row
