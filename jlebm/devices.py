"""Devices: a processor's name, why torch finds no GPU, versions and memory, a clear error when memory runs out."""

import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

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


def processor() -> str:
    """Return the CPU's name and model as Linux gives them, "AMD EPYC 9V74, 25, 17"; else what Python knows of it."""
    path, known = Path("/proc/cpuinfo"), dict[str, str]()
    for line in path.read_text().splitlines() if path.exists() else ():
        name, _, value = line.partition(":")
        known.setdefault(name.strip(), value.strip())
    words = [known[key] for key in ("model name", "cpu family", "model") if known.get(key)]
    return ", ".join(words) or platform.processor() or platform.machine()


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
