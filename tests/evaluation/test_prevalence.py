"""AUPRC at another share of positive images: the least there is, exact reweighting, and the estimate for readers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from jlebm.errors import UserError
from jlebm.evaluation.prevalence import auprc_at_share, converted_auprc

RANDOM = np.random.default_rng(0)


def test_reweighting_is_repeating() -> None:
    """Breaks if weights did not stand for copies: every negative image three times is a smaller share."""
    positive, negative = RANDOM.normal(1, 1, 40), RANDOM.normal(0, 1, 60)
    labels = np.repeat((1, 0), (40, 180))
    whole = average_precision_score(labels, np.concatenate([positive, np.repeat(negative, 3)]))
    assert auprc_at_share(positive, negative, 40 / 220) == pytest.approx(whole, rel=1e-12)


def test_the_estimate_is_exact_for_normal_scores() -> None:
    """Breaks if the conversion is not that of two normal distributions: large samples of them follow it."""
    positive, negative = RANDOM.normal(1.5, 1, 200_000), RANDOM.normal(0, 1, 200_000)
    here, there = auprc_at_share(positive, negative, 0.1), auprc_at_share(positive, negative, 0.4)
    assert converted_auprc(here, 0.1, 0.4) == pytest.approx(there, abs=4e-3)


@pytest.mark.slow
@given(st.floats(0.05, 0.9), st.floats(0.05, 0.9), st.floats(-2.0, 3.0))
def test_there_and_back(share: float, other: float, distance: float) -> None:
    """Breaks if a conversion loses what the AUPRC says, or does not grow with it."""
    at = [converted_auprc(0.5, 0.5, share), converted_auprc(0.6, 0.5, share)]
    assert at[0] < at[1]
    assert converted_auprc(converted_auprc(at[0], share, other), other, share) == pytest.approx(at[0], abs=1e-4)
    assert converted_auprc(0.5, 0.5, share) == pytest.approx(share, abs=2e-3)  # chance stays chance


@pytest.mark.parametrize(
    "call",
    [
        lambda: converted_auprc(0.063, 0.388, 0.1),  # the VAE row's, where it cannot be
        lambda: converted_auprc(0.5, 0.0, 0.1),
        lambda: converted_auprc(0.5, 0.1, 1.0),
        lambda: auprc_at_share(np.zeros(0), np.zeros(3), 0.5),
        lambda: auprc_at_share(np.zeros(3), np.zeros(3), 1.5),
    ],
)
def test_what_cannot_be_is_refused(call) -> None:
    """One sentence of our own, not a number and not scipy's exception."""
    with pytest.raises(UserError):
        call()
