"""A run's folder: configuration, events, checkpoint, artifacts; one process at a time."""

import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout

from jlebm.devices import versions_of, why_no_gpu
from jlebm.engines import parallel
from jlebm.engines.precision import full_float32
from jlebm.errors import UserError
from jlebm.files import append_line, read_bytes, sweep, try_append, write_text
from jlebm.folders import locked, try_folder
from jlebm.learning.trainable import Trainable


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
def open_run(root: Path, experiment: Trainable, seed: int) -> Iterator[Run]:
    """Open and lock the folder of this experiment and seed under `root`, new or as an earlier process left it.

    Of several processes that share the work, the first one holds the lock for all.

    Raises:
        UserError: another process holds the folder, it cannot be written or has no locks, or its config.json is damaged
            or belongs to another experiment.
    """
    name = f"{experiment.dataset}-{experiment.learning}-{experiment.preset}-{experiment.digest()[:10]}-seed{seed}"
    run = Run(root / name, experiment, seed)
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


def resolve_device(name: str) -> torch.device:
    """Return the device named "auto", "cpu", "cuda" or "cuda:1"; on CUDA, set all arithmetic to full float32, TF32 off.

    Under torchrun each process of a machine takes its own GPU, or the one that CUDA_VISIBLE_DEVICES shows it.

    Raises:
        UserError: the name is unknown, or there is no such device.
    """
    if name == "mps":
        raise UserError("Apple's GPUs have no float64, in which densities and metrics are summed up; use --device cpu")
    numbered = re.fullmatch(r"cuda:(\d{1,3})", name)
    if name not in ("auto", "cpu", "cuda") and numbered is None:
        raise UserError(f"unknown device {name!r}; known are: auto, cpu, cuda, cuda:1 (the second GPU) and so on")
    if name not in ("auto", "cpu") and not torch.cuda.is_available():
        why = why_no_gpu() or "torch finds no CUDA device here"
        raise UserError(f"--device {name} was asked for, but {why}; use --device cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    full_float32()
    count, index = torch.cuda.device_count(), None if numbered is None else int(numbered[1])
    if "LOCAL_RANK" in os.environ:
        if index is not None:
            raise UserError(f"under torchrun each process takes its own GPU; say --device cuda, not {name}")
        alone = count == 1 and "," not in os.environ.get("CUDA_VISIBLE_DEVICES", ",")
        index = 0 if alone else parallel.local_rank()
        if index >= count:
            raise UserError(f"there are {count} GPUs here; start no more processes than that")
    if index is None:
        return torch.device("cuda")
    if index >= count:
        raise UserError(f"--device {name} was asked for, and the GPUs here are cuda:0 to cuda:{count - 1}")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def device_class(device: torch.device) -> str:
    """Return the device class that machines must share to give the same numbers: "cpu-avx2", "cuda-NVIDIA H200"."""
    if device.type == "cuda":
        return f"cuda-{torch.cuda.get_device_name(device)}"
    return f"cpu-{torch.backends.cpu.get_cpu_capability().lower()}"


def provenance(device: torch.device) -> dict[str, Any]:
    """Return commit, whether the tree was dirty, device class and versions: the provenance of a row."""
    packages = ("torch", "torchvision", "torch-fidelity", "numpy", "scikit-learn")
    versions = {name: importlib.metadata.version(name) for name in packages}
    commit = _git("rev-parse", "HEAD")
    return {
        "commit": commit or "unknown",
        "dirty": not commit or bool(_git("status", "--porcelain", "--", "jlebm", "reproduce", "constraints.txt")),
        "device": device_class(device),
        "versions": {"python": platform.python_version(), **versions, **versions_of(device)},
    }


def _git(*arguments: str) -> str:
    """Run git on the checkout that holds this file; "" if there is none."""
    checkout = Path(__file__).parents[1]
    if not (checkout / ".git").exists():
        return ""
    try:
        answer = subprocess.run(["git", *arguments], cwd=checkout, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return answer.stdout.strip()
