"""The metric network: torch-fidelity's Inception of 2015-12-05, found, checked and run fast.

The module and its arithmetic are torch-fidelity's own. What is done to it keeps its features to 1e-4 relative, the
budget that torch-fidelity declares for features: batch norm is folded into the convolutions, the memory layout is
channels-last, and the pass stops after the highest layer asked for. TF32 is off, as everywhere in the project.
"""

import io
import pickle
import urllib.request
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from jlebm import parallel
from jlebm.errors import UserError
from jlebm.files import sha256_of_file, write_atomically
from jlebm.progress import SILENT, Reporter

FULL_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"  # torch-fidelity's own file, by its own name
PARTIAL_WEIGHTS = "weights-inception-2015-12-05-768.pth"  # exact up to Mixed_6e, NaN above
PATIENCE = 15.0  # seconds that a server may be silent
MEBIBYTE = 2**20  # bytes

LAYERS = FeatureExtractorInceptionV3.get_provided_features_list()
# The modules that each layer adds to those of the layers before it.
_ADDED = {
    "64": ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"),
    "192": ("Conv2d_3b_1x1", "Conv2d_4a_3x3"),
    "768": tuple(f"Mixed_{name}" for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e")),
    "2048": ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
    "logits_unbiased": ("fc.weight",),
    "logits": ("fc.bias",),
}

# Statistics of the 768 features of `fixed_images` under the official weights, in float32 on a CPU.
EXPECTED_MEAN = 0.0351275596
EXPECTED_NORM = 4.5420888
SELF_CHECK_TOLERANCE = 1e-4  # relative: torch-fidelity's declared budget for features


class ExtractorNotFound(UserError):
    """The Inception weights are not there and were not downloaded. The message says what to put where."""


@dataclass(frozen=True)
class Extractor:
    """A file of Inception weights and what can be trusted in it."""

    path: Path
    digest: str  # sha256 of the file, hexadecimal
    layers: tuple[str, ...]  # of `LAYERS`, those whose weights are all finite

    def __str__(self) -> str:
        return f"inception-2015-12-05, sha256:{self.digest[:12]}"


class Network:
    """The Inception module, ready to turn images into features of some layers on some device."""

    def __init__(self, module: FeatureExtractorInceptionV3, device: torch.device):
        self.module, self.device = module, device
        # Small batches keep a layer's output in a CPU's cache; a GPU wants to be filled.
        self.batch_size = 256 if device.type == "cuda" else 8

    def __call__(self, images: UInt8[Tensor, "batch channels height width"]) -> dict[str, Tensor]:
        """Compute features, float32 (batch, dimension) for each layer, on the network's device.

        Args:
            images: of any size, with one channel (repeated to three) or three.
        """
        images = images.to(self.device).expand(-1, 3, -1, -1)
        # Only where it matters: the flags are the whole process's, and on a CPU several threads pass here at once.
        full_float32 = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with torch.inference_mode(), full_float32 if self.device.type == "cuda" else nullcontext():
            return self.module.convert_features_tuple_to_dict(self.module(images))


def find_extractor(root: Path, download: bool = True, report: Reporter = SILENT) -> Extractor:
    """Find the Inception weights: in the data root, in torch hub's cache, else downloaded there from torch-fidelity.

    The full weights come first wherever they are, then those that are exact up to 768 in the data root. Nothing is
    downloaded where either is there. What a file can give is read from its tensors, not from its name.

    A download is kept if it has the length that the server announced and is a file of weights. Its bytes are held to
    no digest: `self_check` is what tells the official weights from others, and it holds the 768 layer alone.

    Args:
        root: the data root.
        download: whether the weights may be downloaded.
        report: told about a download and how far it is.

    Raises:
        ExtractorNotFound: there are no weights; says what to put where.
        UserError: the file that was found is damaged or of another network, or its folder may not be searched.
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
            write_atomically(cached, lambda part: _download(part, report))
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
        UserError: the file is not whole, not a state dict of this network, or not finite from the first layer on.
    """
    state = _read_state(path)
    _module(state, ("64",), path)
    finite = {key for key, value in state.items() if bool(torch.isfinite(value).all())}
    layers = []
    for layer in LAYERS:
        needed = [key for key in state if key.startswith(_ADDED[layer])]
        if not finite.issuperset(needed):
            break
        layers.append(layer)
    if not layers:
        raise UserError(f"{path} holds NaN or infinite weights from the first layer on; download it again")
    return Extractor(path, sha256_of_file(path), tuple(layers))


def open_network(extractor: Extractor, layers: Sequence[str], device: torch.device) -> Network:
    """Load the network so that it stops after the highest of `layers`.

    Raises:
        UserError: the weights do not give a layer that is asked for, or the file changed since it was found.
    """
    if missing := [layer for layer in layers if layer not in extractor.layers]:
        raise UserError(
            f"{extractor.path} gives no layer {missing[0]}; its exact layers are: {', '.join(extractor.layers)}"
        )
    module = unchanged_module(extractor, layers)
    for block in module.modules():
        if isinstance(getattr(block, "bn", None), nn.BatchNorm2d):
            block.conv = fuse_conv_bn_eval(block.conv, block.bn)  # pyright: ignore[reportArgumentType]
            block.bn = nn.Identity()
    return Network(module.to(device=device, memory_format=torch.channels_last), device)  # pyright: ignore


def unchanged_module(extractor: Extractor, layers: Sequence[str]) -> FeatureExtractorInceptionV3:
    """Load torch-fidelity's module as it is: what `open_network` starts from, and is held to."""
    return _module(_read_state(extractor.path), layers, extractor.path)


def features_of(
    network: Network, images: UInt8[np.ndarray, "count channels height width"], start: int = 0
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Go through `images` from index `start` on, in batches: pairs of the first index and the features, in order.

    On a CPU as many batches are under way as torch has threads, each on one thread: that is faster than all threads
    on one batch, and gives the same features. Several processes (`jlebm.parallel`) are dealt the batches, and each of
    them yields the features of all.
    """
    firsts = range(start, len(images), network.batch_size)
    if parallel.size() == 1:
        yield from _computed(network, images, firsts)
        return
    mine = (
        (first, {layer: rows.cpu() for layer, rows in features.items()})
        for first, features in _computed(network, images, firsts[parallel.rank() :: parallel.size()])
    )
    for first, features in parallel.dealt(mine, len(firsts)):
        yield first, {layer: rows.to(network.device) for layer, rows in features.items()}


def _computed(
    network: Network, images: UInt8[np.ndarray, "count channels height width"], firsts: Sequence[int]
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Go through the batches that begin at `firsts`."""

    def pair(first: int) -> tuple[int, dict[str, Tensor]]:
        return first, network(torch.from_numpy(np.array(images[first : first + network.batch_size])))

    threads = torch.get_num_threads()
    if network.device.type != "cpu" or threads == 1:
        yield from map(pair, firsts)
        return
    under_way: deque[Future[tuple[int, dict[str, Tensor]]]] = deque()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for first in firsts:
            under_way.append(pool.submit(pair, first))
            if len(under_way) > threads:  # one more than can run, so that no thread waits for the consumer
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:  # also after an error, or where the consumer has seen enough
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # parts of torch count threads for the whole process


def fixed_images() -> UInt8[np.ndarray, "count=4 channels=3 height=32 width=32"]:
    """Make the images of the self-check, by integer arithmetic alone."""
    n, c, y, x = np.ogrid[:4, :3, :32, :32]
    return ((37 * n + 59 * c + 3 * x * x + 5 * (n + 1) * y + x * y) % 256).astype(np.uint8)


def self_check(extractor: Extractor, device: torch.device) -> None:
    """Hold the network's features of a few fixed images to the stored statistics of the official weights.

    The 768 features alone are held to their known mean and norm. The layers above them, which FID, IS, KID, precision
    and recall are computed from, are only asked to be finite.

    Raises:
        UserError: they differ, so the weights or the arithmetic of this machine are not the official ones.
    """
    layers = ("768",) if extractor.layers[-1] == "768" else ("768", extractor.layers[-1])
    given = open_network(extractor, layers, device)(torch.from_numpy(fixed_images()))
    if not bool(torch.isfinite(given[layers[-1]]).all()):
        raise UserError(f"{extractor.path} on {device}: the layer {layers[-1]} is not finite; download it again")
    features = given["768"].double()
    for name, measured, expected in (
        ("mean", features.mean().item(), EXPECTED_MEAN),
        ("norm", features.norm().item(), EXPECTED_NORM),
    ):
        if not abs(measured - expected) <= SELF_CHECK_TOLERANCE * expected:
            raise UserError(
                f"{extractor.path} on {device}: the {name} of the 768 features of the fixed images is {measured:.6g} "
                f"and must be {expected:.6g}, so these are not the Inception weights of 2015-12-05 (torchvision's "
                f"give other numbers), or {device} computes wrongly; use torch-fidelity's {FULL_WEIGHTS}"
            )


def _download(path: Path, report: Reporter) -> None:
    """Fetch the weights and see that they came whole."""
    with urllib.request.urlopen(URL_INCEPTION_V3, timeout=PATIENCE) as response, path.open("wb") as file:
        announced = int(response.headers.get("Content-Length") or 0)
        total = -(-announced // MEBIBYTE) or None
        with report.task("Inception weights, MiB", total) as task:
            while piece := response.read(MEBIBYTE):
                file.write(piece)
                task.advance()
        if announced and file.tell() != announced:
            raise OSError(f"{file.tell()} of {announced} bytes came")
    _read_state(path)


def _read_state(path: Path) -> dict[str, Tensor]:
    """Load a state dict, never executing what is in the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a pickle that is refused in the next breath
            state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} is not a whole file of weights ({reason}); download it again") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} is not a state dict of tensors; use torch-fidelity's {FULL_WEIGHTS}")
    return state


def _module(state: dict[str, Tensor], layers: Sequence[str], path: Path) -> FeatureExtractorInceptionV3:
    """Build torch-fidelity's module from a state dict that was read safely."""
    # The module loads its file with arbitrary pickles allowed: it is handed our own bytes instead of the file's.
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
