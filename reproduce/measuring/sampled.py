"""From a trained state to rows: samples and metrics. What is stored already is not measured again.

Each row is stored as soon as it is known, so that an interruption costs the one that was being measured.
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
from reproduce.measuring.session import Rows
from reproduce.presets.extents import PRIORS, SOURCES
from reproduce.results.identity import Of
from reproduce.results.metrics import METRICS, measured_of

NUMBERS = 2**30  # latents of one source that are kept on the disk at most: 4 GiB
WIDEST = 20_000  # latents of an image that the two-sample test is given at most
LATENTS = 10_000  # how many latents of each side are kept and given to the two-sample test at most


@dataclass(frozen=True)
class Draw:
    """How the samples of one source are made."""

    batches: Callable[[], Iterator[sampling.Samples]]
    count: int


class SampleSets:
    """The samples of each source, drawn when they are first asked for."""

    def __init__(self, draws: Mapping[str, Draw], folder: Path, report: Reporter, latents: int = LATENTS):
        self.draws, self.folder, self.report, self.latents = draws, folder, report, latents
        self.files: dict[str, SampleFiles] = {}
        self.seconds: dict[str, float] = {}

    @property
    def priors(self) -> tuple[Prior, ...]:
        """The priors that the model has: a twin without energies has the Gaussian one alone."""
        return tuple(prior for prior in PRIORS if prior in self.draws)

    def count(self, source: str) -> int:
        """How many images a source gives."""
        return self.draws[source].count

    @property
    def paths(self) -> list[Path]:
        """The files of all sources' images and latents."""
        names = [name for source in self.draws for name in (f"{source}.npy", f"{source}-latents.npy")]
        return [self.folder / name for name in names]

    def begin(self, rows: Rows) -> None:
        """Draw every source before the first row of the weights, so that none is stored of a network that gives NaN."""
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
    """Store every row that the results still lack.

    Raises:
        UserError: the disk is full, or a stored row cannot be read.
        NotFinite: an image of any source is NaN or infinite; nothing is stored then.
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
    """Store how many parameters were trained for the images of a source, those of an encoder and a backbone included.

    The row says too how long their training took, `trained_in` seconds where that is not the whole subject's, and how
    long the images took, where they were drawn in this process.
    """
    count = samples.count(source)
    if rows.find("parameters", source, count, judged=False) is None:
        total = sum(parameter.numel() for module in modules for parameter in module.parameters())
        seconds = {"sample": samples.seconds[source]} if source in samples.seconds else {}
        if trained_in is not None:
            seconds["train"] = trained_in
        rows.add("parameters", source, float(total), count, seconds)


def measure_latents(rows: Rows, samples: SampleSets) -> None:
    """Store the reconstruction error and how well posterior and prior latents can be told apart."""
    count = samples.count("posterior")
    if rows.find("reconstruction_mse", "posterior", count, judged=False) is None:
        decoded, images = samples["posterior"].images, rows.session.dataset.images
        error = mean_squared_error(decoded, images, posterior_indices(len(images), count))
        rows.add("reconstruction_mse", "posterior", error, count, {"sample": samples.seconds["posterior"]})
    for prior in samples.priors:
        tell_apart(rows, samples, Of(prior), slice(None))


def measure_layers(rows: Rows, samples: SampleSets, shapes: LatentShapes) -> None:
    """Store how well posterior and prior latents of each layer alone, top first, can be told apart."""
    sizes = [math.prod(shape) for shape in shapes]
    ends = list(itertools.accumulate(sizes))
    for prior in samples.priors:
        for name, size, end in zip(layer_names(len(sizes)), sizes, ends, strict=True):
            tell_apart(rows, samples, Of(prior, name), slice(end - size, end))


def latents_kept(dimensions: int) -> int:
    """Return how many samples' latents are kept on the disk: fewer of a deep hierarchy, whose images have millions."""
    return min(LATENTS, NUMBERS // dimensions)


def tell_apart(rows: Rows, samples: SampleSets, of: Of, part: slice) -> None:
    """Store how well a part of the prior's latents can be told from the posterior's, as an AUC."""
    # Not twice of one image: the classifier would know from its training what it is to judge.
    used = min(samples.latents, samples.count("posterior"), len(rows.session.dataset.images))
    if rows.find("latent_auc", of, used, judged=False) is not None:
        return
    if used < latent.FEWEST:
        reason = f"the dataset has {used} images, and the two-sample test needs {latent.FEWEST}"
        rows.session.lacks(fidelity.NotMeasured("latent_auc", reason, "put the whole dataset into the data root"))
        return
    ours, theirs = (samples[each].latents[:used, part] for each in ("posterior", of.source))
    if ours.shape[1] > WIDEST:
        reason = f"{of.name} has {ours.shape[1]} latents an image, and the two-sample test takes {WIDEST}"
        rows.session.lacks(fidelity.NotMeasured("latent_auc", reason, "look at the rows of the layers that have fewer"))
        return
    started = time.monotonic()
    seed = derive_seed("evaluation", rows.subject.seed) % 2**32
    auc = latent.two_sample_auc(np.asarray(ours), np.asarray(theirs), seed=seed)
    rows.add("latent_auc", of, auc, used, {"evaluate": time.monotonic() - started})


def measure_images(rows: Rows, samples: SampleSets, source: str) -> None:
    """Store the metrics of one source's images, and remember which cannot be measured and why."""
    session, count = rows.session, samples.count(source)
    computed = [metric for metric in measured_of(source) if METRICS[metric].function]
    for metric in computed:
        measure_by_function(rows, samples, source, metric)
    wanted = []
    if source not in session.judged:
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
    """Store a metric that a function of a source's images and the training images computes."""
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
    """Store the distance between the training images' halves: once for all seeds, they do not depend on one."""
    session, half = rows.session, rows.session.references // 2
    if session.extractor is None or half < fidelity.NEEDS["fid768"].images:
        return
    if rows.find("fid768", "training-halves", half, judged=True) is None:
        floor = fidelity.halves(session.reference, session.extractor, session.device, report=session.report)
        rows.add(floor.metric, "training-halves", floor.value, floor.images, {}, weights="", **session.judged_by())


def measure_gap(rows: Rows, samples: SampleSets) -> None:
    """Store (a - b) / (a - c), the share of the prior's gap that the energies close, where there is a gap."""
    if rows.session.extractor is None:
        return
    if unjudged := set(SOURCES) - set(rows.session.judged):
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
    """Choose training images at even distances, between those of the reference where neither is all of them.

    A decoded posterior sample then never stands beside the very image that it was made from, as far as that is
    possible. More than there are go through all of them again: number i from `total` on is another posterior sample of
    image i - `total`.
    """
    rounds, rest = divmod(count, total)
    whole = rounds * total
    return [*range(whole), *(whole + (2 * index + 1) * total // (2 * rest) for index in range(rest))]


def mean_squared_error(decoded: np.ndarray, images: np.ndarray, chosen: list[int]) -> float:
    """Return the mean squared error of pixels in [0, 1] between `decoded` and the chosen images, uint8 all of them."""
    total = 0.0
    for first in range(0, len(decoded), 1000):  # at a time: nothing grows with the count
        numbers = np.array(chosen[first : first + 1000]) % len(images)
        truth = images[numbers].astype(np.float64)
        total += float(np.square((decoded[first : first + 1000] - truth) / 255).sum())
    return total / decoded.size
