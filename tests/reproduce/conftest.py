"""The shared fixtures that these tests use."""

from tests.inception import partial_weights, random_state, small_inception, small_statistics
from tests.rows import row

__all__ = ["partial_weights", "random_state", "row", "small_inception", "small_statistics"]
