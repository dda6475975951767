"""Checkpoints and weights files: written atomically, checked bit by bit, read without executing anything."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import nn

from jlebm import torch_files
from jlebm.archives import Damaged
from jlebm.errors import UserError
from jlebm.files import atomic_write, open_regular

FORMAT = 1  # version of checkpoint files
WEIGHTS_FORMAT = 2  # version of weights files; earlier ones have neither a format nor a digest
NOT_YET = "0" * 64  # stands for the digest while the digest is computed
LARGEST_HEADER = 2**24  # bytes; a deep hierarchy's names and shapes have 700,000
REAL = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")  # types that are read as float32
PIECE = 2**20  # bytes


def save(path: Path, state: dict[str, Any], config_digest: str, seed: int) -> None:
    """Write a checkpoint of tensors, numbers and strings; the previous one stays until the new one is complete.

    torch keeps a CRC-32 of each tensor's bytes as it writes them; `load` compares them.
    """
    content = {"format": FORMAT, "config_digest": config_digest, "seed": seed, "state": state}
    with atomic_write(path) as file:
        torch.save(content, file)


def load(path: Path, config_digest: str, seed: int) -> dict[str, Any]:
    """Read a checkpoint of this configuration and seed, on the CPU.

    Raises:
        UserError: it is missing, unreadable, altered or of another format (this program never wrote that of torch
            before 1.6, which has no checksums), holds anything but tensors and plain values
            (which are never executed), or belongs to another configuration or seed.
    """
    with open_regular(path, "checkpoint") as file:
        try:
            content = torch_files.read(file)
        except Damaged as error:
            raise UserError(
                f"the checkpoint {path} is cut short or damaged or holds something other than tensors and plain values "
                f"({error}); nothing of it was executed: delete it to start anew"
            ) from error
    if not isinstance(content, dict) or type(content.get("format")) is not int or content["format"] != FORMAT:
        raise UserError(f"{path} is not a checkpoint of format {FORMAT} of this program")
    kinds = {"config_digest": str, "seed": int, "state": dict}
    if any(not isinstance(content.get(name), kind) for name, kind in kinds.items()):
        raise UserError(f"{path} lacks what a checkpoint of this program has ({', '.join(kinds)}); delete it")
    if (content["config_digest"], content["seed"]) != (config_digest, seed):
        raise UserError(
            f"the checkpoint {path} belongs to another configuration or seed "
            f"({content['config_digest'][:12]}, seed {content['seed']}; asked for {config_digest[:12]}, seed {seed})"
        )
    return content["state"]


def save_weights(path: Path, module: nn.Module, header: dict[str, Any], dtype: torch.dtype = torch.float32) -> None:
    """Write a module's weights as safetensors, with a JSON header (configuration, digest, steps) in the metadata.

    The header gets two more entries: `sha256`, of the whole file with zeros in its own place, and `format`.

    Raises:
        UserError: the header has an entry of such a name.
    """
    tensors, storages = {}, set[int]()
    for name, value in module.state_dict().items():
        tensor = value.detach().to(dtype).cpu().contiguous()
        address = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if address in storages else tensor  # tied weights: the format has no sharing
        storages.add(address)
    if taken := {"sha256", "format"} & header.keys():
        raise UserError(f"a header's {sorted(taken)[0]!r} is the file's own; give the entry another name")
    marked = {"sha256": NOT_YET, "format": WEIGHTS_FORMAT, **header}
    content = serialised(tensors, {"jlebm": json.dumps(marked)})
    start = 8 + int.from_bytes(content[:8], "little")
    digest = hashlib.sha256(content).hexdigest()
    with atomic_write(path) as file:
        file.write(content[:start].replace(_entry(NOT_YET), _entry(digest), 1))
        file.write(memoryview(content)[start:])


@dataclass(frozen=True)
class WeightsFile:
    """A weights file of `save_weights` whose header alone has been read."""

    path: Path
    header: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    """The shape of each tensor, by name."""
    sha256: str | None
    """The digest that the file must have; None in files from before digests were stored."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """Read the tensors, in float32.

        Raises:
            UserError: the file was altered, or its tensors are not those of its header.
        """
        if self.sha256 is not None and _digest(self.path, self.sha256) != self.sha256:
            raise _not_whole(self.path, "its bytes do not have the sha256 in its header")
        try:
            with safe_open(self.path, framework="pt") as file:
                return {name: file.get_tensor(name).float() for name in self.shapes}
        except (SafetensorError, OverflowError, RuntimeError) as error:  # torch raises the last on a failed map
            raise _not_whole(self.path, "it is cut short or damaged, or larger than the memory") from error


def open_weights(path: Path) -> WeightsFile:
    """Read the header of what `save_weights` wrote.

    Raises:
        UserError: the file is missing, unreadable, cut short, or not of this program.
    """
    with open_regular(path, "weights file") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LARGEST_HEADER:
            raise _not_whole(path, f"its header would have {length} bytes")
        text = file.read(length)
    # Not by `safe_open`, which maps the whole file: its size has not been checked yet.
    try:
        parts = json.loads(text)
        header = json.loads(parts.pop("__metadata__")["jlebm"])
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise _not_whole(path, "it is cut short, or has no header of this program") from error
    if not isinstance(header, dict) or not all(_is_real(part) for part in parts.values()):
        raise _not_whole(path, "it has no header of this program, or numbers of an unknown kind")
    shapes = {name: tuple(part["shape"]) for name, part in parts.items()}
    sha256, version = header.pop("sha256", None), header.pop("format", None)
    digested = version == WEIGHTS_FORMAT and isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256)
    if not digested and (version, sha256) != (None, None):
        raise _not_whole(path, "its header is damaged or of a later version")
    return WeightsFile(path, header, shapes, sha256)


def load_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what `save_weights` wrote: the tensors in float32 and the header.

    Raises:
        UserError: the file is missing, unreadable, cut short, altered, or not of this program.
    """
    file = open_weights(path)
    return file.tensors(), file.header


def _is_real(part: Any) -> bool:
    """Tell whether an entry of a safetensors header describes a tensor that is read as float32."""
    shape = part.get("shape") if isinstance(part, dict) else None
    sides = isinstance(shape, list) and all(type(side) is int and side >= 0 for side in shape)
    return sides and part.get("dtype") in REAL


def _entry(digest: str) -> bytes:
    """Return a digest as it stands in the file: JSON escaped inside JSON."""
    return f'\\"sha256\\": \\"{digest}\\"'.encode()


def _digest(path: Path, found: str) -> str:
    digest = hashlib.sha256()
    with open_regular(path) as file:
        first = file.read(8)
        head = file.read(int.from_bytes(first, "little"))
        digest.update(first + head.replace(_entry(found), _entry(NOT_YET), 1))
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _not_whole(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is not a whole weights file of this program ({reason}); make or fetch it again")
