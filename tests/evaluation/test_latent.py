import warnings

import numpy as np
import pytest
from scipy.stats import norm

from jlebm.errors import UserError
from jlebm.evaluation.latent import two_sample_auc

NUMBER, DIMENSION = 2000, 10
HELD_OUT = NUMBER // 2
STANDARD_ERROR = ((2 * HELD_OUT + 1) / (12 * HELD_OUT**2)) ** 0.5  # of the AUC of equal samples


def normal(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(NUMBER, DIMENSION))


@pytest.mark.parametrize("seed", range(3))
def test_one_distribution_gives_a_half(seed: int) -> None:
    """Breaks if what the classifier trained on leaks into what it is scored on."""
    assert abs(two_sample_auc(normal(2 * seed), normal(2 * seed + 1), seed) - 0.5) < 3.5 * STANDARD_ERROR


@pytest.mark.parametrize("shift", [0.5, 1.0, 2.0])
def test_a_known_shift_gives_the_closed_form(shift: float) -> None:
    """Breaks if the AUC is turned round, in-sample, or of a classifier that does not learn.

    The best classifier of two unit normals a distance d apart has the AUC Phi(d / sqrt(2)). The trained one may stay
    0.03 below, and sampling adds three standard errors.
    """
    moved = normal(1)
    moved[:, 3] += shift
    best = norm.cdf(shift / 2**0.5)
    assert best - 0.03 - 3 * STANDARD_ERROR < two_sample_auc(normal(0), moved, 0) < best + 3 * STANDARD_ERROR


def test_a_dependence_between_coordinates_is_seen() -> None:
    """Breaks if only marginals are compared: they are the same here."""
    dependent = normal(1)
    dependent[:, 1] = 0.8 * dependent[:, 0] + 0.6 * dependent[:, 1]
    assert two_sample_auc(normal(0), dependent, 0) > 0.65


def test_scale_and_order_of_the_samples_do_not_matter() -> None:
    """Breaks if samples of unlike sizes, far from unit scale, or given the other way round are judged otherwise."""
    first, second = normal(0) * 1e4 + 3e5, (normal(1)[:1500] + 0.5) * 1e4 + 3e5
    there, back = two_sample_auc(first, second, 1), two_sample_auc(second, first, 1)
    assert there > 0.8
    assert abs(there - back) < 0.05


def test_the_same_seed_gives_the_same_answer_without_warnings() -> None:
    """Breaks if hidden randomness or a convergence warning gets out."""
    first, second = normal(0), normal(1) * 1.1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert two_sample_auc(first, second, 5) == two_sample_auc(first, second, 5)


def test_bad_samples_get_a_sentence() -> None:
    """Breaks if unlike dimensions, few samples or NaN end in a traceback."""
    with pytest.raises(UserError, match="10 and of 9 dimensions"):
        two_sample_auc(normal(0), normal(1)[:, :9], 0)
    with pytest.raises(UserError, match="needs 50 of each and got 2000 and 12"):
        two_sample_auc(normal(0), normal(1)[:12], 0)
    broken = normal(1)
    broken[4, 4] = np.nan
    with pytest.raises(UserError, match="not finite"):
        two_sample_auc(normal(0), broken, 0)
