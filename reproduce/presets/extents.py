"""Whose samples are measured, and how much is drawn for the figures."""

from dataclasses import dataclass

from jlebm.choices import Prior

SOURCES = ("gaussian-prior", "ebm-prior", "posterior")
PRIORS: tuple[Prior, ...] = ("gaussian-prior", "ebm-prior")


@dataclass(frozen=True)
class Length:
    """How long chains run, how many of them, and how often they are looked at."""

    steps: int
    every: int
    """Steps from one image to the next; the first is the start."""
    images: int
    """Kept of each chain."""
    chains: int
    """At one time, fewer where memory has room for fewer."""


SHORT = Length(steps=100, every=5, images=20, chains=100)
LONG = Length(steps=2_500, every=100, images=25, chains=20)


@dataclass(frozen=True)
class Extent:
    """How much is drawn for the figures of a hierarchy."""

    draws: int = 100
    """Of each panel of hierarchical sampling."""
    rows: int = 8
    """Images that are reconstructed."""
    short: Length = SHORT
    long: Length = LONG


WHOLE = Extent()
# Of a first look: pictures of the same kinds in seconds.
FIRST_LOOK = Extent(10, 4, Length(20, 1, 20, 10), Length(100, 4, 25, 10))
