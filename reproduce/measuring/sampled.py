"""Metrics of the samples of a trained model, as rows.

What is measured is a list of parts: the rows that are wanted, and the function that computes those that are missing.
`Rows.fill` asks for all of them; a stored row is not measured again.
"""

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from importlib import import_module

import numpy as np
from torch import nn

from jlebm.evaluation import fidelity, latent
from jlebm.evaluation.fidelity import NotMeasured
from jlebm.latents import LatentShapes, layer_names
from jlebm.randomness import derive_seed
from reproduce.measuring.copies import copies
from reproduce.measuring.row_store import Answer, Part, Rows, Wanted
from reproduce.measuring.sample_sets import SampleSets, posterior_indices
from reproduce.presets.extents import PRIORS, SOURCES
from reproduce.results.identity import Of
from reproduce.results.metrics import METRICS, measured_of

WIDEST = 20_000  # most latents of an image in the two-sample test


class SampleMetrics:
    """What can be measured on the samples of one trained model; each method yields the parts of one kind of metric."""

    def __init__(self, rows: Rows, samples: SampleSets):
        self.rows, self.samples, self.session = rows, samples, rows.session

    def measure(self) -> None:
        """Store the rows that every model with latents has and the results still lack.

        Raises:
            UserError: the disk is full, or a stored row cannot be read.
            NotFinite: an image of any source is NaN or infinite; then nothing is stored.
        """
        if not self.rows.begun:
            self.samples.draw_all()  # before the first row, so that no row is stored for a network that gives NaN
        self.rows.fill(self._parts())

    def _parts(self) -> Iterator[Part]:
        yield self.reconstruction()
        for prior in self.samples.priors:
            yield from self.told_apart(Of(prior), slice(None))
        for source in SOURCES:
            if source in self.samples.draws:
                yield from self.image_metrics(source)
                if source in PRIORS:
                    yield from copies(self.rows, self.samples, source)
        if self.samples.priors == PRIORS:
            yield from self.floor()
            yield from self.gap()

    def reconstruction(self) -> Part:
        """Return the part of the error of decoded posterior samples."""

        def answers(asked: Sequence[Wanted]) -> Iterator[Answer]:
            truth, decoded = self.session.dataset.images, self.samples["posterior"].images
            error = mean_squared_error(decoded, truth, posterior_indices(len(truth), len(decoded)))
            yield Answer(asked[0], error, {"sample": self.samples.seconds["posterior"]})

        return Part([Wanted("reconstruction_mse", Of("posterior"), self.samples.count("posterior"))], answers)

    def layers_told_apart(self, shapes: LatentShapes) -> Iterator[Part]:
        """Yield the parts of the two-sample AUC of posterior against prior latents for each layer, top first."""
        sizes = [math.prod(shape) for shape in shapes]
        ends = list(itertools.accumulate(sizes))
        for prior in self.samples.priors:
            for name, size, end in zip(layer_names(len(sizes)), sizes, ends, strict=True):
                yield from self.told_apart(Of(prior, name), slice(end - size, end))

    def told_apart(self, of: Of, part: slice) -> Iterator[Part]:
        """Yield the part of the two-sample AUC of some of the latents, posterior against prior."""
        # Each image only once: otherwise the classifier would be tested on latents like those it was trained on.
        used = min(self.samples.latents, self.samples.count("posterior"), len(self.session.dataset.images))

        def answers(asked: Sequence[Wanted]) -> Iterator[Answer | NotMeasured]:
            if used < latent.FEWEST:
                reason = f"the dataset has {used} images, and the two-sample test needs {latent.FEWEST}"
                yield NotMeasured("latent_auc", reason, "put the whole dataset into the data root")
                return
            ours, theirs = (self.samples[each].latents[:used, part] for each in ("posterior", of.source))
            if (width := ours.shape[1]) > WIDEST:
                reason = f"{of.name} has {width} latents per image, and the two-sample test takes at most {WIDEST}"
                yield NotMeasured("latent_auc", reason, "look at the rows of the layers that have fewer")
                return
            started = time.monotonic()
            seed = derive_seed("evaluation", self.rows.subject.seed) % 2**32
            auc = latent.two_sample_auc(np.asarray(ours), np.asarray(theirs), seed=seed)
            yield Answer(asked[0], auc, {"evaluate": time.monotonic() - started})

        yield Part([Wanted("latent_auc", of, used)], answers)

    def parameters(self, source: str, *modules: nn.Module, trained_in: float | None = None) -> Part:
        """Return the part of the number of trained parameters behind a source, including an encoder and a backbone.

        The row also has the training time, `trained_in` seconds if it is not the subject's, and the sampling time if
        the images were drawn in this process.
        """

        def answers(asked: Sequence[Wanted]) -> Iterator[Answer]:
            total = sum(parameter.numel() for module in modules for parameter in module.parameters())
            seconds = {"sample": self.samples.seconds[source]} if source in self.samples.seconds else {}
            if trained_in is not None:
                seconds["train"] = trained_in
            yield Answer(asked[0], float(total), seconds)

        return Part([Wanted("parameters", Of(source), self.samples.count(source))], answers)

    def image_metrics(self, source: str) -> Iterator[Part]:
        """Yield the parts of one source's images: metrics by a function each, then those by features in one pass.

        Metrics of features that cannot be computed are recorded with the reason.
        """
        session, count, of = self.session, self.samples.count(source), Of(source)
        computed = [metric for metric in measured_of(source) if METRICS[metric].function]
        reference = fidelity.describe_reference(session.dataset, None)
        for metric in computed:
            yield Part([Wanted(metric, of, count, reference=reference)], self._by_function)
        if source not in session.size.judged:
            return
        possible = []
        for metric in measured_of(source):
            if metric in computed:
                continue
            refusal = fidelity.refusal(metric, session.extractor, count, session.references)
            if refusal is not None:
                session.lacks(refusal)
            else:
                possible.append(Wanted(metric, of, count, judged=True))
        yield Part(possible, self._by_features)

    def _by_function(self, asked: Sequence[Wanted]) -> Iterator[Answer]:
        """Compute metrics that are functions of a source's images and the training images."""
        for one in asked:
            drawn, started = self.samples[one.of.source].images, time.monotonic()
            module, _, name = METRICS[one.metric].function.partition(":")
            value = float(getattr(import_module(module), name)(drawn, self.session.dataset.images))
            seconds = {"sample": self.samples.seconds[one.of.source], "evaluate": time.monotonic() - started}
            yield Answer(one, value, seconds)

    def _by_features(self, asked: Sequence[Wanted]) -> Iterator[Answer | NotMeasured]:
        """Compute metrics of Inception features, all in one pass."""
        session, source = self.session, asked[0].of.source
        drawn, started = self.samples[source].images, time.monotonic()
        scores = fidelity.evaluate(
            drawn,
            session.reference,
            session.extractor,
            session.device,
            metrics=[one.metric for one in asked],
            report=session.report,
        )
        seconds = {"sample": self.samples.seconds[source], "evaluate": time.monotonic() - started}
        for one, score in zip(asked, scores, strict=True):
            if isinstance(score, NotMeasured):
                yield score
            else:
                yield Answer(one, score.value, seconds, {"spread": score.spread})

    def floor(self) -> Iterator[Part]:
        """Yield the part of the distance between the training images' halves, once for all seeds."""
        session, extractor = self.session, self.session.extractor
        half = session.references // 2
        if extractor is None or half < fidelity.NEEDS["fid768"].images:
            return

        def answers(asked: Sequence[Wanted]) -> Iterator[Answer]:
            found = fidelity.halves(session.reference, extractor, session.device, report=session.report)
            yield Answer(asked[0], found.value, {}, {"weights": ""})

        yield Part([Wanted("fid768", Of("training-halves"), half, judged=True)], answers)

    def gap(self) -> Iterator[Part]:
        """Yield the part of (a - b) / (a - c), the share of the prior's gap that the energies close, if there is one.

        It is computed from the stored rows of the three sources.
        """
        if self.session.extractor is None:
            return
        if unjudged := set(SOURCES) - set(self.session.size.judged):
            reason = f"the images of the {', '.join(sorted(unjudged))} do not go through Inception here"
            self.session.lacks(NotMeasured("prior_gap_closed", reason, "take a larger --preset without a variation"))
            return
        asked = [Wanted("fid768", Of(source), self.samples.count(source), judged=True) for source in SOURCES]
        present = [row for row in map(self.rows.find, asked) if row is not None]
        if len(present) < len(SOURCES):
            return
        a, b, c = (row.value for row in present)

        def answers(asked: Sequence[Wanted]) -> Iterator[Answer | NotMeasured]:
            if a <= c:
                reason = f"there is no gap: fid768 is {a:.4f} for the Gaussian prior, {c:.4f} for the posterior"
                yield NotMeasured("prior_gap_closed", reason, "train longer")
            else:
                yield Answer(asked[0], (a - b) / (a - c), {})

        yield Part([Wanted("prior_gap_closed", Of("all"), present[0].images, judged=True)], answers)


def mean_squared_error(decoded: np.ndarray, images: np.ndarray, chosen: list[int]) -> float:
    """Return the mean squared error of pixels in [0, 1] between `decoded` and the chosen images, all uint8."""
    total = 0.0
    for first in range(0, len(decoded), 1000):  # in parts, so that memory does not grow with the count
        numbers = np.array(chosen[first : first + 1000]) % len(images)
        truth = images[numbers].astype(np.float64)
        total += float(np.square((decoded[first : first + 1000] - truth) / 255).sum())
    return total / decoded.size
