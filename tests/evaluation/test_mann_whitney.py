"""The share of pairs in which one sample's value is above the other's, against closed forms and a Monte Carlo."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm

from jlebm.errors import UserError
from jlebm.evaluation.mann_whitney import share_above


def test_it_is_the_mann_whitney_statistic_with_ties() -> None:
    """Breaks if a tie counts for one side, or the share is turned round."""
    generator = np.random.default_rng(0)
    first, second = generator.integers(0, 6, 40) / 2, generator.integers(1, 8, 25) / 2
    assert share_above(first, second).value == pytest.approx(mannwhitneyu(first, second).statistic / 1000, abs=1e-12)
    assert share_above(first, second).value + share_above(second, first).value == pytest.approx(1, abs=1e-12)
    assert share_above(first, second).error == pytest.approx(share_above(second, first).error, abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_error_is_the_spread_over_samples(shift: float) -> None:
    """Breaks if a term of DeLong's variance is lost, or its sizes are exchanged: 30 and 200 values differ."""
    found = []
    for seed in range(400):
        generator = np.random.default_rng(seed)
        found.append(share_above(generator.normal(shift, 1, 30), generator.normal(0, 1, 200)))
    values, errors = np.array(found).T
    assert values.mean() == pytest.approx(norm.cdf(shift / 2**0.5), abs=3 * values.std() / 20)
    assert errors.mean() == pytest.approx(values.std(), rel=0.12)  # three standard errors of a spread of 400


def test_the_error_under_equality_is_the_known_one() -> None:
    """Breaks if the variance is not that of the statistic: (n + m + 1) / (12 n m) without ties."""
    generator = np.random.default_rng(0)
    found = share_above(generator.normal(size=2000), generator.normal(size=3000))
    assert found.error == pytest.approx((5001 / (12 * 2000 * 3000)) ** 0.5, rel=0.02)


def test_samples_apart_and_bad_ones() -> None:
    """Breaks if the ends are not 0 and 1, or one value or NaN ends in a warning."""
    assert share_above(np.array([3.0, 4]), np.array([1.0, 2])) == (1, 0)
    assert share_above(np.array([1.0, -np.inf]), np.array([3.0, np.inf])) == (0, 0)
    with pytest.raises(UserError, match="two values on each side and got 1 and 2"):
        share_above(np.array([1.0]), np.array([1.0, 2]))
    with pytest.raises(UserError, match="not numbers"):
        share_above(np.array([1.0, np.nan]), np.array([1.0, 2]))
