"""The named choices of a configuration that need no torch to be listed: which prior, which drift."""

from typing import Literal

Prior = Literal["ebm-prior", "gaussian-prior"]
"""Which prior images are drawn from: the joint EBM prior, or the Gaussian hierarchy alone."""
Drift = Literal["exact", "released"]
"""Drift of a chain in whitened noise: exact, or that of the public code (docs/facts, "Whitened noise")."""
