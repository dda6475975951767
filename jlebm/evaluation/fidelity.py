"""Sample fidelity: FID, Inception score, KID, precision and recall, and the 768-feature Frechet distance.

torch-fidelity's own functions compute every value from features of torch-fidelity's own network. `fid768` is
the Frechet distance on the 768-feature layer; it has its own scale and is never called FID.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from jlebm.data import Dataset
from jlebm.errors import UserError, nearest
from jlebm.evaluation.extractor import FULL_WEIGHTS, LAYERS, PARTIAL_WEIGHTS, Extractor
from jlebm.evaluation.inception import features_of, open_network
from jlebm.evaluation.moments import Moments
from jlebm.evaluation.reference import KEPT_LAYER, Reference, ReferenceSet, load_reference
from jlebm.evaluation.sample_files import check_images
from jlebm.progress import SILENT, Reporter

IS_SPLITS = 10
PRECISION_BATCH = 2000  # rows of the distance matrix at a time; does not change the value


@dataclass(frozen=True)
class Need:
    """Requirements of a metric: the features and the number of images."""

    layer: str  # layer of the Inception network
    images: int  # least number of images
    why: str
    reference: bool = True  # whether it needs as many reference images


NEEDS = {
    "fid768": Need("768", 768, "the covariance of 768 features"),
    "fid": Need("2048", 2048, "the covariance of 2048 features"),
    "is": Need("logits_unbiased", 10 * IS_SPLITS, f"10 in each of {IS_SPLITS} splits", reference=False),
    "kid": Need("2048", 2048, "the protocol of FID"),
    "precision": Need("2048", 2048, "the protocol of FID"),
    "recall": Need("2048", 2048, "the protocol of FID"),
}
ALL = tuple(NEEDS)
FRECHET = ("fid768", "fid")  # the metrics that need means and covariances alone


@dataclass(frozen=True)
class Score:
    """A measured value."""

    metric: str  # a key of `NEEDS`
    value: float
    spread: float | None  # standard deviation over the splits of IS, the subsets of KID; None elsewhere
    images: int  # number of images measured


@dataclass(frozen=True)
class NotMeasured:
    """A metric that could not be computed."""

    metric: str
    reason: str
    remedy: str


def evaluate(
    images: UInt8[np.ndarray, "count channels height width"],
    reference: ReferenceSet,
    extractor: Extractor | None,
    device: torch.device,
    *,
    metrics: Sequence[str] = ALL,
    report: Reporter = SILENT,
) -> list[Score | NotMeasured]:
    """Measure how far images are from a reference set.

    Args:
        images: uint8 (count, channels, height, width) with one channel (repeated to three) or three, in memory or
            memory-mapped.
        reference: the images to compare with, and the folder that caches their statistics.
        extractor: the Inception weights; None if there are none.
        device: where the network runs.
        metrics: names of `NEEDS`, in the order of the result.
        report: receives the progress.

    Returns:
        Each metric's value, or the reason that it is not measured and the remedy.

    Raises:
        UserError: `images` are not uint8 images, a metric is unknown, or the statistics cannot be cached.
    """
    check_images(images)
    for metric in metrics:
        if metric not in NEEDS:
            raise UserError(f"there is no metric {metric!r}{nearest(metric, NEEDS)}")
    references = len(reference.images)
    refusals = {
        metric: found
        for metric in metrics
        if (found := refusal(metric, extractor, len(images), references)) is not None
    }
    possible = [metric for metric in metrics if metric not in refusals]
    scores: dict[str, Score] = {}
    if possible and extractor is not None:
        layers = sorted({NEEDS[metric].layer for metric in possible if NEEDS[metric].reference}, key=LAYERS.index)
        known = load_reference(reference, extractor, layers, device, report)
        scores = _scores(images, possible, known, extractor, device, report)
    return [scores.get(metric) or refusals[metric] for metric in metrics]


def halves(reference: ReferenceSet, extractor: Extractor, device: torch.device, *, report: Reporter = SILENT) -> Score:
    """Measure `fid768` between the even-indexed and the odd-indexed images of a reference set: the floor.

    Its number of images is that of one half. `evaluate` uses the same cached statistics, so either makes the other
    free.

    Raises:
        UserError: a half has too few images, or the extractor does not give the 768 layer.
    """
    need = NEEDS["fid768"].images
    half = len(reference.images) // 2
    if half < need:
        name = reference.dataset.name
        raise UserError(f"fid768 needs {need} images and a half of {name} has {half}; use more of them")
    layer = NEEDS["fid768"].layer
    moments = load_reference(reference, extractor, (layer,), device, report).moments[layer]
    value = _frechet(moments.statistics("even"), moments.statistics("odd"))
    return Score("fid768", value, None, half)


def describe_reference(dataset: Dataset, number: int | None = None) -> str:
    """Describe the images that samples were compared with: "cifar10/train, 10000 images, sha256:47af8b02cfcf".

    Args:
        dataset: the dataset.
        number: number of its images used; None for all.
    """
    count = len(dataset.images) if number is None else number
    return f"{dataset.name}/{dataset.split}, {count} images, sha256:{dataset.digest[:12]}"


def refusal(metric: str, extractor: Extractor | None, images: int, references: int) -> NotMeasured | None:
    """Predict why `evaluate` would not measure a metric; None if it would.

    Args:
        metric: a key of `NEEDS`.
        extractor: the Inception weights; None if there are none.
        images: number of images to measure.
        references: number of reference images.
    """
    need = NEEDS[metric]
    if extractor is None:
        put = f"put {FULL_WEIGHTS} (or {PARTIAL_WEIGHTS} for fid768 alone) into the data root"
        return NotMeasured(metric, "there are no Inception weights", put)
    if need.layer not in extractor.layers:
        reason = f"the layer {need.layer} is not exact in {extractor.path.name}"
        return NotMeasured(metric, reason, f"put {FULL_WEIGHTS} into the data root")
    if images < need.images:
        reason = f"needs {need.images} images ({need.why}), got {images}"
        return NotMeasured(metric, reason, f"give at least {need.images} images")
    if need.reference and references < need.images:
        reason = f"needs {need.images} reference images ({need.why}), got {references}"
        return NotMeasured(metric, reason, f"compare with at least {need.images} reference images")
    return None


def _frechet(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> float:
    return fid_statistics_to_metric(first, second, False)[KEY_METRIC_FID]


def _scores(
    images: np.ndarray,
    metrics: Sequence[str],
    reference: Reference,
    extractor: Extractor,
    device: torch.device,
    report: Reporter,
) -> dict[str, Score]:
    """Compute the possible metrics in one pass over the images."""
    moments, collected = _pass(images, metrics, extractor, device, report)
    count = len(images)
    scores = {}
    for metric in FRECHET:
        if metric in metrics:
            layer = NEEDS[metric].layer
            value = _frechet(moments[layer].statistics(), reference.moments[layer].statistics())
            scores[metric] = Score(metric, value, None, count)
    if "is" in metrics:
        found = isc_features_to_metric(collected["logits_unbiased"], IS_SPLITS)
        scores["is"] = Score("is", found[KEY_METRIC_ISC_MEAN], found[KEY_METRIC_ISC_STD], count)
    if reference.features is not None and KEPT_LAYER in collected:
        real = torch.from_numpy(np.array(reference.features))
        if "kid" in metrics:
            found = kid_features_to_metric(collected[KEPT_LAYER], real, verbose=False)
            scores["kid"] = Score("kid", found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD], count)
        if "precision" in metrics or "recall" in metrics:
            report.line("computing precision and recall")
            found = prc_features_to_metric(
                collected[KEPT_LAYER].to(device),
                real.to(device),
                prc_batch_size=PRECISION_BATCH,
                save_cpu_ram=True,
                verbose=False,
            )
            for metric, key in (("precision", KEY_METRIC_PRECISION), ("recall", KEY_METRIC_RECALL)):
                if metric in metrics:
                    scores[metric] = Score(metric, found[key], None, count)
    return scores


def _pass(
    images: np.ndarray, metrics: Sequence[str], extractor: Extractor, device: torch.device, report: Reporter
) -> tuple[dict[str, Moments], dict[str, Tensor]]:
    """Extract features in one pass: sums for the Frechet distances, all features for the other metrics."""
    layers = sorted({NEEDS[metric].layer for metric in metrics}, key=LAYERS.index)
    summed = {NEEDS[metric].layer for metric in metrics if metric in FRECHET}
    kept = {NEEDS[metric].layer for metric in metrics if metric not in FRECHET}
    network = open_network(extractor, layers, device)
    moments: dict[str, Moments] = {}
    collected: dict[str, Tensor] = {}
    with report.task("Inception features of the images", len(images)) as task:
        for first, features in features_of(network, images):
            for layer, rows in features.items():
                if layer in summed:
                    if layer not in moments:
                        moments[layer] = Moments.zero(rows.shape[1], device)
                    moments[layer].add(rows, first)
                if layer in kept:
                    if layer not in collected:
                        collected[layer] = torch.empty(len(images), rows.shape[1])
                    collected[layer][first : first + len(rows)] = rows.cpu()
            task.advance(min(network.batch_size, len(images) - first))
    return moments, collected
