"""What made a row: commit, device class and versions."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import jlebm
from jlebm.devices import device_class, versions_of


def provenance(device: torch.device) -> dict[str, Any]:
    """Return commit, whether the tree was dirty, device class and versions: the provenance of a row."""
    packages = ("torch", "torchvision", "torch-fidelity", "numpy", "scikit-learn")
    versions = {name: importlib.metadata.version(name) for name in packages}
    commit = _git("rev-parse", "HEAD")
    return {
        "commit": commit or "unknown",
        "dirty": not commit or bool(_git("status", "--porcelain", "--", "jlebm", "reproduce", "constraints.txt")),
        "device": device_class(device),
        "versions": {
            "python": platform.python_version(),
            **versions,
            **versions_of(device),
            "jlebm": jlebm.__version__,
        },
    }


def _git(*arguments: str) -> str:
    """Run git on the checkout that holds this file; "" if there is none."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return ""
    try:
        answer = subprocess.run(["git", *arguments], cwd=checkout, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return answer.stdout.strip()
