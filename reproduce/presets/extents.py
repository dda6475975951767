"""Size of a preset: which samples are measured, how many, and how much is drawn for the figures."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from jlebm.choices import Prior
from jlebm.errors import nearest
from reproduce.results.metrics import EBM, GAUSSIAN, POSTERIOR

SOURCES = (GAUSSIAN, EBM, POSTERIOR)
PRIORS: tuple[Prior, ...] = ("gaussian-prior", "ebm-prior")


def known_elsewhere(name: str, known: Collection[str], others: Mapping[str, Collection[str]]) -> str:
    """Return the end of a sentence about an unknown name: the options that know it, else the nearest one known here.

    Args:
        name: of a preset or the like.
        known: names without another option.
        others: names by the option that has them, "--model two-stage".
    """
    having = [option for option, names in others.items() if name in names]
    return f"; {' and '.join(having)} {'has' if len(having) == 1 else 'have'} it" if having else nearest(name, known)


@dataclass(frozen=True, kw_only=True)
class Size:
    """How a preset is measured: images, references, sources, and whether its arrays are kept."""

    images: int
    """Images sampled from each prior."""
    reference_images: int | None = None
    """Training images that the samples are compared with; None for all."""
    judged: tuple[str, ...] = SOURCES
    """Sources whose images go through Inception; the others are decoded and compared in latents only."""
    kept: bool = True
    """Whether the arrays of the first seed are kept in `results/artifacts`; false for a first look."""


@dataclass(frozen=True)
class Length:
    """Length and number of chains, and how often their images are stored."""

    steps: int
    every: int
    """Steps from one image to the next; the first is the start."""
    images: int
    """Images kept per chain."""
    chains: int
    """Chains run in parallel; fewer if memory is short."""


SHORT = Length(steps=100, every=5, images=20, chains=100)
LONG = Length(steps=2_500, every=100, images=25, chains=20)


@dataclass(frozen=True)
class Extent:
    """How much is drawn for the figures of a hierarchy."""

    draws: int = 100
    """Images per panel of hierarchical sampling."""
    rows: int = 8
    """Images that are reconstructed."""
    short: Length = SHORT
    long: Length = LONG


WHOLE = Extent()
# For a first look: the same kinds of pictures in seconds.
FIRST_LOOK = Extent(10, 4, Length(20, 1, 20, 10), Length(100, 4, 25, 10))
