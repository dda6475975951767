"""Explorations of artifacts as JSON: pictures as small images inside the page, curves as numbers."""

import base64
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from figures.common import Artifact
from figures.exploring import Curve, Exploration, Plot, training_plots
from figures.plotting.grids import GAP, tile
from figures.registry import Figure
from figures.report.contents import Contents, Shown, provenance_of
from reproduce.results import read_golden
from reproduce.results.default_folder import naming
from reproduce.results.identity import Identity, recipe_of

LARGE = 48  # pixels of a side from which an image is written lossily: smaller ones show every pixel as a square
QUALITY = 88
EFFORT = 30  # effort of lossless compression; more takes ten times as long for a twentieth of the bytes
DIGITS = 5  # digits of a curve's values


def gallery(contents: Contents) -> list[dict[str, Any]]:
    """Return what is seen of every artifact, with the run that made it.

    Raises:
        UserError: an artifact is damaged, or is not what its figure is made of.
    """
    found = []
    for shown in contents.artifacts:
        made = provenance_of(shown, contents.results)
        for one in _explored(shown.figure, shown.artifact, contents.results):
            found.append(_about(shown, made, contents.results) | _encoded(one))
    return [*found, *(golden for path in contents.golden for golden in _golden(path))]


def _golden(path: Path) -> list[dict[str, Any]]:
    """Return the curves of a tiny run on each class of device, a value for each record."""
    found = []
    for device, curves in read_golden(path).items():
        arrays = {name: np.array([np.arange(1, len(values) + 1), values]) for name, values in curves.items()}
        one = Exploration("Training curves of a tiny run", plots=tuple(training_plots(arrays, "record")))
        about = {
            "artifact": path.stem,
            "kind": "golden curves of tiny runs",
            "of": path.stem.replace("-", " "),
            "made": [("file", f"golden/{path.name}"), ("device", device)],
            "digest": "",
            "command": "nox -s regression",
        }
        found.append(about | _encoded(one))
    return found


def _explored(figure: Figure, artifact: Artifact, results: Path) -> Sequence[Exploration]:
    """Return what a reader moves through, or where a figure has no such thing its drawing."""
    if figure.explore is not None:
        return figure.explore(artifact, results)
    drawn = []
    with tempfile.TemporaryDirectory() as folder:
        for path in figure.draw(artifact, results, Path(folder)) if figure.draw is not None else ():
            if path.suffix == ".png":
                with Image.open(path) as image:
                    pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
                drawn.append(Exploration(figure.drawing.title, pictures={path.stem: pixels[None, None]}, columns=1))
    return drawn


def _about(shown: Shown, made: dict[str, Any], results: Path) -> dict[str, Any]:
    protocol, learning, dataset = (str(made[name]) for name in ("protocol", "learning", "dataset"))
    recipe, model = recipe_of(protocol, learning)
    variation = made.get("variation", {})
    identity = Identity(recipe, model, learning, dataset, str(made["preset"]), variation, int(made["seed"]))
    told = [(name.replace("_", " "), str(value)) for name, value in sorted(made.items()) if value not in ("", {})]
    target = shown.artifact.name.rpartition("ood_")[2].replace("_", "-")
    command = identity.command(target=target, digest=str(made.get("run_digest", made["config_digest"])))
    return {
        "artifact": shown.artifact.name,
        "kind": shown.figure.drawing.title,
        "of": f"{dataset}, {identity.artifact}, {identity.label}",
        "made": told,
        "digest": str(made["config_digest"]),
        "command": naming(results, command),
    }


def _encoded(one: Exploration) -> dict[str, Any]:
    return {
        "title": one.title,
        "slider": one.slider,
        "positions": one.positions,
        "pictures": [
            {
                "name": name,
                "smooth": positions.shape[-1] >= LARGE,
                "frames": [image_url(images, one.columns) for images in positions],
            }
            | dict(zip(("width", "height"), _size(positions[0], one.columns), strict=True))
            for name, positions in one.pictures.items()
        ],
        "plots": [_plot(plot) for plot in one.plots],
        "plotAt": [_plot(plot) for plot in one.plot_at],
        "marks": one.marks,
        "notes": one.notes,
    }


def _plot(plot: Plot) -> dict[str, Any]:
    return {
        "title": plot.title,
        "across": plot.across,
        "gap": plot.gap,
        "steps": plot.steps,
        "curves": [_curve(curve) for curve in plot.curves],
    }


def _curve(curve: Curve) -> dict[str, Any]:
    made = {"label": curve.label, "x": _rounded(curve.x), "y": _rounded(curve.y)}
    return made if curve.band is None else made | {"band": _rounded(curve.band)}


def _rounded(values: np.ndarray) -> list[float | None]:
    """Return numbers with few digits; None, a gap in the curve, for what is not finite."""
    return [float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None for value in np.asarray(values, np.float64)]


def image_url(images: UInt8[np.ndarray, "images c h w"], columns: int) -> str:
    """Return images side by side as a data URL of one WebP file: without loss where they are small."""
    file = io.BytesIO()
    lossless = images.shape[-1] < LARGE
    picture = Image.fromarray(_grid(images, columns))
    picture.save(file, "WEBP", lossless=lossless, quality=EFFORT if lossless else QUALITY, method=2)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def _size(images: UInt8[np.ndarray, "images c h w"], columns: int) -> tuple[int, int]:
    tall, wide = _grid(images, columns).shape[:2]
    return wide, tall


def _grid(images: UInt8[np.ndarray, "images c h w"], columns: int) -> np.ndarray:
    """Return images side by side, what lies between them is transparent."""
    grid = tile(images, min(columns, len(images)))
    height, width = images.shape[-2:]
    inside = [np.arange(size) % (side + GAP) >= GAP for size, side in zip(grid.shape[:2], (height, width), strict=True)]
    if len(images) == 1:
        return grid
    opaque = np.where(np.outer(*inside), 255, 0).astype(np.uint8)
    return np.dstack([grid, opaque])[GAP:-GAP, GAP:-GAP]
