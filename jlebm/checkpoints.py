"""Checkpoints: written whole or not at all, read without executing anything."""

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import nn

from jlebm.errors import UserError
from jlebm.files import atomic_write

FORMAT = 1


def save(path: Path, state: dict[str, Any], config_digest: str, seed: int) -> None:
    """Write tensors, numbers and strings in place of the previous checkpoint, which stays whole until then."""
    content = {"format": FORMAT, "config_digest": config_digest, "seed": seed, "state": state}
    with atomic_write(path) as file:
        torch.save(content, file)


def load(path: Path, config_digest: str, seed: int) -> dict[str, Any]:
    """Read a checkpoint of this configuration and seed, on the CPU.

    Raises:
        UserError: the file is cut short, holds anything but tensors and plain values (it is never executed), has
            another format, or belongs to another configuration or seed.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # a foreign pickle is refused with one sentence, not with two
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"the checkpoint {path} is damaged or holds something other than tensors and plain values; "
            "nothing of it was executed: delete it to start anew"
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise UserError(f"the checkpoint {path} is cut short or damaged; delete it to start anew") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} is not a checkpoint of format {FORMAT} of this program")
    if (content["config_digest"], content["seed"]) != (config_digest, seed):
        raise UserError(
            f"the checkpoint {path} belongs to another configuration or seed "
            f"({content['config_digest'][:12]}, seed {content['seed']}; asked for {config_digest[:12]}, seed {seed})"
        )
    return content["state"]


def save_weights(path: Path, module: nn.Module, header: dict[str, Any], dtype: torch.dtype = torch.float32) -> None:
    """Write a module's weights as safetensors, with a JSON header (configuration, digest, steps) in the metadata."""
    tensors = {name: value.detach().to(dtype).cpu().contiguous() for name, value in module.state_dict().items()}
    metadata = {"jlebm": json.dumps(header)}
    with atomic_write(path) as file:
        file.write(serialised(tensors, metadata))


def load_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what `save_weights` wrote: the tensors in float32 and the header.

    Raises:
        UserError: there is no such file, it is cut short, or it is not of this program.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(metadata["jlebm"])
    except FileNotFoundError as error:
        raise UserError(f"there is no weights file {path}") from error
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not a whole weights file of this program") from error
