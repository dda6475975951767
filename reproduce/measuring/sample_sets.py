"""Images and latents of each source of a trained model, drawn on first use and kept in files of the run."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jlebm import sampling
from jlebm.choices import Prior
from jlebm.progress import Reporter
from jlebm.sampling import SampleFiles
from reproduce.presets.extents import PRIORS

NUMBERS = 2**30  # most latents of one source that are stored: 4 GiB
LATENTS = 10_000  # most images of each side in the two-sample test


@dataclass(frozen=True)
class Draw:
    """Samples of one source, drawn in batches."""

    batches: Callable[[], Iterator[sampling.Samples]]
    count: int


class SampleSets:
    """Samples of each source, drawn on first use."""

    def __init__(self, draws: Mapping[str, Draw], folder: Path, report: Reporter, latents: int = LATENTS):
        self.draws, self.folder, self.report, self.latents = draws, folder, report, latents
        self.files: dict[str, SampleFiles] = {}
        self.seconds: dict[str, float] = {}

    @property
    def priors(self) -> tuple[Prior, ...]:
        """Priors of the model; a twin without energies has only the Gaussian one."""
        return tuple(prior for prior in PRIORS if prior in self.draws)

    def count(self, source: str) -> int:
        """Return the number of images of a source."""
        return self.draws[source].count

    @property
    def paths(self) -> list[Path]:
        """Files of all sources' images and latents."""
        names = [name for source in self.draws for name in (f"{source}.npy", f"{source}-latents.npy")]
        return [self.folder / name for name in names]

    def draw_all(self) -> None:
        """Draw every source."""
        for source in self.draws:
            _ = self[source]

    def __getitem__(self, source: str) -> SampleFiles:
        """Return the images and latents of a source."""
        if source not in self.files:
            started = time.monotonic()
            draw, path = self.draws[source], self.folder / f"{source}.npy"
            self.files[source] = sampling.write(
                path, draw.batches(), draw.count, self.report, name=f"sampling {source}", latents=self.latents
            )
            self.seconds[source] = time.monotonic() - started
        return self.files[source]


def latents_kept(dimensions: int) -> int:
    """Return the number of samples whose latents are stored: fewer for a deep hierarchy with millions per image."""
    return min(LATENTS, NUMBERS // dimensions)


def posterior_indices(total: int, count: int) -> list[int]:
    """Choose evenly spaced training images, between those of the reference if neither takes all.

    As far as possible, a decoded posterior sample is then not compared with its own image. Beyond `total`, number i is
    another posterior sample of image i - `total`.
    """
    rounds, rest = divmod(count, total)
    whole = rounds * total
    return [*range(whole), *(whole + (2 * index + 1) * total // (2 * rest) for index in range(rest))]
