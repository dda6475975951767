"""Devices by name; why torch finds no GPU; versions and memory; a clear error when the memory runs out."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from jlebm.engines import parallel
from jlebm.engines.precision import full_float32
from jlebm.errors import UserError

NVIDIA = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")  # files of its driver; the last one is WSL's


class OutOfMemory(UserError):
    """A device has less memory than the work needs."""


def why_no_gpu(found: tuple[str, ...] = NVIDIA) -> str:
    """Return in a clause why torch finds no GPU although there is an NVIDIA device here; "" if there is none.

    Args:
        found: files, any of which shows that there is a device.
    """
    if torch.cuda.is_available() or not any(Path(path).exists() for path in found):
        return ""
    if torch.version.cuda is None:
        return f"there is an NVIDIA device here, but torch {torch.__version__} is a build without CUDA"
    driver = driver_version()
    has = f"the driver is {driver}" if driver else "no driver answers (nvidia-smi)"
    return (
        f"there is an NVIDIA device here, but torch {torch.__version__} finds none: it is built for CUDA "
        f"{torch.version.cuda}, which needs a driver that is new enough, and {has}"
    )


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


def driver_version() -> str:
    """Return the version of NVIDIA's driver; "" if it does not answer."""
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.partition("\n")[0].strip()


def versions_of(device: torch.device) -> dict[str, str]:
    """Return the versions of CUDA, cuDNN and the driver that a row of a GPU names; nothing for a CPU."""
    if device.type != "cuda":
        return {}
    found = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "driver": driver_version()}
    return {name: str(version) for name, version in found.items() if version}


def peak_memory(device: torch.device) -> dict[str, str]:
    """Return the most memory that this process has reserved on a GPU so far, "5.3 GiB"; nothing for a CPU."""
    if device.type != "cuda":
        return {}
    return {"peak memory": f"{torch.cuda.max_memory_reserved(device) / 2**30:.1f} GiB"}


@contextmanager
def within_memory(advice: str) -> Iterator[None]:
    """Turn torch's error of a full GPU into a sentence that ends with what to change.

    Raises:
        OutOfMemory: the GPU's memory is full.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        size = str(error).partition("Tried to allocate ")[2].partition(". ")[0]
        more = f" for {size} more" if size else ""
        raise OutOfMemory(f"the GPU's memory has no room{more}; {advice}") from error


def released(device: torch.device) -> None:
    """Return the memory that torch caches to the GPU, before work of another kind."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def layout(device: torch.device) -> torch.memory_format:
    """Return the layout of convolutions' weights: channels-last on a CPU, where it was measured to be faster.

    On a GPU it is torch's own: cuDNN's float32 and depthwise convolutions are slower in channels-last on some
    (issues 44943 and 34977 of pytorch/pytorch). `python -m reproduce.benchmark.gpu_check` times both.
    """
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format
