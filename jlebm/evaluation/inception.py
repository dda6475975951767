"""The metric network: torch-fidelity's Inception of 2015-12-05, checked and run fast.

The blocks and their weights are torch-fidelity's own. Features agree with those of its unchanged module
(`unchanged_module`) within 1e-4 relative, the tolerance that torch-fidelity declares. Changes for speed: the resize is
two matrix products, batch norm is folded into the convolutions, which are fused with their ReLU on a CPU, the memory
layout is channels-last, and the pass stops after the highest layer asked for. TF32 is off, as everywhere in the
project.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch_fidelity.feature_extractor_inceptionv3 import BasicConv2d, FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from jlebm.engines import parallel
from jlebm.engines.precision import convolutions
from jlebm.errors import UserError
from jlebm.evaluation.extractor import FULL_WEIGHTS, LAYERS, STAGES, Extractor, unchanged_module

# Statistics of the 768 features of `fixed_images` under the official weights, in float32 on a CPU.
EXPECTED_MEAN = 0.0351275596
EXPECTED_NORM = 4.5420888
SELF_CHECK_TOLERANCE = 1e-4  # relative: torch-fidelity's declared tolerance for features


class Network:
    """The Inception network, prepared to compute features of some layers on a device."""

    def __init__(self, module: FeatureExtractorInceptionV3, device: torch.device):
        self.module, self.device = module, device
        # Small batches keep a layer's output in a CPU's cache; a GPU needs large ones.
        self.batch_size = 256 if device.type == "cuda" else 8

    def __call__(self, images: UInt8[Tensor, "batch channels height width"]) -> dict[str, Tensor]:
        """Compute features, float32 (batch, dimension) for each layer, on the network's device.

        Args:
            images: images of any size, with one channel (repeated to three) or three.
        """
        # On a GPU alone: the flags belong to the whole process, and on a CPU several threads run here at once.
        full_float32 = convolutions(tf32=False)
        with torch.inference_mode(), full_float32 if self.device.type == "cuda" else nullcontext():
            return self._features(self._input(images.to(self.device)))

    def _input(self, images: Tensor) -> Tensor:
        """Scale to [-1, 1] and resize as TensorFlow 1 does: linear in rows and columns, hence two matrix products."""
        height, width = (_interpolation(size, self.module.INPUT_IMAGE_SIZE, self.device) for size in images.shape[2:])
        x = height @ ((images.float() - 128) / 128) @ width.T
        return x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)

    def _features(self, x: Tensor) -> dict[str, Tensor]:
        """Apply the layers up to the highest one asked for."""
        features = {}
        wanted = self.module.features_list
        for layer in LAYERS[: max(map(LAYERS.index, wanted)) + 1]:
            if layer == "logits_unbiased":
                features[layer] = features["2048"] @ self.module.fc.weight.T
            elif layer == "logits":
                features[layer] = features["logits_unbiased"] + self.module.fc.bias
            else:
                for name in STAGES[layer]:
                    x = self.module.get_submodule(name)(x)
                features[layer] = x.mean((2, 3))
        return {layer: features[layer] for layer in wanted}


class ConvolutionRelu(nn.Module):
    """A convolution with its ReLU in one oneDNN call; torch itself uses slower 1x1 products on one thread."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(conv(x))."""
        conv = self.conv
        return torch.ops.mkldnn._convolution_pointwise(
            x, conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups, "relu", [], ""
        )


def open_network(extractor: Extractor, layers: Sequence[str], device: torch.device) -> Network:
    """Load the network up to the highest of `layers`.

    Raises:
        UserError: the weights lack a layer that is asked for, or the file changed since it was found.
    """
    if missing := [layer for layer in layers if layer not in extractor.layers]:
        raise UserError(
            f"{extractor.path} gives no layer {missing[0]}; its exact layers are: {', '.join(extractor.layers)}"
        )
    module = unchanged_module(extractor, layers)
    fused = device.type == "cpu" and torch.backends.mkldnn.is_available()
    for parent in list(module.modules()):
        for name, block in parent.named_children():
            if isinstance(block, BasicConv2d):
                conv = fuse_conv_bn_eval(block.conv, block.bn)
                setattr(parent, name, ConvolutionRelu(conv) if fused else nn.Sequential(conv, nn.ReLU(inplace=True)))
    return Network(module.to(device=device, memory_format=torch.channels_last), device)  # pyright: ignore


def _interpolation(size: int, target: int, device: torch.device) -> Float[Tensor, "target size"]:
    """Return torch-fidelity's interpolation along one axis as a matrix, from its action on unit vectors."""
    unit = torch.eye(size, device=device)[None, None]
    return interpolate_bilinear_2d_like_tensorflow1x(unit, size=(target, size), align_corners=False)[0, 0]


def features_of(
    network: Network, images: UInt8[np.ndarray, "count channels height width"], start: int = 0
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yield the features of `images` from index `start` on, in batches: first index and features, in order.

    On a CPU torch's threads process one batch each: that is faster than all threads on one batch, and gives the same
    features. Several processes (`jlebm.engines.parallel`) share the batches, and each yields the features of all.
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
    """Compute the batches that begin at `firsts`."""

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
    finally:  # also after an error, or if the consumer stops early
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # in parts of torch the number of threads belongs to the whole process


def fixed_images() -> UInt8[np.ndarray, "count=4 channels=3 height=32 width=32"]:
    """Return the images of the self-check, made by integer arithmetic alone."""
    n, c, y, x = np.ogrid[:4, :3, :32, :32]
    return ((37 * n + 59 * c + 3 * x * x + 5 * (n + 1) * y + x * y) % 256).astype(np.uint8)


def self_check(extractor: Extractor, device: torch.device) -> None:
    """Compare the features of a few fixed images with the stored statistics of the official weights.

    The 768 features must match their known mean and norm. The layers above them, which give FID, IS, KID, precision
    and recall, must only be finite.

    Raises:
        UserError: they differ, so the weights are not the official ones or this machine computes wrongly.
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
