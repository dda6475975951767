"""Detection on scores made by hand: ties, perfect and reversed order, and which class is positive."""

import numpy as np
import pytest
from scipy.stats import norm

from jlebm.errors import UserError
from jlebm.evaluation.scores import Detection, detection, likelihood_ratio

LOW, HIGH = np.arange(4.0), np.arange(4.0, 10.0)


def test_a_perfect_score_is_perfect() -> None:
    """Every positive image above every negative one; the numbers of both and the name are told."""
    assert detection(HIGH, LOW, "svhn") == Detection("svhn", 1.0, 1.0, 0.0, 6, 4)


def test_a_reversed_score_is_as_bad_as_can_be() -> None:
    """AUROC 0, every negative image before the first positive one; precision at positive image i is i / (n + i)."""
    found = detection(LOW, HIGH, "svhn")
    assert (found.auroc, found.fpr80) == (0.0, 1.0)
    assert found.auprc == pytest.approx(np.mean([i / (6 + i) for i in range(1, 5)]))


def test_ties_count_one_half() -> None:
    """A score that says nothing is at chance: AUROC a half, AUPRC the share of positive images, no threshold at all."""
    found = detection(np.zeros(3), np.zeros(9), "svhn")
    assert (found.auroc, found.auprc, found.fpr80) == (0.5, 0.25, 1.0)
    # Of four pairs the 2 wins both of its own and the 1 ties both: (1 + 1 + 1/2 + 1/2) / 4.
    assert detection(np.array([2.0, 1.0]), np.array([1.0, 1.0]), "svhn").auroc == 0.75


def test_a_mixed_order_by_hand() -> None:
    """P N P N N from the top: pairs 5 of 6, precision 1 and 2/3, and both positives are found with one false alarm."""
    found = detection(np.array([5.0, 3.0]), np.array([4.0, 2.0, 1.0]), "9")
    assert found.auroc == pytest.approx(5 / 6)
    assert found.auprc == pytest.approx((1 + 2 / 3) / 2)
    assert found.fpr80 == pytest.approx(1 / 3)


def test_which_class_is_positive_matters_and_is_told() -> None:
    """With the roles and the sign turned round the AUROC is the same and the AUPRC is not: chance differs."""
    generator = np.random.default_rng(0)
    rare, common = generator.normal(1.0, 1.0, 300), generator.normal(0.0, 1.0, 3000)
    one, other = detection(rare, common, "rare"), detection(-common, -rare, "common")
    assert one.auroc == pytest.approx(other.auroc)
    assert other.auprc > one.auprc + 0.3
    assert (one.positive, one.positives, other.positive, other.positives) == ("rare", 300, "common", 3000)


def test_two_gaussians_have_a_closed_form() -> None:
    """At a distance d: AUROC Phi(d / sqrt 2), FPR at 80 % 1 - Phi(d - Phi^-1(0.8)), not the other tail's."""
    generator, n, d = np.random.default_rng(1), 20_000, 1.2
    found = detection(generator.normal(d, 1.0, n), generator.normal(0.0, 1.0, n), "moved")
    assert found.auroc == pytest.approx(norm.cdf(d / 2**0.5), abs=0.01)
    assert found.fpr80 == pytest.approx(norm.sf(d - norm.ppf(0.8)), abs=0.02)


@pytest.mark.parametrize("count", [5, 10, 15])
def test_eighty_per_cent_is_reached_exactly(count: int) -> None:
    """Where the last fifth is hidden below everything, the threshold that finds four fifths has no false alarm."""
    positive = np.where(np.arange(count) < count * 4 // 5, 10.0, -10.0)
    assert detection(positive, LOW, "svhn").fpr80 == 0.0
    assert detection(np.sort(positive)[:-1], LOW, "svhn").fpr80 == 1.0


def test_the_ratio_is_high_where_the_upper_layers_miss_the_image() -> None:
    """L^{>0} - L^{>k}: turned round, what is out of distribution would get the lower value."""
    np.testing.assert_array_equal(likelihood_ratio(np.array([5.0, 5.0]), np.array([4.0, -3.0])), [1.0, 8.0])


@pytest.mark.parametrize(
    ("positive", "negative", "sentence"),
    [
        (np.zeros(0), LOW, "needs scores of both kinds, not 0 and 4"),
        (HIGH, np.zeros(0), "not 6 and 0"),
        (np.array([1.0, np.nan]), LOW, "is not finite"),
        (HIGH, np.array([np.inf]), "is not finite"),
    ],
)
def test_scores_that_cannot_be_judged_are_a_sentence(positive, negative, sentence: str) -> None:
    """Nothing to detect, or a score that a diverged chain left."""
    with pytest.raises(UserError, match=sentence):
        detection(positive, negative, "svhn")
