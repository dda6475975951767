"""The fitted two-sample test of posterior against prior latents as rows: together, by layer, and its power.

| metric | source | what it is |
|---|---|---|
| `fitted_auc` | `ebm-prior`, `ebm-prior/z3` | AUC between posterior and prior latents, of all layers or one |
| `fitted_auc_halves` | `posterior` | AUC between two halves of the posterior samples: 0.5 within its error |
| `fitted_auc_shifted` | `posterior` | one half has every latent moved by 0.05 of its standard deviation |
| `fitted_auc_mixed` | `posterior` | one half has each place from another image: only dependence differs |

The spread of a row is the standard error of its AUC.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jlebm.evaluation import judge
from jlebm.evaluation.fidelity import NotMeasured
from jlebm.evaluation.known_differences import Pair, halves, mixed, shifted
from jlebm.latents import LatentShapes, layer_names
from jlebm.randomness import derive_seed
from reproduce.measuring.row_store import Answer, Part, Rows, Wanted
from reproduce.measuring.sample_sets import SampleSets
from reproduce.results.identity import Of
from reproduce.results.metrics import POSTERIOR


class _Layers(NamedTuple):
    """Layers that are judged together: their shapes and their columns."""

    shapes: LatentShapes
    columns: slice


def judged_latents(rows: Rows, samples: SampleSets, shapes: LatentShapes) -> Iterator[Part]:
    """Yield the parts of the fitted test of each prior, all layers together and each alone, and of its power."""
    # Each image only once: otherwise the classifiers would be tested on latents like those they were trained on.
    used = min(samples.latents, samples.count(POSTERIOR), len(rows.session.dataset.images))
    sizes = [math.prod(shape) for shape in shapes]
    ends = list(itertools.accumulate(sizes))
    whole = _Layers(shapes, slice(None))
    alone = [_Layers((shape,), slice(end - size, end)) for shape, size, end in zip(shapes, sizes, ends, strict=True)]
    names = layer_names(len(shapes))
    for prior in samples.priors:
        yield _told_apart(rows, samples, Wanted("fitted_auc", Of(prior), used), whole)
        if len(shapes) > 1:
            for name, layer in zip(names, alone, strict=True):
                yield _told_apart(rows, samples, Wanted("fitted_auc", Of(prior, name), used), layer)
    yield _power(rows, samples, used, shapes)


def _told_apart(rows: Rows, samples: SampleSets, wanted: Wanted, layers: _Layers) -> Part:
    def answers(asked: Sequence[Wanted]) -> Iterator[Answer | NotMeasured]:
        if (refused := _too_few(wanted.metric, wanted.images, judge.FEWEST)) is not None:
            yield refused
            return
        both = (samples[source].latents[: wanted.images, layers.columns] for source in (POSTERIOR, wanted.of.source))
        yield _judged(rows, asked[0], Pair(*both), layers.shapes)

    return Part([wanted], answers)


def _power(rows: Rows, samples: SampleSets, used: int, shapes: LatentShapes) -> Part:
    """Return the part of what the test makes of posterior samples and known differences from them."""
    seed = _seed(rows)
    pairs: dict[str, Callable[[Pair], Pair]] = {
        "fitted_auc_halves": lambda equal: equal,
        "fitted_auc_shifted": shifted,
        "fitted_auc_mixed": lambda equal: mixed(equal, shapes, seed),
    }
    wanted = [Wanted(metric, Of(POSTERIOR), used) for metric in pairs]

    def answers(asked: Sequence[Wanted]) -> Iterator[Answer | NotMeasured]:
        refused = [_too_few(one.metric, used, 2 * judge.FEWEST) for one in asked]
        if refused[0] is not None:
            yield from filter(None, refused)
            return
        equal = halves(samples[POSTERIOR].latents[:used], seed)
        for one in asked:
            yield _judged(rows, one, pairs[one.metric](equal), shapes)

    return Part(wanted, answers)


def _judged(rows: Rows, wanted: Wanted, pair: Pair, shapes: LatentShapes) -> Answer:
    started = time.monotonic()
    first, second = (np.asarray(each) for each in pair)
    found = judge.fitted_auc(first, second, shapes, _seed(rows), device=rows.session.device)
    return Answer(wanted, found.value, {"evaluate": time.monotonic() - started}, {"spread": found.error})


def _seed(rows: Rows) -> int:
    return derive_seed("evaluation", rows.subject.seed) % 2**32


def _too_few(metric: str, used: int, fewest: int) -> NotMeasured | None:
    if used >= fewest:
        return None
    reason = f"{used} latents of different images were drawn, and the fitted two-sample test needs {fewest} here"
    return NotMeasured(metric, reason, f"take --images {fewest} or more, of a dataset that has as many")
