"""The fitted two-sample test: what it sees, what it must not see, and what its error is worth."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from jlebm.errors import UserError
from jlebm.evaluation.judge import FEWEST, Fitting, fitted_auc
from jlebm.evaluation.known_differences import Pair, halves, mixed, shifted
from jlebm.evaluation.latent import two_sample_auc


def slow(shapes: list[tuple[int, ...]]) -> Any:
    """Mark a case of layers for which a convolutional classifier is trained."""
    return pytest.param(shapes, marks=pytest.mark.slow)


MAPS = [(2, 6, 6)]
SLOW_MAPS = slow(MAPS)
HIERARCHY = [(3,), (2, 2, 2), (2, 4, 4)]
QUICK = Fitting(updates=50, patience=2)
SHORT = Fitting(updates=200)


def normal(seed: int, count: int = FEWEST, size: int = 72) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)


def smooth(seed: int, count: int, correlation: float, shape: tuple[int, int, int] = (2, 6, 6)) -> np.ndarray:
    """Return maps of standard normal pixels, of which horizontal neighbours are correlated and no others are."""
    channels, height, width = shape
    white = normal(seed, count, channels * height * (width + 1)).reshape(count, channels, height, width + 1)
    weight = (1 - (1 - 4 * correlation**2) ** 0.5) / (2 * correlation)
    maps = (white[..., 1:] + weight * white[..., :-1]) / (1 + weight**2) ** 0.5
    return maps.reshape(count, -1).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shapes", [SLOW_MAPS, [(72,)], slow([(6,), (2, 1, 1), (8, 2, 2), (2, 4, 4)])], ids=str)
def test_one_distribution_gives_a_half(shapes: list[tuple[int, ...]], seed: int) -> None:
    """Breaks if what a classifier trained on leaks into what it is scored on, in any kind of layers."""
    found = fitted_auc(normal(2 * seed), normal(2 * seed + 1), shapes, seed, SHORT)
    assert abs(found.value - 0.5) < 3 * found.error


@pytest.mark.slow
def test_neighbours_that_hang_together_are_seen_where_the_old_test_sees_nothing() -> None:
    """Breaks if the convolutional classifier is lost: each pixel alone is standard normal in both samples."""
    first, second = normal(0, 1000, 256), smooth(1, 1000, 0.15, (4, 8, 8))
    with pytest.raises(UserError, match="seed of classifiers must not be negative"):
        fitted_auc(first, second, [(4, 8, 8)], -1, SHORT)
    found = fitted_auc(first, second, [(4, 8, 8)], 0, SHORT)
    assert found.value > 0.5 + 10 * found.error
    assert found.value > 0.75
    assert abs(two_sample_auc(first, second, 0) - 0.5) < 0.055  # three standard errors of 500 scored samples each


@pytest.mark.slow
def test_a_dependence_between_layers_is_seen_together_and_not_by_layer() -> None:
    """Breaks if layers of unlike sides are not joined: each layer alone is standard normal in both samples."""
    first, second = (normal(seed, 1000, sum((3, 8, 32))) for seed in (0, 1))
    coarse = second[:, 3:11].reshape(-1, 2, 2, 2).repeat(2, 2).repeat(2, 3).reshape(-1, 32)
    second[:, 11:] = 0.4 * coarse + (1 - 0.4**2) ** 0.5 * second[:, 11:]
    together = fitted_auc(first, second, HIERARCHY, 0, SHORT)
    assert together.value > 0.5 + 8 * together.error
    top = fitted_auc(first[:, 3:11], second[:, 3:11], HIERARCHY[1:2], 0, SHORT)
    assert abs(top.value - 0.5) < 3 * top.error


def test_a_dependence_in_a_vector_is_seen() -> None:
    """Breaks if vectors are compared by their marginals alone."""
    first, second = normal(0, 1000, 10), normal(1, 1000, 10)
    second[:, 1] = 0.8 * second[:, 0] + 0.6 * second[:, 1]
    assert fitted_auc(first, second, [(10,)], 0).value > 0.65


@pytest.mark.parametrize("shapes", [SLOW_MAPS, [(72,)]], ids=str)
def test_a_small_shift_of_every_latent_adds_up(shapes: list[tuple[int, ...]]) -> None:
    """Breaks if a shift that no latent shows alone is not summed over latents, or the AUC is turned round.

    The best classifier has the AUC Phi(0.15 sqrt(72 / 2)) = 0.816.
    """
    found = fitted_auc(normal(0, 1000), normal(1, 1000) + np.float32(0.15), shapes, 0)
    best = norm.cdf(0.15 * (72 / 2) ** 0.5)
    assert best - 0.05 - 3 * found.error < found.value < best + 3 * found.error


@pytest.mark.slow
def test_the_order_of_the_samples_changes_nothing() -> None:
    """Breaks if a sample's half depends on where it stands."""
    first, second = normal(0), smooth(1, FEWEST, 0.2)
    one = fitted_auc(first, second, MAPS, 3, QUICK)
    generator = np.random.default_rng(5)
    assert fitted_auc(generator.permutation(first), generator.permutation(second), MAPS, 3, QUICK) == one
    assert fitted_auc(first, second, MAPS, 4, QUICK) != one


@pytest.mark.slow
def test_the_scale_of_a_latent_changes_nothing_much() -> None:
    """Breaks if latents are not standardised, or one value of a chain that ran away makes the others invisible."""
    first, second = normal(0), normal(1) + np.float32(0.3)
    plain = fitted_auc(first, second, MAPS, 0, SHORT)
    scales = np.geomspace(1e-4, 1e4, 72, dtype=np.float32)
    scaled = fitted_auc(first * scales, second * scales, MAPS, 0, SHORT)
    assert abs(plain.value - scaled.value) < 0.02
    second[0] = 1e30
    assert 0.8 < fitted_auc(first, second, MAPS, 0, SHORT).value <= 1


@pytest.mark.slow
def test_the_standard_error_covers() -> None:
    """Breaks if the halves' errors are taken to be independent: the error would be too small by sqrt(2) at worst.

    Of 60 pairs of equal samples 2.7 lie outside two standard errors if they cover; 8 or more have a probability of 1 %.
    """
    quick = dataclasses.replace(QUICK, updates=25)
    found = [fitted_auc(normal(2 * n, size=6), normal(2 * n + 1, size=6), [(6,)], n, quick) for n in range(60)]
    z = np.array([(each.value - 0.5) / each.error for each in found])
    assert (np.abs(z) > 2).sum() < 8
    assert abs(z.mean()) < 3 / 60**0.5
    assert 0.5 < z.std() < 1.3


def test_known_differences_keep_what_they_promise() -> None:
    """Breaks if mixing changes a marginal or leaves a dependence, or a shift is not the one it says."""
    sample = np.random.default_rng(0).normal(size=(1000, 43)).astype(np.float32)
    sample[:, 12] = sample[:, 11]  # two pixels of one map
    sample[:, 11 + 16] = sample[:, 11]  # one pixel, two channels
    pair = halves(sample, 0)
    assert len({row.tobytes() for half in pair for row in half}) == 1000
    apart = mixed(pair, HIERARCHY, 0)
    assert apart.first is pair.first
    np.testing.assert_array_equal(np.sort(apart.second, 0), np.sort(pair.second, 0))
    np.testing.assert_array_equal(apart.second[:, 11], apart.second[:, 11 + 16])
    assert abs(np.corrcoef(apart.second[:, 11], apart.second[:, 12])[0, 1]) < 0.15
    assert abs(np.corrcoef(apart.second[:, 0], pair.second[:, 0])[0, 1]) < 0.15
    moved = shifted(pair)
    np.testing.assert_allclose((moved.second - pair.second).mean(0), 0.05 * pair.second.std(0), rtol=1e-3)


@pytest.mark.slow
def test_the_power_is_a_half_of_halves_and_more_of_a_mixture() -> None:
    """Breaks if halves can be told apart, or the judge does not see places that come from different samples."""
    pair = halves(smooth(0, 2000, 0.3), 1)
    equal = fitted_auc(*pair, MAPS, 1, SHORT)
    assert abs(equal.value - 0.5) < 3 * equal.error
    assert fitted_auc(*mixed(pair, MAPS, 1), MAPS, 1, SHORT).value > 0.8


def test_bad_samples_get_a_sentence() -> None:
    """Breaks if unlike dimensions, few samples or NaN end in a traceback."""
    with pytest.raises(UserError, match="72 and of 71 latents cannot be compared as layers of 72"):
        fitted_auc(normal(0), normal(1)[:, :71], MAPS, 0)
    with pytest.raises(UserError, match="needs 500 of each and got 500 and 499"):
        fitted_auc(normal(0), normal(1)[:-1], MAPS, 0)
    broken = normal(1)
    broken[4, 4] = np.inf
    with pytest.raises(UserError, match="not finite"):
        fitted_auc(*Pair(normal(0), broken), MAPS, 0)
