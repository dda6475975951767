"""Read the published NVAE checkpoints safely and strictly, with the sizes in their `args`."""

import dataclasses
import hashlib
import math
import re
import reprlib
from argparse import Namespace  # the published checkpoints store their sizes in one
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jlebm import torch_files
from jlebm.archives import Damaged, safe_name
from jlebm.backbones.nvae.network import NVAE
from jlebm.backbones.nvae.nvae_config import NVAEConfig
from jlebm.checkpoints import open_weights, save_weights
from jlebm.errors import UserError
from jlebm.files import open_regular

SUFFIX_OF_COPIES = ".weight_normalized"  # a second copy of a weight without normalisation
BUILT_WITHOUT = ("num_batches_tracked",)  # batch norm's count, which changes nothing in eval mode
WRAPPERS = ("module", "_orig_mod")  # prefixes that DataParallel and torch.compile add to names
NUMBERS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
COUNTS = (torch.int64, torch.int32, *NUMBERS)
# Entries that older checkpoints lack, with the behaviour of the code of their time.
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


def digest_of(network: nn.Module) -> str:
    """Return the SHA-256 of all weights and statistics by name, in hexadecimal: the identity of a backbone."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_nvae(path: Path) -> NVAE:
    """Build the network of a checkpoint and load its weights, in eval mode.

    A published file may contain tensors, plain values and `argparse.Namespace` alone. Its numbers may have half or
    double precision, its names the prefixes of `DataParallel` and `torch.compile`. The sizes that a file states are
    compared with its tensors before a network is built. A file of torch before 1.6 has no checksums: a flipped bit of
    its numbers is not noticed unless it makes one that is not finite. Load it, `save_nvae` it, and the copy has a
    digest.

    Args:
        path: a file of `{"epoch", "state_dict", "args"}` from NVlabs/NVAE, or a .safetensors file of `save_nvae`.

    Raises:
        UserError: the file cannot be read safely, was altered, has another architecture, or a parameter is missing,
            left over or of another shape; the message names it.
    """
    named = path.suffix.lower() == ".safetensors"
    with open_regular(path, "weights file" if named else "checkpoint") as file:
        if named or file.read(9)[8:] == b"{":  # after the length of safetensors' header
            return _load_own(path)
        try:
            content = torch_files.read(file, annotated=True, unchecked=True)
        except Damaged as error:
            raise UserError(f"{path} cannot be read as a checkpoint of tensors and args alone ({error})") from error
    args, state = _parts(content, path)
    config = config_of(args, path)
    compare_shapes(config, {name: tuple(value.shape) for name, value in state.items()}, path)
    # Several names may share the same stored numbers, and a stride of zero repeats one number without limit.
    stored = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in state.values()}
    if sum(value.numel() for value in state.values()) > sum(stored.values()):
        raise UserError(f"{path} stores fewer numbers than the shapes of its parameters say")
    return _loaded(config, state, path)


def _load_own(path: Path) -> NVAE:
    file = open_weights(path)
    sizes = file.header.get("nvae")
    if not isinstance(sizes, dict):
        raise UserError(f"{path} holds no NVAE, which `save_nvae` writes")
    try:
        config = NVAEConfig.of(sizes)
    except UserError as error:
        raise UserError(f"{path} holds no NVAE that can be built ({error})") from error
    compare_shapes(config, file.shapes, path)
    return _loaded(config, file.tensors(), path)


def config_of(args: dict[str, Any], path: Path) -> NVAEConfig:
    """Return the sizes in the `args` of a checkpoint.

    Raises:
        UserError: an entry is missing, or belongs to an architecture that is not built here.
    """
    cell = args.get("arch_instance", "res_mbconv")
    if cell != "res_mbconv":
        raise UserError(
            f"{path} has the cells {reprlib.repr(cell)}; only 'res_mbconv', that of all published NVAEs, is built"
        )
    size, channels = _image(args.get("dataset", ""), path)
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
    try:
        return NVAEConfig.of(values)
    except UserError as error:
        raise UserError(f"the args of {path} define no network: {error}") from error


def compare_shapes(config: NVAEConfig, given: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Check that parameters fit a network of these sizes, without allocating it.

    Args:
        config: the sizes that a file states.
        given: the shapes of its parameters.
        path: the file, for the message.

    Raises:
        UserError: a parameter is missing, left over, or of another shape.
    """
    top = (config.num_channels_dec * (config.image_size // config.top_side), config.top_side, config.top_side)
    if "prior_ftr0" not in given:
        raise UserError(f"{path} lacks the parameter 'prior_ftr0' of shape {top}")
    numbers = sum(math.prod(shape) for shape in given.values())
    # A network on the meta device has modules but no numbers: it is built only if the file has enough of both.
    if config.least_entries() > len(given) or config.least_numbers() > numbers:
        raise UserError(
            f"{path} has {len(given)} parameters of {numbers} numbers, and a network of the sizes that it claims has "
            f"at least {config.least_entries()} of {config.least_numbers()}"
        )
    with torch.device("meta"):
        wanted = {name: tuple(value.shape) for name, value in NVAE(config).state_dict().items()}
    for name, shape in wanted.items():
        if name not in given:
            if name.rpartition(".")[2] in BUILT_WITHOUT:
                continue
            raise UserError(f"{path} lacks the parameter {name!r} of shape {shape}")
        if given[name] != shape:
            raise UserError(f"the parameter {name!r} of {path} has shape {given[name]} and must have {shape}")
    if left := sorted(given.keys() - wanted.keys()):
        raise UserError(f"{path} has the parameter {safe_name(left[0])}, which its own args have no place for")


def _loaded(config: NVAEConfig, state: dict[str, Tensor], path: Path) -> NVAE:
    """Build a network and load weights whose shapes fit it."""
    network = NVAE(config)
    for name, value in network.state_dict().items():
        given = state.setdefault(name, value)  # entries that may be missing
        if given.dtype not in (NUMBERS if value.is_floating_point() else COUNTS):
            raise UserError(f"the parameter {name!r} of {path} holds numbers of type {given.dtype}")
        if not bool(torch.isfinite(given.to(value.dtype)).all()):
            raise UserError(f"the parameter {name!r} of {path} is not finite")
    network.load_state_dict(state)
    return network.eval()


def _parts(content: Any, path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the args and the weights of a published checkpoint, under the network's own names."""
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a published NVAE checkpoint, which holds 'state_dict' and 'args'")
    if content and all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(
            f"{path} is a bare state dict and not a published NVAE checkpoint, which also holds the 'args' that say "
            "the sizes; store both: {'state_dict': ..., 'args': ...}"
        )
    state, args = content.get("state_dict"), content.get("args")
    args = vars(args) if isinstance(args, Namespace) else args
    if not isinstance(state, dict) or not isinstance(args, dict):
        raise UserError(f"{path} is not a published NVAE checkpoint, which holds 'state_dict' and 'args'")
    given: dict[str, Tensor] = {}
    for full, value in state.items():
        if not isinstance(full, str) or not isinstance(value, Tensor):
            raise UserError(
                f"{path} is not a published NVAE checkpoint: {reprlib.repr(full)} is not a tensor with a name"
            )
        name = ".".join(part for part in full.split(".") if part not in WRAPPERS)
        if name in given:
            raise UserError(f"{path} has the parameter {safe_name(name)} twice, under names with different prefixes")
        if not name.endswith(SUFFIX_OF_COPIES):
            given[name] = value
    return args, given


def _image(dataset: object, path: Path) -> tuple[int, int]:
    """Return the image size and channels of a dataset, by its published name."""
    if isinstance(dataset, str) and dataset in SMALL:
        return SMALL[dataset]
    number = re.search(r"(?<!\d)([0-9]{1,5})$", dataset) if isinstance(dataset, str) else None
    if number is None:
        raise UserError(f"the args of {path} name the dataset {reprlib.repr(dataset)}, whose image size is not known")
    return int(number[1]), 3
