"""Detection metrics as rows: how well a score separates two sets of images."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from jlebm.choices import Scheme
from jlebm.data import Dataset
from jlebm.evaluation import Detection, detection
from jlebm.images import NotFinite
from reproduce import results
from reproduce.measuring.data_root import DataRoot
from reproduce.measuring.row_store import Rows, Subject
from reproduce.measuring.session import Session
from reproduce.measuring.summary import print_verdicts
from reproduce.presets.extents import Size
from reproduce.results.identity import Of
from reproduce.results.metrics import measured_of

METRICS = measured_of("anomaly")  # out-of-distribution detection has the same


@dataclass(frozen=True)
class Question:
    """A detection task: which images a score should find among which others. Its rows carry all of it."""

    of: Of
    """Target and score."""
    positive: str
    """Description of the images that a high score should find."""
    reference: str
    """Positive class, number of images in each class, and score."""
    images: int
    """Number of images of both classes."""
    chain: str = ""
    """Description of the chain that the score runs; empty without one."""
    metrics: tuple[str, ...] = METRICS
    """Metrics that have a row."""


def session_of(
    recipe: str, dataset: Dataset, kept: bool, root: DataRoot, device: torch.device, noise: Scheme
) -> Session:
    """Return the session of a detection, which needs no metric network; `kept` is whether its preset keeps arrays."""
    return Session.prepare(recipe, dataset, Size(images=len(dataset.images), judged=(), kept=kept), root, device, noise)


def stands(rows: Rows, question: Question) -> bool:
    """Whether every row of a question is stored."""
    return _stored(rows, question) >= set(question.metrics)


def _stored(rows: Rows, question: Question) -> set[str]:
    asked = (question.of, question.reference, question.images, question.chain)
    return {row.metric for row in rows.standing if (row.of, row.reference, row.images, row.chain) == asked}


def refuse_lost(scores: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Refuse scores that are not finite.

    Raises:
        NotFinite: a score is NaN or infinite; it is named.
    """
    for name, some in scores.items():
        lost = sum(int((~np.isfinite(each)).sum()) for each in some)
        if lost:
            raise NotFinite(
                f"the trained network gives {lost} scores {name} that are not finite; none of them is stored: train it "
                "again in another --runs with smaller learning rates, or a smaller epsilon of the chains"
            )


def judge(rows: Rows, question: Question, positive: np.ndarray, negative: np.ndarray, seconds: float) -> Detection:
    """Compute, report and store the detection metrics of a question.

    Args:
        rows: of the model that made the scores.
        question: the detection task.
        positive: scores of the positive images, which should be higher.
        negative: scores of the others.
        seconds: time taken by the scores.

    Raises:
        UserError: a score is not finite, or the disk is full.
    """
    started = time.monotonic()
    found = detection(positive, negative, question.positive)
    parts = {"sample": seconds, "evaluate": time.monotonic() - started}
    for metric in question.metrics:
        if metric not in _stored(rows, question):  # a run killed between two rows adds only the second
            said = {"reference": question.reference, "chain": question.chain}
            rows.add(metric, question.of, getattr(found, metric), question.images, parts, **said)
    rows.session.report.line(
        f"seed {rows.subject.seed}, {question.of.name}: AUPRC {found.auprc:.3f}, AUROC {found.auroc:.3f}, "
        f"FPR at 80 % TPR {found.fpr80:.3f}"
    )
    return found


def print_table(subjects: Sequence[Subject], asked: Sequence[Of], folder: Path) -> None:
    """Print the verdicts on the subjects' rows of these detections, beside the paper's values."""
    digests, seeds = {one.config_digest for one in subjects}, {one.seed for one in subjects}
    told = {(one.protocol, one.dataset, one.identity.label, one.learning) for one in subjects}

    def ours(one: results.Measurement | results.Expectation) -> bool:
        return one.of in asked and (one.protocol, one.dataset, one.label, one.learning) in told

    print_verdicts(lambda row: ours(row) and row.seed in seeds, ours, digests, folder)
