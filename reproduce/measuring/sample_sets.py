"""Images and latents of each source of a trained model: drawn on first use, kept in files of the run, used again."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jlebm import sampling
from jlebm.choices import Prior
from jlebm.engines import parallel
from jlebm.files import write_text
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
    """Samples of each source, drawn on first use.

    Args:
        draws: how each source is drawn.
        folder: of the files.
        report: receives the progress.
        latents: number of samples whose latents are stored.
        made: what the samples follow from besides (`Rows.made`); files that say the same of themselves are used again.
            None draws anew.
    """

    def __init__(
        self,
        draws: Mapping[str, Draw],
        folder: Path,
        report: Reporter,
        latents: int = LATENTS,
        made: Mapping[str, Any] | None = None,
    ):
        self.draws, self.folder, self.report, self.latents, self.made = draws, folder, report, latents, made
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
            draw, path = self.draws[source], self.folder / f"{source}.npy"
            told, of = self.folder / f"{source}.json", {"count": draw.count, "latents": self.latents, "made": self.made}
            seconds = parallel.agreed(None if self.made is None else _seconds_of(told, of))
            if seconds is not None and path.exists() and sampling.latents_path(path).exists():
                self.report.line(f"{path} was drawn before")
                self.files[source] = sampling.open_files(path)
            else:
                if parallel.first():
                    told.unlink(missing_ok=True)  # from here on it would be of other samples
                started = time.monotonic()
                self.files[source] = sampling.write(
                    path, draw.batches(), draw.count, self.report, name=f"sampling {source}", latents=self.latents
                )
                seconds = time.monotonic() - started
                if parallel.first() and self.made is not None:
                    write_text(told, json.dumps({**of, "seconds": seconds}) + "\n")
            self.seconds[source] = seconds
        return self.files[source]


def _seconds_of(told: Path, of: Mapping[str, Any]) -> float | None:
    """Return how long the stored samples took, if they are the ones asked for; else None."""
    try:
        stored = json.loads(told.read_text(encoding="utf-8"))
        seconds = stored.pop("seconds")
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return seconds if stored == of and isinstance(seconds, float) else None


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
