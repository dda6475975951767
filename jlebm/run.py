"""A run's folder: configuration, events, checkpoint, artifacts; one process at a time."""

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from jlebm.engines import parallel
from jlebm.errors import UserError
from jlebm.files import write_text
from jlebm.learning.trainable import Trainable


@dataclass(frozen=True)
class Run:
    """One seed of one experiment, and the folder where all of it lies."""

    folder: Path
    experiment: Trainable
    seed: int

    @property
    def checkpoint(self) -> Path:
        """Where the newest checkpoint lies."""
        return self.folder / "checkpoint.pt"

    @property
    def weights(self) -> Path:
        """Where the trained weights lie, once training has ended."""
        return self.folder / "weights.safetensors"

    def header(self) -> dict[str, Any]:
        """Return what identifies the run."""
        return {"config": self.experiment.to_json(), "digest": self.experiment.digest(), "seed": self.seed}

    def append_event(self, event: dict[str, Any]) -> None:
        """Add one line to events.jsonl, the record of what happened."""
        with (self.folder / "events.jsonl").open("a") as file:
            file.write(json.dumps(event) + "\n")

    def events(self) -> list[dict[str, Any]]:
        """Read all events; a last line that a crash cut short is left out."""
        path = self.folder / "events.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def forget_after(self, step: int) -> None:
        """Drop the events of steps that a resumed training is going to repeat."""
        kept = [json.dumps(event) + "\n" for event in self.events() if event["step"] <= step]
        write_text(self.folder / "events.jsonl", "".join(kept))


@contextmanager
def open_run(root: Path, experiment: Trainable, seed: int) -> Iterator[Run]:
    """Open the folder of this experiment and seed under `root`, new or as an earlier process left it, and hold it.

    Of several processes that share the work the first one holds it for all.

    Raises:
        UserError: another process holds the folder, or its config.json is of another experiment.
    """
    name = f"{experiment.dataset}-{experiment.learning}-{experiment.preset}-{experiment.digest()[:10]}-seed{seed}"
    run = Run(root / name, experiment, seed)
    with ExitStack() as stack:
        parallel.after_first(lambda: _hold(run, stack if parallel.first() else None))
        yield run
        parallel.barrier()


def _hold(run: Run, stack: ExitStack | None) -> None:
    """Make the folder and see that it is this run's; hold it until `stack` is closed, where there is one."""
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the run folder {run.folder}: {error.strerror}") from error
    if stack is not None:
        lock = FileLock(run.folder / "lock")
        try:
            # The operating system gives the lock up with the process, however it ends.
            lock.acquire(timeout=0)
        except Timeout as error:
            message = f"another process is working in {run.folder}; wait for it or choose another --runs"
            raise UserError(message) from error
        stack.callback(lock.release)
    config = run.folder / "config.json"
    if not config.exists():
        write_text(config, json.dumps(run.header(), indent=1) + "\n")
    elif json.loads(config.read_text()) != run.header():
        raise UserError(f"{config} is of another experiment or seed; choose another --runs")


def resolve_device(name: str) -> torch.device:
    """Return the device called "auto", "cpu" or "cuda"; on CUDA all arithmetic is set to full float32, TF32 off.

    Under torchrun each process of a machine takes a GPU of its own.

    Raises:
        UserError: it is not known, or there is no such device.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"unknown device {name!r}; known are: auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda was asked for, but torch finds no CUDA device here; use --device cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    local = torch.device("cuda", parallel.local_rank()) if "LOCAL_RANK" in os.environ else torch.device("cuda")
    if local.index is not None:
        if local.index >= torch.cuda.device_count():
            raise UserError(f"there are {torch.cuda.device_count()} GPUs here; start no more processes than that")
        torch.cuda.set_device(local)
    return local


def device_class(device: torch.device) -> str:
    """Return what two machines must share to give the same numbers: "cpu-avx2", "cuda-NVIDIA H200"."""
    if device.type == "cuda":
        return f"cuda-{torch.cuda.get_device_name(device)}"
    return f"cpu-{torch.backends.cpu.get_cpu_capability().lower()}"


def provenance(device: torch.device) -> dict[str, Any]:
    """Return commit, whether the tree was dirty, device class and versions: what a row needs to be trusted."""
    packages = ("torch", "torchvision", "torch-fidelity", "numpy", "scikit-learn")
    versions = {name: importlib.metadata.version(name) for name in packages}
    commit = _git("rev-parse", "HEAD")
    return {
        "commit": commit or "unknown",
        "dirty": not commit or bool(_git("status", "--porcelain", "--", "jlebm", "reproduce", "constraints.txt")),
        "device": device_class(device),
        "versions": {"python": platform.python_version(), **versions},
    }


def _git(*arguments: str) -> str:
    """Ask git about the checkout that this file lies in; "" where there is none."""
    checkout = Path(__file__).parents[1]
    if not (checkout / ".git").exists():
        return ""
    try:
        answer = subprocess.run(["git", *arguments], cwd=checkout, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return answer.stdout.strip()
