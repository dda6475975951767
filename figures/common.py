"""Shared by the figure scripts: artifacts, the kinds of figures, and the command line."""

import functools
import json
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jlebm.errors import UserError, exit_on_user_error
from jlebm.files import files_in, open_regular
from reproduce.results import Measurement, read_all, read_artifact
from reproduce.results.default_folder import RESULTS
from reproduce.results.identity import TABLE, Identity, recipe_of
from reproduce.terminal.parsing import parse

ROOT = Path(__file__).resolve().parents[1]
NAMED = ("protocol", "dataset", "preset", "learning")  # in a run's configuration


@dataclass(frozen=True)
class Artifact:
    """A stored npz file with the arrays of a figure."""

    name: str
    arrays: tuple[str, ...]

    @property
    def again(self) -> str:
        """Description of how to make it again."""
        return "make it again with its recipe"

    def path(self, results: Path) -> Path:
        """Return its path in a results folder."""
        return results / "artifacts" / f"{self.name}.npz"

    def load(self, results: Path) -> dict[str, np.ndarray]:
        """Return its arrays.

        Raises:
            UserError: the file is damaged, or its provenance does not fit its arrays or the stored rows.
        """
        arrays, _ = read_artifact(self.path(results), self.arrays, stored_rows(results / "measured"))
        return arrays


@dataclass(frozen=True)
class OfRun(Artifact):
    """An artifact in the folder of a run, or of one set of its samples, which must belong to the run."""

    command: str
    """Command that makes it."""
    folder: Path
    digest: str
    """Digest in the run's config.json."""
    seed: int
    """Seed of the run's training."""

    @property
    def again(self) -> str:
        """Description of how to make it again."""
        return f"make it again with `{self.command}`"

    def path(self, results: Path) -> Path:
        """Return its path, independent of the results folder."""
        return self.folder / f"{self.name}.npz"

    def load(self, results: Path) -> dict[str, np.ndarray]:
        """Return its arrays.

        The provenance has `run_digest` and `run_seed` if the rows, of samples of the run's weights, have another
        configuration or seed.

        Raises:
            UserError: the file is damaged, or belongs to another run.
        """
        arrays, made = read_artifact(self.path(results), self.arrays, [])
        digest, seed = made.get("run_digest", made["config_digest"]), made.get("run_seed", made["seed"])
        if (digest, seed) != (self.digest, self.seed):
            raise UserError(
                f"{self.path(results)} is of configuration {str(digest)[:12]}, seed {seed}, and the run is of "
                f"{self.digest[:12]}, seed {self.seed}; {self.again}"
            )
        return arrays


@dataclass(frozen=True)
class Drawing:
    """One kind of figure: its artifact, the arrays in it, and the models that have one."""

    kind: str
    """Name of its file in a run's folder, without .npz, with a star if a run may have several; in the results folder
    the run's name precedes it."""
    title: str
    arrays: tuple[str, ...]
    models: tuple[str, ...]
    layers: int = 1
    """Fewest layers of the model."""
    command: str = ""
    """Command that makes the artifact, if the recipe does not."""
    option: str = ""
    """Option without which the recipe does not make it."""

    def stored(self, results: Path) -> list[Artifact]:
        """Return the artifacts of this kind in a results folder, by name and arrays.

        Raises:
            UserError: an artifact of that name is damaged, or cannot be read.
        """
        paths = files_in(results / "artifacts", f"*_{self.kind}.npz")
        return [Artifact(path.stem, self.arrays) for path in paths if set(self.arrays) <= array_names(path)]

    def lying_in(self, folder: Path) -> list["OfRun"]:
        """Return the artifacts of this kind in a run's folder, or that of a set of its samples; none is no error.

        Raises:
            UserError: one of that name is damaged, or it is no run's folder.
        """
        paths = [path for path in folder.glob(f"{self.kind}.npz") if set(self.arrays) <= array_names(path)]
        return self.of_run(folder) if paths and _model(header_of(folder)["config"]) in self.models else []

    def nothing(self, results: Path) -> str:
        """Return the sentence for a results folder without such an artifact, with what makes one."""
        made = f"`{self.command}`" if self.command else "a recipe's full preset"
        made += f" with `{self.option}`" if self.option else ""
        return f"not drawn: {self.title}: {results / 'artifacts'} holds no *_{self.kind}.npz; {made} leaves one there"

    def of_run(self, folder: Path) -> list[OfRun]:
        """Return the artifacts of this kind in a run's folder.

        Raises:
            UserError: it is no run's folder, its model has no such figure or too few layers, or nothing is there.
        """
        header = header_of(folder)
        config, model = header["config"], _model(header["config"])
        if model not in self.models:
            raise UserError(
                f"{folder} is a run of the model {model!r}, and {self.title} is drawn of: {', '.join(self.models)}; "
                "give such a run"
            )
        layers = _layers(config, model)
        if layers < self.layers:
            raise UserError(
                f"the model of {folder} has {layers} layer{'s' * (layers != 1)}, and {self.title} needs at least "
                f"{self.layers}; give a run of more"
            )
        command = " ".join(filter(None, (self.command or _recipe(config), self.option)))
        paths = sorted(folder.glob(f"{self.kind}.npz"))
        if not paths:
            sets = sorted({str(one.parent) for one in folder.glob(f"*/{self.kind}.npz")})
            there = f"but its sets of samples have one, give one of: {', '.join(sets)}" if sets else ""
            raise UserError(f"{folder / self.kind}.npz does not exist; {there or f'`{command}` makes it'}")
        return [OfRun(path.stem, self.arrays, command, folder, header["digest"], header["seed"]) for path in paths]


def stored_rows(folder: Path) -> tuple[Measurement, ...]:
    """Return the measured rows of a folder, read once for all artifacts while its files stay as they are.

    Raises:
        UserError: as in `read_all`.
    """
    if not folder.is_dir():
        return ()
    files = (path for path in sorted(folder.iterdir()) if path.suffix == ".jsonl")
    return _rows_at(folder, tuple((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in files))


@functools.lru_cache(maxsize=2)
def _rows_at(folder: Path, state: tuple[tuple[str, int, int], ...]) -> tuple[Measurement, ...]:
    """Read the rows of files in this state."""
    return tuple(read_all(folder))


@dataclass(frozen=True)
class Arguments:
    """Draw one kind of figure, for every stored artifact or for one run."""

    run: Path | None = None
    """The folder of a run, or of a set of its samples; by default every stored artifact is drawn."""
    out: Path | None = None
    """Output folder; by default the run's folder, or build/figures."""
    results: Path = RESULTS
    """The folder with artifacts/ and measured/."""


Draw = Callable[[Artifact, Path, Path], list[Path]]


@exit_on_user_error
def main(drawing: Drawing, draw: Draw, argv: Sequence[str] | None = None) -> int:
    """Draw one kind of figure and print the files written; return the exit code."""
    arguments = parse(Arguments, argv, f"Draw {drawing.title}.")
    artifacts = drawing.stored(arguments.results) if arguments.run is None else drawing.of_run(arguments.run)
    out = folder_for(arguments.out or arguments.run)
    written = [path for artifact in artifacts for path in draw(artifact, arguments.results, out)]
    lines = written or [drawing.nothing(arguments.results)]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0


def folder_for(out: Path | None) -> Path:
    """Return the output folder, by default build/figures.

    Raises:
        UserError: it is a file.
    """
    if out is not None and out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give a folder")
    return out or ROOT / "build" / "figures"


def array_names(path: Path) -> set[str]:
    """Return the names of the arrays in an npz file without reading them.

    Raises:
        UserError: it is damaged, or may not be read.
    """
    try:
        with open_regular(path, "artifact") as file, zipfile.ZipFile(file) as stored:
            return {name.removesuffix(".npy") for name in stored.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a whole artifact with its provenance ({error}); restore it") from error


def require(
    path: Path, array: np.ndarray, ndim: int, dtype: type[np.generic], meaning: str, channels: int | None = None
) -> np.ndarray:
    """Return the array if it has `ndim` axes, the dtype, and 1 or 3 entries along the axis `channels`.

    Raises:
        UserError: it does not, or is empty; `meaning` describes the expected array.
    """
    fits = array.ndim == ndim and np.issubdtype(array.dtype, dtype) and array.size > 0
    if not fits or (channels is not None and array.shape[channels] not in (1, 3)):
        raise UserError(f"{path} holds an array of shape {array.shape} and type {array.dtype}, and not {meaning}")
    return array


def sentences(arrays: dict[str, np.ndarray], name: str) -> list[str]:
    """Return the texts in an artifact's array; empty if it has no such array."""
    return [str(text) for text in np.atleast_1d(arrays[name])] if name in arrays else []


def scale_for(size: int) -> int:
    """Return the number of figure pixels per image pixel, so that small images are drawn as large as others."""
    return max(1, 64 // size)


def header_of(folder: Path) -> dict[str, Any]:
    """Return the configuration, digest and seed of the run whose folder it is, or one of whose sets of samples.

    Raises:
        UserError: it is no run's folder, or its config.json is that of something else.
    """
    places = [place for place in (folder, folder.parent) if (place / "config.json").is_file()]
    if not places:
        raise UserError(f"{folder} is not the folder of a run: it has no config.json; give one, as runs/NAME")
    path = places[0] / "config.json"
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        config = header["config"]
        if all(name in header for name in ("digest", "seed")) and all(name in config for name in NAMED):
            _layers(config, _model(config))
            return header
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path} is not a run's configuration; give the folder of a run, as runs/NAME")


def _model(config: dict[str, Any]) -> str:
    """Return the kind of a run's model.

    In addition to the recipes' models: "backbone", the first stage of a two-stage model; "gaussian", a ladder's twin;
    "anomaly", a ladder trained without a digit; and "system", another system of Table 2.
    """
    recipe, _ = recipe_of(config["protocol"], config["learning"])
    if recipe in ("anomaly", TABLE):
        return "system" if recipe == TABLE else recipe
    if config["learning"] in ("two-stage", "backbone", "gaussian"):
        return config["learning"]
    shape = config["model"]  # a ladder without an inference network says so too
    return "two-layer" if "inference_network" in shape and "features" not in shape else "ladder"


def _recipe(config: dict[str, Any]) -> str:
    """Return the command that made a run."""
    recipe, model = recipe_of(config["protocol"], config["learning"])
    dataset = config["dataset"]
    return Identity(recipe, model, config["learning"], dataset, config["preset"]).command()


def _layers(config: dict[str, Any], model: str) -> int:
    if model == "system":
        return 1
    shape = config["model"]
    if "latent_dims" in shape:
        return len(shape["latent_dims"])
    if "groups" in shape:
        return sum(shape["groups"])
    return shape["num_latent_scales"] * shape["num_groups_per_scale"]
