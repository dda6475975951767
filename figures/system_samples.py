"""The first samples of the systems of Table 2 on one sheet per dataset and preset, in the table's order."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from figures.common import Artifact, Drawing, folder_for, require
from figures.exploring import Exploration
from figures.means import mean_of
from figures.plotting import image_rows, save
from jlebm.errors import UserError, exit_on_user_error
from reproduce.results import Measurement, read_all, read_artifact
from reproduce.results.default_folder import RESULTS
from reproduce.results.table_lines import BASELINES, SYSTEMS, System
from reproduce.terminal.parsing import parse

DRAWING = Drawing("samples", "the first samples of the other systems", ("samples",), ("system",))
TWO_PRIORS = Drawing("samples", "samples", ("gaussian_prior", "ebm_prior"), ("two-stage",))
SHOWN = 12  # images of each system


def explore(artifact: Artifact, results: Path) -> list[Exploration]:
    """Return the first samples of a system.

    Raises:
        UserError: the artifact is damaged or of another run, or its arrays are not images.
    """
    arrays, path = artifact.load(results), artifact.path(results)
    images = require(path, arrays["samples"], 4, np.uint8, "samples: uint8 (N, C, H, W)", channels=1)
    return [Exploration("Samples, the first ones, uncurated", pictures={"samples": images[None]}, columns=8)]


def draw_sheets(results: Path, out: Path) -> list[Path]:
    """Draw the first samples of the systems on one sheet per dataset and preset, in the table's order.

    Those of the two-stage model, which share its lines of the table, stand first where they are stored. Returns the
    files written.

    Raises:
        UserError: an artifact is damaged or of another run, its arrays are not images, or the table has no such system.
    """
    measured, written = read_all(results / "measured"), []
    sheets: dict[tuple[str, str], dict[str, tuple[Path, dict[str, np.ndarray]]]] = {}
    for artifact in (*DRAWING.stored(results), *TWO_PRIORS.stored(results)):
        path = artifact.path(results)
        arrays, made = read_artifact(path, artifact.arrays, measured)
        if artifact.arrays == DRAWING.arrays and made["learning"] not in {system.name for system in BASELINES}:
            raise UserError(f"{path} is of {made['learning']!r}, which is no system of the table; remove it")
        sheets.setdefault((made["dataset"], made["preset"]), {})[made["learning"]] = path, arrays
    for (dataset, preset), found in sheets.items():
        rows = {}
        for system in SYSTEMS if any(system.name in found for system in BASELINES) else ():
            if system.learning in found:
                (path, arrays), name = found[system.learning], system.source.replace("-", "_")
                images = require(path, arrays[name], 4, np.uint8, f"{name}: uint8 (N, 3, H, W)", channels=1)
                rows[_label(system, dataset, preset, measured)] = images[:SHOWN]
        if rows:
            written += save(image_rows(rows, SHOWN), out / f"{dataset}_{preset}_systems".replace("-", "_"))
    return written


def _label(system: System, dataset: str, preset: str, measured: list[Measurement]) -> str:
    asked = {"dataset": dataset, "preset": preset, "learning": system.learning}
    mean = mean_of(measured, "fid768", system.source, **asked)
    score = "not measured" if mean is None else f"fid768 {mean.value:.2f}"
    return f"{system.title.partition(':')[0]}\n{score}"


@dataclass(frozen=True)
class Arguments:
    """Draw the sheets of the systems' first samples."""

    out: Path | None = None
    """Output folder; by default build/figures."""
    results: Path = RESULTS
    """The folder with artifacts/ and measured/."""


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> int:
    """Draw the sheets and print the files written; return the exit code."""
    arguments = parse(Arguments, argv, __doc__)
    written = draw_sheets(arguments.results, folder_for(arguments.out))
    sys.stdout.writelines(f"{line}\n" for line in written or [DRAWING.nothing(arguments.results)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
