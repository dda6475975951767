"""Images from a trained model: image i from seed i alone, streamed to files that can be memory-mapped."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from jlebm.choices import Prior
from jlebm.config import Config, check_choices
from jlebm.devices import within_memory
from jlebm.engines import parallel
from jlebm.engines.precision import arithmetic
from jlebm.errors import UserError
from jlebm.files import atomic_write
from jlebm.images import NotFinite, to_float, to_uint8
from jlebm.langevin import Chain
from jlebm.latents import Latents, flatten, map_latents
from jlebm.model import JointModel
from jlebm.progress import SILENT, Reporter
from jlebm.randomness import GENERATOR, Noise, Scheme, image_noise

BATCH = 500  # images per batch
BATCH_OF_VECTORS = 2_500  # images per batch on a GPU if all latents are vectors

Decoding = Literal["mean", "sample"]


class Samples(NamedTuple):
    """A batch of decoded images and the latents that they were decoded from."""

    images: UInt8[Tensor, "batch channels height width"]
    latents: Latents


@dataclass(frozen=True)
class Sampler(Config):
    """How images are drawn from a trained model; the paper's by default (docs/facts, "Sampling and evaluation")."""

    chain: Chain
    """Chain of the EBM prior, at test time."""
    temperature: float = 1.0
    """Multiplies every sigma of the hierarchy when noise is mapped to latents."""
    batch_norm: Literal["trained", "re-estimated"] = "trained"
    """Statistics of the decoder's batch norms: from training, or re-estimated on samples of the Gaussian prior."""
    decoding: Literal["mean", "sample"] = "mean"
    """The decoder's mean, or a draw from its distribution."""
    noise: Scheme = field(default=GENERATOR, metadata={"since": "0.2"})
    """Scheme of the images' noise (docs/noise)."""

    def __post_init__(self) -> None:
        """Refuse a negative temperature, and one that the chain cannot use."""
        check_choices(self)
        if not self.temperature >= 0:
            raise UserError(f"the temperature must be 0 or more, not {self.temperature}")
        if self.temperature != 1 and self.chain.space == "latents":
            raise UserError(
                f"sampler.temperature {self.temperature:g} needs a chain in whitened noise; set sampler.chain.space to "
                "'noise' or the temperature to 1"
            )

    @property
    def drawing(self) -> "Drawing":
        """The decoding and the noise, which posterior samples take too."""
        return Drawing(self.decoding, self.noise)

    def describe(self, chain: bool) -> str:
        """Describe the sampler in a few words, for a row of results: with its chain, or for the hierarchy alone."""
        parts = [self.chain.describe()] if chain else []
        if self.temperature != 1:
            parts.append(f"hierarchy at temperature {self.temperature:g}")
        if self.batch_norm != "trained":
            parts.append(f"batch norm {self.batch_norm}")
        noise = [] if self.noise == GENERATOR else [f"noise {self.noise}"]
        return "; ".join([*parts, f"decoder's {self.decoding}", *noise])


@dataclass(frozen=True)
class Drawing:
    """The part of a sampler that posterior samples take: decoding and noise."""

    decoding: Decoding = "mean"
    noise: Scheme = GENERATOR


def generate(
    model: JointModel,
    prior: Prior,
    seeds: Sequence[int],
    sampler: Sampler,
    batch_size: int | None = None,
) -> Iterator[Samples]:
    """Draw one image per seed from the EBM prior or from the Gaussian hierarchy alone, in the seeds' order.

    Image i is decoded from latents that depend on seed i alone: its noise is the same to the bit for every batch size
    and device, the image up to the rounding of float32. Several processes (`jlebm.engines.parallel`) share the work by
    whole batches: their images are those of one process, and each process yields all of them.

    Args:
        model: the trained model.
        prior: "ebm-prior" or "gaussian-prior".
        seeds: one per image.
        sampler: the chain of the EBM prior (the Gaussian prior runs none), the temperature and the decoding. The
            temperature multiplies every sigma of the hierarchy when noise is mapped to latents; for the EBM prior,
            after the last step of its chain. `generate` uses the model's own batch-norm statistics.
        batch_size: images per batch; None for the size that fills the model's device.
    """
    size = batch_size or filling_batch(model)

    def draw(first: int) -> Samples:
        chosen = seeds[first : first + size]
        noise = image_noise("sample", chosen, sampler.noise)
        if prior == "ebm-prior":
            latents = model.sample_prior(len(chosen), sampler.chain, noise, temperature=sampler.temperature)
        else:
            latents = model.sample_gaussian(len(chosen), noise, sampler.temperature)
        return decoded(model, latents, noise if sampler.decoding == "sample" else None)

    yield from dealt(draw, len(seeds), size)


def filling_batch(model: JointModel) -> int:
    """Return the batch size that fills the model's device: on vectors, a CPU's batch leaves a GPU mostly idle."""
    vectors = all(len(shape) == 1 for shape in model.backbone.latent_shapes)
    return BATCH_OF_VECTORS if vectors and next(model.parameters()).is_cuda else BATCH


def reconstruct(
    model: JointModel,
    images: np.ndarray,
    chosen: Sequence[int],
    chain: Chain | None,
    batch_size: int = 100,
    drawn: Drawing = Drawing(),
) -> Iterator[Samples]:
    """Decode one posterior sample of each chosen image: the best that any prior could reach with this decoder.

    Args:
        model: the trained model.
        images: uint8 (N, C, H, W).
        chosen: indices of the images to use; the noise of image i depends on i alone. Index N + i is image i again,
            with other noise.
        chain: the posterior's chain; None draws from the inference network.
        batch_size: images per batch.
        drawn: the decoder's mean or a draw from its distribution, and the scheme of the noise.
    """

    def draw(first: int) -> Samples:
        indices, x = batch_of(model, images, chosen[first : first + batch_size])
        noise = image_noise("posterior", indices, drawn.noise)
        latents = model.sample_posterior(x, chain, noise)
        return decoded(model, latents, noise if drawn.decoding == "sample" else None)

    yield from dealt(draw, len(chosen), batch_size)


def batch_of(
    model: JointModel, images: np.ndarray, chosen: Sequence[int]
) -> tuple[list[int], Float[Tensor, "batch channels height width"]]:
    """Return the indices as plain ints, and their images (N + i is i again) in [-1, 1], in the model's dtype."""
    indices = [int(index) for index in chosen]
    like = next(model.parameters())
    x = torch.from_numpy(np.stack([images[index % len(images)] for index in indices])).to(like.device)
    return indices, to_float(x).to(like.dtype)


def dealt(draw: Callable[[int], Samples], count: int, batch_size: int) -> Iterator[Samples]:
    """Yield all batches in order, each drawn by the process in charge of it.

    Raises:
        OutOfMemory: a batch does not fit a GPU's memory.
    """
    firsts = range(0, count, batch_size)

    def drawn(first: int) -> Samples:
        with within_memory("draw fewer images at a time (batch_size, --batch), or take a GPU with more memory"):
            return draw(first)

    if parallel.size() == 1:
        yield from map(drawn, firsts)
    else:  # by way of the CPU, where processes exchange data
        mine = (Samples(*_cpu(drawn(first))) for first in firsts[parallel.rank() :: parallel.size()])
        yield from parallel.dealt(mine, len(firsts))


def _cpu(batch: Samples) -> tuple[Tensor, Latents]:
    return batch.images.cpu(), map_latents(Tensor.cpu, batch.latents)


def decoded(model: JointModel, latents: Latents, noise: Noise | None = None) -> Samples:
    """Decode latents: the decoder's mean, or a draw from its distribution if noise is given.

    Raises:
        NotFinite: a value of an image is NaN or infinite.
    """
    with torch.no_grad(), arithmetic(model.backbone):
        likelihood = model.backbone.decode(latents)
        return Samples(to_uint8(likelihood.mean if noise is None else likelihood.sample_image(noise)), latents)


def gathered(batches: Iterator[Samples]) -> UInt8[np.ndarray, "count channels height width"]:
    """Return the images of all batches in one array."""
    return np.concatenate([batch.images.cpu().numpy() for batch in batches])


class SampleFiles(NamedTuple):
    """The files that `write` made, memory-mapped read-only."""

    images: np.ndarray
    """uint8 (N, C, H, W)."""
    latents: np.ndarray
    """float32 (N, D), or fewer rows: all layers side by side, top first."""


def open_files(path: Path) -> SampleFiles:
    """Return the files that `write` made at a path, which must be whole."""
    return SampleFiles(np.load(path, mmap_mode="r"), np.load(latents_path(path), mmap_mode="r"))


def latents_path(path: Path) -> Path:
    """Return the file of the latents beside that of the images."""
    return path.with_name(f"{path.stem}-latents.npy")


def write(
    path: Path,
    batches: Iterator[Samples],
    count: int,
    report: Reporter = SILENT,
    name: str = "sampling",
    latents: int | None = None,
) -> SampleFiles:
    """Stream `count` samples to `path` (.npy) and their latents beside it, in constant memory.

    Args:
        path: the file of the images.
        batches: `count` samples.
        count: number of samples.
        report: receives the progress.
        name: name of the task, for the report.
        latents: number of samples whose latents are stored, which in a deep hierarchy are many times larger than the
            images; None for all.

    Raises:
        UserError: there is no sample, or the disk is full; files of an earlier call stay whole.
        NotFinite: an image or a latent is NaN or infinite; files of an earlier call stay whole.
    """
    if count < 1:
        raise UserError(f"no image would be in {path}; draw at least one")
    kept = count if latents is None else min(count, latents)
    if parallel.first():
        with atomic_write(path) as images, atomic_write(latents_path(path)) as file:
            _stream(batches, count, kept, images, file, report.task(name, count))
    else:  # the first process writes its batches
        for _ in batches:
            pass
    parallel.barrier()
    return open_files(path)


def _stream(
    batches: Iterator[Samples],
    count: int,
    kept: int,
    images: BinaryIO,
    latents: BinaryIO,
    task: AbstractContextManager,
) -> None:
    # Plain writes rather than a writable memory map: a full disk then raises an error instead of killing the process.
    done = 0
    with task as progress:
        for batch in batches:
            wanted = flatten(batch.latents)[: max(kept - done, 0)].float()
            for file, value, rows in ((images, batch.images, count), (latents, wanted, kept)):
                array = np.ascontiguousarray(value.cpu().numpy())
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    raise NotFinite(
                        "the trained network gives latents that are not finite; nothing of them is stored: train it in "
                        "another --runs with smaller learning rates, or a smaller epsilon of the chains"
                    )
                if done == 0:
                    header = {
                        "descr": array.dtype.str,
                        "fortran_order": False,
                        "shape": (rows, *array.shape[1:]),
                    }
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(array.tobytes())
            done += len(batch.images)
            progress.advance(len(batch.images))
    if done != count:
        raise ValueError(f"{count} samples were announced, {done} came")
