"""The weights of the metric network: torch-fidelity's Inception of 2015-12-05, found, downloaded and read safely."""

import io
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from jlebm import torch_files
from jlebm.archives import Damaged
from jlebm.errors import UserError
from jlebm.files import atomic_write, open_regular, sha256_of_file
from jlebm.progress import SILENT, Reporter

FULL_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"  # the name of torch-fidelity's own file
PARTIAL_WEIGHTS = "weights-inception-2015-12-05-768.pth"  # exact up to Mixed_6e, NaN above
PATIENCE = 15.0  # seconds that a server may be silent
MEBIBYTE = 2**20  # bytes

LAYERS = FeatureExtractorInceptionV3.get_provided_features_list()
# The modules that each layer adds to those of earlier layers.
STAGES = {
    "64": ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1"),
    "192": ("Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    "768": tuple(f"Mixed_{name}" for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e")),
    "2048": ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
    "logits_unbiased": ("fc.weight",),
    "logits": ("fc.bias",),
}


class ExtractorNotFound(UserError):
    """The Inception weights are missing and were not downloaded. The message says what to put where."""


@dataclass(frozen=True)
class Extractor:
    """A file of Inception weights and the layers that it gives exactly."""

    path: Path
    digest: str  # sha256 of the file, hexadecimal
    layers: tuple[str, ...]  # those of `LAYERS` whose weights are all finite

    def __str__(self) -> str:
        return f"inception-2015-12-05, sha256:{self.digest[:12]}"


def find_extractor(root: Path, download: bool = True, report: Reporter = SILENT) -> Extractor:
    """Find the Inception weights: in the data root, in torch hub's cache, else downloaded there from torch-fidelity.

    The full weights come first, in either place, then weights in the data root that are exact up to 768. Nothing is
    downloaded if one of them is present. The layers of a file are read from its tensors, not from its name.

    A download is kept if it has the length that the server announced and is a file of weights. Its bytes are compared
    with no digest: `self_check` tells the official weights from others, by the 768 layer alone.

    Args:
        root: the data root.
        download: whether the weights may be downloaded.
        report: receives the progress of a download.

    Raises:
        ExtractorNotFound: there are no weights; says what to put where.
        UserError: the file found is damaged or of another network, or its folder may not be searched.
    """
    cached = Path(torch.hub.get_dir()) / "checkpoints" / FULL_WEIGHTS
    for path in (root / FULL_WEIGHTS, cached, root / PARTIAL_WEIGHTS):
        try:
            found = path.is_file()
        except PermissionError as error:
            raise UserError(
                f"{path.parent} cannot be searched for the Inception weights ({error.strerror}); make it readable, or "
                "name another data root with --data-root or JLEBM_DATA"
            ) from error
        if found:
            return open_extractor(path)
    why = ""
    if download:
        report.line(f"downloading the Inception weights into {cached.parent}")
        try:
            with atomic_write(cached) as file:
                _download(file, report)
            return open_extractor(cached)
        except (OSError, HTTPException, UserError) as error:
            why = f" and could not be downloaded ({error})"
    raise ExtractorNotFound(
        f"the Inception weights are not in the data root {root}{why}: put {FULL_WEIGHTS} (all metrics, from "
        f"{URL_INCEPTION_V3}) or {PARTIAL_WEIGHTS} (fid768 alone) there"
    )


def open_extractor(path: Path) -> Extractor:
    """Read a weights file and find the layers that it gives exactly.

    Raises:
        UserError: the file is damaged, not a state dict of this network, or not finite from the first layer on.
    """
    state = _read_state(path)
    _module(state, ("64",), path)
    finite = {key for key, value in state.items() if bool(torch.isfinite(value).all())}
    layers = []
    for layer in LAYERS:
        needed = [key for key in state if key.startswith(STAGES[layer])]
        if not finite.issuperset(needed):
            break
        layers.append(layer)
    if not layers:
        raise UserError(f"{path} holds NaN or infinite weights from the first layer on; download it again")
    return Extractor(path, sha256_of_file(path), tuple(layers))


def unchanged_module(extractor: Extractor, layers: Sequence[str]) -> FeatureExtractorInceptionV3:
    """Load torch-fidelity's unchanged module, from which the network is made and with which it is compared."""
    return _module(_read_state(extractor.path), layers, extractor.path)


def _download(file: BinaryIO, report: Reporter) -> None:
    """Download the weights and check their length."""
    with urllib.request.urlopen(URL_INCEPTION_V3, timeout=PATIENCE) as response:
        announced = int(response.headers.get("Content-Length") or 0)
        total = -(-announced // MEBIBYTE) or None
        with report.task("Inception weights, MiB", total) as task:
            while piece := response.read(MEBIBYTE):
                file.write(piece)
                task.advance()
        if announced and file.tell() != announced:
            raise OSError(f"{file.tell()} of {announced} bytes came")
    file.flush()
    _read_state(Path(file.name))


def _read_state(path: Path) -> dict[str, Tensor]:
    """Load a state dict after checking its CRC-32, if it has one, without executing anything in the file.

    A file of torch before 1.6 has none; every row names the SHA-256 of the file that it was measured with.
    """
    with open_regular(path) as file:
        try:
            state: Any = torch_files.read(file, unchecked=True)
        except Damaged as error:
            raise UserError(f"{path} is not a whole file of weights ({error}); download it again") from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise UserError(f"{path} is not a state dict of tensors; use torch-fidelity's {FULL_WEIGHTS}")
    return state


def _module(state: dict[str, Tensor], layers: Sequence[str], path: Path) -> FeatureExtractorInceptionV3:
    """Build torch-fidelity's module from a safely read state dict."""
    # The module loads its file with arbitrary pickles allowed: it gets bytes that we wrote, not the file's.
    weights = io.BytesIO()
    torch.save(state, weights)
    weights.seek(0)
    try:
        with torch.random.fork_rng(devices=[]):  # its constructor draws initial weights
            return FeatureExtractorInceptionV3("inception-v3-compat", list(layers), weights)  # pyright: ignore
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise UserError(
            f"{path} does not fit the Inception network of 2015-12-05 ({(lines or [str(error)])[0][:120]}); "
            f"torchvision's weights are another network: use torch-fidelity's {FULL_WEIGHTS}"
        ) from error
