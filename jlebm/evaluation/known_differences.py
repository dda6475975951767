"""Samples that differ from posterior samples in a known way: what a two-sample test should see, and what it should not.

`fitted_auc` between the two samples of each pair says how much power the test had at this number of samples.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jlebm.evaluation.judge import in_order

SHIFT = 0.05  # in standard deviations of each latent

Latents = Float[np.ndarray, "_samples _latents"]


class Pair(NamedTuple):
    """Two samples of latents."""

    first: Latents
    second: Latents


def halves(sample: Latents, seed: int) -> Pair:
    """Return two halves of a sample, chosen by `seed` and the values, not by their order: nothing tells them apart."""
    order = in_order(sample, seed)
    return Pair(*(np.asarray(sample[np.sort(order[number::2])]) for number in (0, 1)))


def shifted(pair: Pair, shift: float = SHIFT) -> Pair:
    """Return the first half, and the second with every latent moved by `shift` of its standard deviation.

    Of D independent normal latents the best classifier has the AUC Phi(shift sqrt(D / 2)).
    """
    return Pair(pair.first, pair.second + np.float32(shift) * pair.second.std(0, dtype=np.float64).astype(np.float32))


def mixed(pair: Pair, shapes: Sequence[tuple[int, ...]], seed: int) -> Pair:
    """Return the first half, and the second with every place of every layer taken from another of its samples.

    A place is a pixel of a layer's maps with all its channels, or one number of a vector. The distribution at each
    place stays as it is, so no test of marginals sees the difference; dependence between places, and between layers, is
    gone.

    Args:
        pair: two halves of a sample.
        shapes: shape of each layer.
        seed: chooses whose places are taken.
    """
    generator, parts, start = np.random.default_rng(seed), [], 0
    for shape in shapes:
        size, channels = math.prod(shape), shape[0] if len(shape) > 1 and math.prod(shape[1:]) > 1 else 1
        places = pair.second[:, start : start + size].reshape(len(pair.second), channels, -1)
        taken = generator.permuted(np.tile(np.arange(len(places))[:, None], places.shape[2]), axis=0)
        parts.append(np.take_along_axis(places, taken[:, None], 0).reshape(len(places), -1))
        start += size
    return Pair(pair.first, np.concatenate(parts, 1))
