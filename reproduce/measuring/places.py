"""Folders of a command, checked before hours of work: written to and read from."""

import fnmatch
import math
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from jlebm.engines import parallel
from jlebm.errors import UserError
from jlebm.folders import try_folder
from reproduce import results
from reproduce.results import rows


def try_places(folder: Path, runs: Path | None = None, artifacts: bool = False) -> None:
    """Create the folders that a command writes to, write and delete a file in each, and read the stored rows.

    Args:
        folder: the results folder; a new one has no expectations and no reported values.
        runs: the folder of the runs, if one is opened.
        artifacts: whether the command keeps arrays for the repository's figures.

    Raises:
        UserError: a folder cannot be written or has no locks, or a stored file cannot be read.
    """

    def attempt() -> None:
        rows.hold(folder / "measured").release()
        for one in (runs, folder / "measured", folder / "artifacts" if artifacts else None):
            if one is not None:
                try_folder(one)
        results.read_all(folder / "measured")
        results.expected_of(folder)
        results.paper_of(folder)

    parallel.after_first(lambda: attempt() if parallel.first() else None)


def refuse_what_does_not_fit(images: int, shape: Sequence[int], sets: int, runs: Path) -> None:
    """Check, before anything is trained, that the disk has room for the images to be sampled.

    Args:
        images: number in each set, as --images asks.
        shape: channels, height and width of an image, one byte each.
        sets: number of sets that are stored: each source of each seed.
        runs: the folder they go into; images of earlier calls there count as free space.

    Raises:
        UserError: the disk is too small.
    """
    there = next((folder for folder in (runs, *runs.absolute().parents) if folder.is_dir()), None)
    if there is None:
        return
    needed, free = images * math.prod(shape) * sets, shutil.disk_usage(there).free
    if needed > free and needed > free + _taken_by_images(runs):
        raise UserError(
            f"--images {images} takes {needed / 1e9:,.3g} GB in all, and {runs} has {free / 1e9:,.3g} GB free; ask for "
            "fewer, or name --runs on a larger disk"
        )


def _taken_by_images(runs: Path) -> int:
    """Return the bytes of the arrays below a folder; what another process removes meanwhile takes none."""
    taken = 0
    for folder, _, names in os.walk(runs):
        for name in fnmatch.filter(names, "*.npy"):
            with suppress(OSError):
                taken += Path(folder, name).stat().st_size
    return taken
