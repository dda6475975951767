"""Samples of a trained model and their metrics as rows; stored metrics are not measured again.

Each row is stored as soon as it is measured, so an interruption costs only the current one.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
from torch import nn

from jlebm import sampling
from jlebm.choices import Prior
from jlebm.evaluation import fidelity, latent
from jlebm.latents import LatentShapes, layer_names
from jlebm.progress import Reporter
from jlebm.randomness import derive_seed
from jlebm.sampling import SampleFiles
from reproduce.measuring.row_store import Rows
from reproduce.presets.extents import PRIORS, SOURCES
from reproduce.results.identity import Of
from reproduce.results.metrics import METRICS, measured_of

NUMBERS = 2**30  # most latents of one source that are stored: 4 GiB
WIDEST = 20_000  # most latents of an image in the two-sample test
LATENTS = 10_000  # most images of each side in the two-sample test


@dataclass(frozen=True)
class Draw:
    """Samples of one source, drawn in batches."""

    batches: Callable[[], Iterator[sampling.Samples]]
    count: int


class SampleSets:
    """Samples of each source, drawn on first use."""

    def __init__(self, draws: Mapping[str, Draw], folder: Path, report: Reporter, latents: int = LATENTS):
        self.draws, self.folder, self.report, self.latents = draws, folder, report, latents
        self.files: dict[str, SampleFiles] = {}
        self.seconds: dict[str, float] = {}

    @property
    def priors(self) -> tuple[Prior, ...]:
        """Priors of the model; a twin without energies has only the Gaussian one."""
        return tuple(prior for prior in PRIORS if prior in self.draws)

    def count(self, source: str) -> int:
        """Return the number of images of a source."""
        return self.draws[source].count

    @property
    def paths(self) -> list[Path]:
        """Files of all sources' images and latents."""
        names = [name for source in self.draws for name in (f"{source}.npy", f"{source}-latents.npy")]
        return [self.folder / name for name in names]

    def begin(self, rows: Rows) -> None:
        """Draw all sources before the first row, so that no row is stored for a network that gives NaN."""
        if not rows.begun:
            for source in self.draws:
                _ = self[source]

    def __getitem__(self, source: str) -> SampleFiles:
        """Return the images and latents of a source."""
        if source not in self.files:
            started = time.monotonic()
            draw, path = self.draws[source], self.folder / f"{source}.npy"
            self.files[source] = sampling.write(
                path, draw.batches(), draw.count, self.report, name=f"sampling {source}", latents=self.latents
            )
            self.seconds[source] = time.monotonic() - started
        return self.files[source]


def measure(rows: Rows, samples: SampleSets) -> None:
    """Store those rows that the results still lack.

    Raises:
        UserError: the disk is full, or a stored row cannot be read.
        NotFinite: an image of any source is NaN or infinite; then nothing is stored.
    """
    samples.begin(rows)
    measure_latents(rows, samples)
    for source in SOURCES:
        if source in samples.draws:
            measure_images(rows, samples, source)
    if samples.priors == PRIORS:
        measure_floor(rows)
        measure_gap(rows, samples)


def measure_parameters(
    rows: Rows, samples: SampleSets, source: str, *modules: nn.Module, trained_in: float | None = None
) -> None:
    """Store the number of trained parameters behind the images of a source, including an encoder and a backbone.

    The row also has the training time, `trained_in` seconds if it is not the subject's, and the sampling time if the
    images were drawn in this process.
    """
    count = samples.count(source)
    if rows.find("parameters", source, count, judged=False) is None:
        total = sum(parameter.numel() for module in modules for parameter in module.parameters())
        seconds = {"sample": samples.seconds[source]} if source in samples.seconds else {}
        if trained_in is not None:
            seconds["train"] = trained_in
        rows.add("parameters", source, float(total), count, seconds)


def measure_latents(rows: Rows, samples: SampleSets) -> None:
    """Store the reconstruction error and the two-sample AUC of posterior against prior latents."""
    count = samples.count("posterior")
    if rows.find("reconstruction_mse", "posterior", count, judged=False) is None:
        decoded, images = samples["posterior"].images, rows.session.dataset.images
        error = mean_squared_error(decoded, images, posterior_indices(len(images), count))
        rows.add("reconstruction_mse", "posterior", error, count, {"sample": samples.seconds["posterior"]})
    for prior in samples.priors:
        tell_apart(rows, samples, Of(prior), slice(None))


def measure_layers(rows: Rows, samples: SampleSets, shapes: LatentShapes) -> None:
    """Store the two-sample AUC of posterior against prior latents for each layer, top first."""
    sizes = [math.prod(shape) for shape in shapes]
    ends = list(itertools.accumulate(sizes))
    for prior in samples.priors:
        for name, size, end in zip(layer_names(len(sizes)), sizes, ends, strict=True):
            tell_apart(rows, samples, Of(prior, name), slice(end - size, end))


def latents_kept(dimensions: int) -> int:
    """Return the number of samples whose latents are stored: fewer for a deep hierarchy with millions per image."""
    return min(LATENTS, NUMBERS // dimensions)


def tell_apart(rows: Rows, samples: SampleSets, of: Of, part: slice) -> None:
    """Store the two-sample AUC of a part of the latents, posterior against prior."""
    # Each image only once: otherwise the classifier would be tested on latents like those it was trained on.
    used = min(samples.latents, samples.count("posterior"), len(rows.session.dataset.images))
    if rows.find("latent_auc", of, used, judged=False) is not None:
        return
    if used < latent.FEWEST:
        reason = f"the dataset has {used} images, and the two-sample test needs {latent.FEWEST}"
        rows.session.lacks(fidelity.NotMeasured("latent_auc", reason, "put the whole dataset into the data root"))
        return
    ours, theirs = (samples[each].latents[:used, part] for each in ("posterior", of.source))
    if ours.shape[1] > WIDEST:
        reason = f"{of.name} has {ours.shape[1]} latents per image, and the two-sample test takes at most {WIDEST}"
        rows.session.lacks(fidelity.NotMeasured("latent_auc", reason, "look at the rows of the layers that have fewer"))
        return
    started = time.monotonic()
    seed = derive_seed("evaluation", rows.subject.seed) % 2**32
    auc = latent.two_sample_auc(np.asarray(ours), np.asarray(theirs), seed=seed)
    rows.add("latent_auc", of, auc, used, {"evaluate": time.monotonic() - started})


def measure_images(rows: Rows, samples: SampleSets, source: str) -> None:
    """Store the metrics of one source's images, and record which cannot be measured and why."""
    session, count = rows.session, samples.count(source)
    computed = [metric for metric in measured_of(source) if METRICS[metric].function]
    for metric in computed:
        measure_by_function(rows, samples, source, metric)
    wanted = []
    if source not in session.size.judged:
        return
    for metric in measured_of(source):
        if metric in computed:
            continue
        refusal = fidelity.refusal(metric, session.extractor, count, session.references)
        if refusal is not None:
            session.lacks(refusal)
        elif rows.find(metric, source, count, judged=True) is None:
            wanted.append(metric)
    if not wanted:
        return
    images = samples[source].images
    started = time.monotonic()
    scores = fidelity.evaluate(
        images,
        session.reference,
        session.extractor,
        session.device,
        metrics=wanted,
        report=session.report,
    )
    seconds = {"sample": samples.seconds[source], "evaluate": time.monotonic() - started}
    for score in scores:
        if isinstance(score, fidelity.NotMeasured):
            session.lacks(score)
        else:
            judged = session.judged_by()
            rows.add(score.metric, source, score.value, score.images, seconds, spread=score.spread, **judged)


def measure_by_function(rows: Rows, samples: SampleSets, source: str, metric: str) -> None:
    """Store a metric computed by a function of a source's images and the training images."""
    session, count = rows.session, samples.count(source)
    reference = fidelity.describe_reference(session.dataset, None)
    if rows.find(metric, source, count, reference=reference) is not None:
        return
    images, started = samples[source].images, time.monotonic()
    module, _, name = METRICS[metric].function.partition(":")
    value = float(getattr(import_module(module), name)(images, session.dataset.images))
    seconds = {"sample": samples.seconds[source], "evaluate": time.monotonic() - started}
    rows.add(metric, source, value, count, seconds, reference=reference)


def measure_floor(rows: Rows) -> None:
    """Store the distance between the training images' halves, once for all seeds."""
    session, half = rows.session, rows.session.references // 2
    if session.extractor is None or half < fidelity.NEEDS["fid768"].images:
        return
    if rows.find("fid768", "training-halves", half, judged=True) is None:
        floor = fidelity.halves(session.reference, session.extractor, session.device, report=session.report)
        rows.add(floor.metric, "training-halves", floor.value, floor.images, {}, weights="", **session.judged_by())


def measure_gap(rows: Rows, samples: SampleSets) -> None:
    """Store (a - b) / (a - c), the share of the prior's gap that the energies close, if there is a gap."""
    if rows.session.extractor is None:
        return
    if unjudged := set(SOURCES) - set(rows.session.size.judged):
        reason = f"the images of the {', '.join(sorted(unjudged))} do not go through Inception here"
        rows.session.lacks(
            fidelity.NotMeasured("prior_gap_closed", reason, "take a larger --preset without a variation")
        )
        return
    found = [rows.find("fid768", source, samples.count(source), judged=True) for source in SOURCES]
    present = [row for row in found if row is not None]
    if len(present) < len(SOURCES) or rows.find("prior_gap_closed", "all", present[0].images, judged=True) is not None:
        return
    gaussian, ebm, posterior = (row.value for row in present)
    if gaussian <= posterior:
        reason = f"there is no gap: fid768 is {gaussian:.4f} for the Gaussian prior, {posterior:.4f} for the posterior"
        rows.session.lacks(fidelity.NotMeasured("prior_gap_closed", reason, "train longer"))
    else:
        closed = (gaussian - ebm) / (gaussian - posterior)
        rows.add("prior_gap_closed", "all", closed, present[0].images, {}, **rows.session.judged_by())


def posterior_indices(total: int, count: int) -> list[int]:
    """Choose evenly spaced training images, between those of the reference if neither takes all.

    As far as possible, a decoded posterior sample is then not compared with its own image. Beyond `total`, number i is
    another posterior sample of image i - `total`.
    """
    rounds, rest = divmod(count, total)
    whole = rounds * total
    return [*range(whole), *(whole + (2 * index + 1) * total // (2 * rest) for index in range(rest))]


def mean_squared_error(decoded: np.ndarray, images: np.ndarray, chosen: list[int]) -> float:
    """Return the mean squared error of pixels in [0, 1] between `decoded` and the chosen images, all uint8."""
    total = 0.0
    for first in range(0, len(decoded), 1000):  # in parts, so that memory does not grow with the count
        numbers = np.array(chosen[first : first + 1000]) % len(images)
        truth = images[numbers].astype(np.float64)
        total += float(np.square((decoded[first : first + 1000] - truth) / 255).sum())
    return total / decoded.size
