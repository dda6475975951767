"""The least AUPRC that any ranking of a held-out digit's test images has."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from jlebm.errors import UserError
from reproduce.results.anomaly_counts import least_auprc


@given(st.integers(1, 60), st.integers(0, 60))
def test_no_ranking_is_worse(positives: int, negatives: int) -> None:
    """Breaks if the least value is not that of the ranking that puts every positive image last."""
    labels = np.repeat((0, 1), (negatives, positives))
    worst = average_precision_score(labels, -np.arange(len(labels), dtype=float))
    assert least_auprc(positives, negatives) == pytest.approx(worst, rel=1e-12)


def test_the_least_of_table_4() -> None:
    """Breaks if the VAE row of Table 4 (.063, .148 and .104 for 1, 7 and 9) were possible on the 80/20 test set."""
    counts = {1: (7877, 12425), 4: (6824, 12636), 5: (6313, 12738), 7: (7293, 12542), 9: (6958, 12609)}
    least = {digit: least_auprc(*pair) for digit, pair in counts.items()}
    assert [round(value, 2) for value in least.values()] == [0.23, 0.20, 0.19, 0.21, 0.20]
    assert least[1] > 0.063
    assert least[7] > 0.148
    assert least[9] > 0.104


def test_without_positive_images_there_is_none() -> None:
    """One sentence of our own, not a number and not numpy's exception."""
    with pytest.raises(UserError):
        least_auprc(0, 3)
