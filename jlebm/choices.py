"""The named choices of a configuration that need no torch to be listed: which prior, which drift, which noise."""

from typing import Literal

Prior = Literal["ebm-prior", "gaussian-prior"]
"""Which prior images are drawn from: the joint EBM prior, or the Gaussian hierarchy alone."""
Drift = Literal["exact", "released"]
"""Drift of a chain in whitened noise: exact, or that of the public code (docs/facts, "Whitened noise")."""
Scheme = Literal["generator/1", "philox/1"]
"""How the noise of an image is made: by one torch generator per image on the CPU, or on the device itself from counters
(`jlebm.philox`). docs/noise says when to take which."""
GENERATOR: Scheme = "generator/1"
