"""From scores to rows: how well a score tells one set of images from another, with the protocol in the row."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import jlebm
from jlebm.data import Dataset, data_root, writable_cache
from jlebm.evaluation import Detection, detection
from jlebm.images import NotFinite
from jlebm.progress import Reporter
from jlebm.run import provenance
from reproduce import results
from reproduce.measuring.session import Rows, Session, Subject
from reproduce.measuring.summary import print_verdicts
from reproduce.results.identity import Of
from reproduce.results.metrics import measured_of

METRICS = measured_of("anomaly")  # the same as of images outside the distribution


@dataclass(frozen=True)
class Question:
    """Which images a score is to find among which others; all of it but the scores is in the rows."""

    of: Of
    """What is detected, and by which score."""
    positive: str
    """The images that a high score is meant to find, in words."""
    reference: str
    """Which class is positive, how many images there are of each, and what the score is."""
    images: int
    """Of both kinds."""
    chain: str = ""
    """That the score needs, in words."""


def session_of(dataset: Dataset, root: Path | None, device: torch.device, report: Reporter) -> Session:
    """Return what the rows of a detection are measured with: no metric network among it."""
    known = provenance(device)
    known["versions"]["jlebm"] = jlebm.__version__
    return Session(dataset, len(dataset.images), None, None, writable_cache(data_root(root)), device, report, known)


def stands(rows: Rows, question: Question) -> bool:
    """Whether every row of a question is stored."""
    return _stored(rows, question) >= set(METRICS)


def _stored(rows: Rows, question: Question) -> set[str]:
    asked = (question.of, question.reference, question.images, question.chain)
    return {row.metric for row in rows.standing if (row.of, row.reference, row.images, row.chain) == asked}


def refuse_lost(scores: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Check that a trained network scores every image with a number.

    Raises:
        NotFinite: a score is NaN or infinite; it is named.
    """
    for name, some in scores.items():
        lost = sum(int((~np.isfinite(each)).sum()) for each in some)
        if lost:
            raise NotFinite(
                f"the trained network gives {lost} scores {name} that are not finite; nothing of them is stored: train "
                "it in another --runs with smaller learning rates, or a smaller epsilon of the chains"
            )


def judge(rows: Rows, question: Question, positive: np.ndarray, negative: np.ndarray, seconds: float) -> Detection:
    """Return how well scores answer a question; say it, and store its rows where they are not.

    Args:
        rows: of the model that made the scores.
        question: which.
        positive: scores of the positive images; they are meant to be the higher ones.
        negative: scores of the others.
        seconds: that the scores took.

    Raises:
        UserError: a score is not finite, or the disk is full.
    """
    started = time.monotonic()
    found = detection(positive, negative, question.positive)
    parts = {"sample": seconds, "evaluate": time.monotonic() - started}
    for metric in METRICS:
        if metric not in _stored(rows, question):  # a run that was killed between two rows adds the second alone
            said = {"reference": question.reference, "chain": question.chain}
            rows.add(metric, question.of, getattr(found, metric), question.images, parts, **said)
    rows.session.report.line(
        f"seed {rows.subject.seed}, {question.of.name}: AUPRC {found.auprc:.3f}, AUROC {found.auroc:.3f}, "
        f"FPR at 80 % TPR {found.fpr80:.3f}"
    )
    return found


def print_table(subjects: Sequence[Subject], asked: Sequence[Of], folder: Path) -> None:
    """Print the verdicts of these subjects' rows of these detections, beside what the paper reports."""
    digests, seeds = {one.config_digest for one in subjects}, {one.seed for one in subjects}
    told = {(one.protocol, one.dataset, one.identity.label, one.learning) for one in subjects}

    def ours(one: results.Measurement | results.Expectation) -> bool:
        return one.of in asked and (one.protocol, one.dataset, one.label, one.learning) in told

    print_verdicts(lambda row: ours(row) and row.seed in seeds, ours, digests, folder)
