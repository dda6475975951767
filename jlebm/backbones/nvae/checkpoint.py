"""The published NVAE checkpoints: read safely, strictly, with the sizes that their `args` say."""

import dataclasses
import hashlib
import pickle
import re
import warnings
from argparse import Namespace  # what the published checkpoints keep their sizes in
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jlebm.backbones.nvae.network import NVAE
from jlebm.backbones.nvae.nvae_config import NVAEConfig
from jlebm.checkpoints import load_weights as load_safetensors
from jlebm.checkpoints import save_weights
from jlebm.errors import UserError

SUFFIX_OF_COPIES = ".weight_normalized"  # a second copy of a weight without normalisation
BUILT_WITHOUT = ("num_batches_tracked",)  # of batch norm: a count that changes nothing in eval mode
# Entries that older checkpoints lack, with what the code of their time did.
OLDER_DEFAULTS: dict[str, Any] = {
    "ada_groups": False,
    "min_groups_per_scale": 1,
    "num_mixture_dec": 10,
    "num_nf": 0,
    "res_dist": False,
    "use_se": False,
}
SMALL = {"cifar10": (32, 3), "mnist": (32, 1), "omniglot": (32, 1), "stacked_mnist": (64, 3), "ffhq": (256, 3)}


def save_nvae(path: Path, network: NVAE) -> None:
    """Write sizes and weights as safetensors, which `load_nvae` reads."""
    save_weights(path, network, {"nvae": dataclasses.asdict(network.config)})


def digest_of(network: NVAE) -> str:
    """Return the SHA-256 of all weights and statistics by name, as hexadecimal: which backbone a stage two is upon."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_nvae(path: Path) -> NVAE:
    """Build the network of a checkpoint and load its weights, in eval mode.

    A published file is read with nothing allowed but tensors, plain containers and `argparse.Namespace`.

    Args:
        path: `{"epoch", "state_dict", "args"}`, as NVlabs/NVAE writes it, or a .safetensors file of `save_nvae`.

    Raises:
        UserError: it cannot be read safely, is not of this architecture, or a parameter is missing, left over or of
            another shape; the sentence names it.
    """
    if path.suffix == ".safetensors":
        return _load_own(path)
    content = _read(path)
    network = NVAE(config_of(vars(content["args"]), path))
    load_weights(network, content["state_dict"], path)
    return network.eval()


def _load_own(path: Path) -> NVAE:
    tensors, header = load_safetensors(path)
    if "nvae" not in header:
        raise UserError(f"{path} holds no NVAE, which `save_nvae` writes")
    try:
        network = NVAE(NVAEConfig(**header["nvae"]))
    except TypeError as error:
        raise UserError(f"{path} holds an NVAE of sizes that this version does not know ({error})") from error
    load_weights(network, tensors, path)
    return network.eval()


def config_of(args: dict[str, Any], path: Path) -> NVAEConfig:
    """Return the sizes that the `args` of a checkpoint say.

    Raises:
        UserError: an entry is missing, or is of an architecture that is not built here.
    """
    cell = args.get("arch_instance", "res_mbconv")
    if cell != "res_mbconv":
        raise UserError(f"{path} is of the cells {cell!r}; only 'res_mbconv', that of all published NVAEs, is built")
    size, channels = _image(str(args.get("dataset", "")), path)
    values: dict[str, Any] = {"image_size": size, "image_channels": channels}
    for field in dataclasses.fields(NVAEConfig):
        if field.name in values:
            continue
        if field.name in args:
            values[field.name] = args[field.name]
        elif field.name in OLDER_DEFAULTS:
            values[field.name] = OLDER_DEFAULTS[field.name]
        else:
            raise UserError(f"the args of {path} lack {field.name!r}; it is not a published NVAE checkpoint")
    return NVAEConfig(**values)


def load_weights(network: NVAE, state: dict[str, Tensor], path: Path) -> None:
    """Load a published state dict.

    Raises:
        UserError: a parameter is missing, left over, of another shape, or not finite.
    """
    given = {name: value for name, value in state.items() if not name.endswith(SUFFIX_OF_COPIES)}
    wanted = network.state_dict()
    for name, value in wanted.items():
        if name not in given:
            if name.rpartition(".")[2] in BUILT_WITHOUT:
                given[name] = value
                continue
            raise UserError(f"{path} lacks the parameter {name!r} of shape {tuple(value.shape)}")
        if given[name].shape != value.shape:
            raise UserError(
                f"the parameter {name!r} of {path} has shape {tuple(given[name].shape)} and must have "
                f"{tuple(value.shape)}"
            )
        if not bool(torch.isfinite(given[name]).all()):
            raise UserError(f"the parameter {name!r} of {path} is not finite")
    if left := sorted(given.keys() - wanted.keys()):
        raise UserError(f"{path} has the parameter {left[0]!r}, which its own args have no place for")
    network.load_state_dict(given)


def _read(path: Path) -> dict[str, Any]:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([Namespace]):
            warnings.simplefilter("ignore")  # about a pickle that is refused in the next breath
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"there is no checkpoint {path}") from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} cannot be read as a checkpoint of tensors and args alone ({reason})") from error
    state = content.get("state_dict") if isinstance(content, dict) else None
    whole = isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())
    if not whole or not isinstance(content.get("args"), Namespace):
        raise UserError(f"{path} is not a published NVAE checkpoint, which holds 'state_dict' and 'args'")
    return content


def _image(dataset: str, path: Path) -> tuple[int, int]:
    """Return the image size and channels of a dataset by its published name."""
    if dataset in SMALL:
        return SMALL[dataset]
    number = re.search(r"(\d+)$", dataset)
    if number is None:
        raise UserError(f"the args of {path} name the dataset {dataset!r}, whose image size is not known")
    return int(number[1]), 3
