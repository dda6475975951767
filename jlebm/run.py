"""A run's folder: configuration, events, checkpoint, artifacts; one process at a time."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import Timeout

from jlebm.engines import parallel
from jlebm.errors import UserError
from jlebm.files import append_line, read_bytes, sweep, try_append, write_text
from jlebm.folders import locked, try_folder
from jlebm.learning.trainable import Trainable

DIGESTED, DIGESTED_BYTES = 10_000, 2**28  # of a run's images are read: enough to tell data sets apart, at once


@dataclass(frozen=True)
class Run:
    """One seed of one experiment, and its folder."""

    folder: Path
    experiment: Trainable
    seed: int

    @property
    def checkpoint(self) -> Path:
        """The path of the newest checkpoint."""
        return self.folder / "checkpoint.pt"

    @property
    def weights(self) -> Path:
        """The path of the trained weights, which exists once training has ended."""
        return self.folder / "weights.safetensors"

    def header(self) -> dict[str, Any]:
        """Return the configuration, digest and seed that identify the run."""
        return {"config": self.experiment.to_json(), "digest": self.experiment.digest(), "seed": self.seed}

    def check_images(self, images: Any) -> None:
        """Refuse what the model is not for, and other images than the run was begun with, whose digest is kept.

        The digest is of evenly spaced images, about `DIGESTED` or `DIGESTED_BYTES` of them, and of their number.

        Raises:
            UserError: it is no array of uint8 of the model's shape, or the run was begun with other images.
        """
        shape = self.experiment.model.image_shape
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
            found = getattr(images, "dtype", type(images).__name__)
            raise UserError(f"images must be a numpy array of uint8, 0 to 255, of shape (N, C, H, W), not of {found}")
        if images.shape[1:] != shape:
            raise UserError(f"the model is for images of {shape}, the dataset's are {images.shape[1:]}")
        chosen = images[:: max(1, len(images) // DIGESTED, images.nbytes // DIGESTED_BYTES)]
        digest = hashlib.sha256(repr(images.shape).encode() + chosen.tobytes()).hexdigest()
        advice = "give these another dataset name, which tells their runs apart, or choose another --runs"
        self.record("images.sha256", digest, f"{self.folder} was trained on other images; {advice}")

    def record(self, name: str, digest: str, otherwise: str) -> None:
        """Record the digest of what the run is trained on in its folder, once; refuse another one later.

        Raises:
            UserError: another digest was recorded, said as `otherwise`.
        """
        path = self.folder / name
        if not os.path.lexists(path):
            write_text(path, digest + "\n")
        elif read_bytes(path).strip() != digest.encode():
            raise UserError(otherwise)

    def append_event(self, event: dict[str, Any]) -> None:
        """Append an event to events.jsonl; a last line that a crash cut short is removed.

        Raises:
            UserError: the file cannot be written.
        """
        append_line(self.folder / "events.jsonl", json.dumps(event))

    def events(self) -> list[dict[str, Any]]:
        """Read all events; a last line that a crash cut short is left out.

        Raises:
            UserError: the file cannot be read, or another line of it is damaged.
        """
        return read_events(self.folder)

    def forget_after(self, step: int) -> None:
        """Drop the events of steps that a resumed training will repeat."""
        kept = [json.dumps(event) + "\n" for event in self.events() if event["step"] <= step]
        write_text(self.folder / "events.jsonl", "".join(kept))


@contextmanager
def open_run(root: str | os.PathLike[str], experiment: Trainable, seed: int) -> Iterator[Run]:
    """Open and lock the folder of this experiment and seed under `root`, new or as an earlier process left it.

    Of several processes that share the work, the first one holds the lock for all.

    Raises:
        UserError: a value of the experiment has another type than its field, its dataset or preset is no name of a
            folder, or the seed is no whole number from 0 up; another process holds the folder, it cannot be written or
            has no locks, or its config.json is damaged or belongs to another experiment.
    """
    type(experiment).from_json(experiment.to_json())  # which refuses a value of another type than its field
    for field in ("dataset", "preset"):
        given = getattr(experiment, field)
        if not given or given.startswith(".") or set(given) & set("/\\\0"):
            raise UserError(f"{field} {given!r} is a part of the name of the run's folder; give it a plain name")
    if type(seed) is not int or seed < 0:
        raise UserError(f"the seed must be a whole number from 0 up, not {seed!r}")
    name = f"{experiment.dataset}-{experiment.learning}-{experiment.preset}-{experiment.digest()[:10]}-seed{seed}"
    run = Run(Path(root) / name, experiment, seed)
    with ExitStack() as stack:
        parallel.after_first(lambda: _hold(run, stack if parallel.first() else None))
        yield run
        parallel.barrier()


def _hold(run: Run, stack: ExitStack | None) -> None:
    """Create the folder and check that it is this run's; lock it until `stack` closes, if there is one."""
    try_folder(run.folder)
    if stack is not None:
        try:
            lock = locked(run.folder / "lock", "choose --runs on another one", wait=False)
        except Timeout as error:
            message = f"another process is working in {run.folder}; wait for it or choose another --runs"
            raise UserError(message) from error
        stack.callback(lock.release)
        # Remove what a killed process left half-written; check that this one can write before it works.
        for folder in (run.folder, *(each for each in run.folder.rglob("*") if each.is_dir())):
            try_folder(folder)
            sweep(folder, older_than=0.0)
        try_append(run.folder / "events.jsonl")
    config = run.folder / "config.json"
    if not os.path.lexists(config):
        write_text(config, json.dumps(run.header(), indent=1) + "\n")
    elif read_header(run.folder) != run.header():
        raise UserError(f"{config} belongs to another experiment or seed; choose another --runs")


def read_header(folder: Path) -> dict[str, Any]:
    """Return the configuration, digest and seed in the config.json of a run's folder.

    Raises:
        UserError: the file is missing, cannot be read, or is empty or damaged.
    """
    path = folder / "config.json"
    try:
        header = json.loads(read_bytes(path))
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or set(header) != {"config", "digest", "seed"}:
        raise UserError(f"{path} is empty or damaged; remove it and run the same command again, which writes it")
    return header


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Return the events of a run's folder; a last line that a crash cut short is left out.

    Raises:
        UserError: the file cannot be read, or another line of it is damaged.
    """
    path = folder / "events.jsonl"
    # Line by line: a crash may leave bytes after the last line that are not UTF-8.
    lines = read_bytes(path).split(b"\n")[:-1] if os.path.lexists(path) else []
    return [_event(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]


def _event(line: bytes, where: str) -> dict[str, Any]:
    try:
        event = json.loads(line.decode())
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict) or type(event.get("step")) is not int:
        raise UserError(f"{where}: this event is damaged; remove the line, and the curves go on without it")
    return event
