import numpy as np
import torch

from jlebm.evaluation.moments import Half, Moments


def test_moments_in_batches_are_numpys_mean_and_covariance() -> None:
    """Breaks if a batch that begins at an odd index goes to the wrong halves, or a sum loses precision."""
    rows = np.random.default_rng(0).normal(3, 1, (101, 5)).astype(np.float32)
    moments = Moments.zero(5, torch.device("cpu"))
    for first in range(0, 101, 9):
        moments.add(torch.from_numpy(rows[first : first + 9]), first)
    parts: list[tuple[Half | None, np.ndarray]] = [("even", rows[::2]), ("odd", rows[1::2]), (None, rows)]
    for half, chosen in parts:
        statistics = moments.statistics(half)
        np.testing.assert_allclose(statistics["mu"], chosen.mean(0, dtype=np.float64), rtol=1e-13)
        np.testing.assert_allclose(statistics["sigma"], np.cov(chosen.astype(np.float64), rowvar=False), atol=1e-12)
