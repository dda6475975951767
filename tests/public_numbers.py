"""The public implementations' numbers: those that are kept here, and the whole set where it lies beside the project."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

KEPT = Path(__file__).parent / "fixtures"
WHOLE = Path(__file__).resolve().parents[2] / "shared" / "fixtures"
CHURCH = pytest.param("church64_gaussian", marks=pytest.mark.slow)
NVAES = ("cifar10_gaussian", "celeba64_mixture", CHURCH, "mnist_bernoulli")


def kept(name: str) -> tuple[dict[str, Any], dict[str, str]] | None:
    """Return a kept file as nested dictionaries, lists as dictionaries of their indices; None where it is not kept."""
    path = KEPT / f"{name}.safetensors"
    if not path.exists():
        return None
    nested: dict[str, Any] = {}
    with safe_open(path, "pt") as file:
        for key in file.keys():  # noqa: SIM118 (a safetensors file is no dictionary)
            *above, last = key.split("/")
            place = nested
            for part in above:
                place = place.setdefault(part, {})
            place[last] = file.get_tensor(key)
        return nested, file.metadata()


def in_order(values: Any) -> tuple[Tensor, ...]:
    """Return a list of tensors that was kept as a dictionary of indices."""
    return tuple(values[str(index)] for index in range(len(values))) if isinstance(values, dict) else tuple(values)


def nvae(name: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return a checkpoint in the published format and what the public code made with it."""
    found = kept(f"nvae_{name}")
    if found is not None:
        nested, metadata = found
        path = folder / "checkpoint.pt"
        args = argparse.Namespace(**json.loads(metadata["args"]))
        torch.save({"epoch": 0, "state_dict": nested["state_dict"], "args": args}, path)
        return path, nested["expected"]
    if not (WHOLE / "nvae" / name).exists():
        pytest.skip(f"{name} is too large to be kept in the repository")
    return WHOLE / "nvae" / name / "checkpoint.pt", torch.load(WHOLE / "nvae" / name / "expected.pt", weights_only=True)
