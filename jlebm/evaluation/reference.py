"""Feature statistics of a reference set: computed once, cached under a digest, resumed if interrupted.

For each layer, the moments of the even-indexed and of the odd-indexed images are summed in float64 in one pass, which
gives the whole set and both halves in constant memory. KID, precision and recall need the features themselves: those of
the 2048 layer are stored beside the moments as float32 `.npy`.
"""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from jaxtyping import Float, UInt8

from jlebm.archives import Damaged
from jlebm.data import Dataset
from jlebm.engines import parallel
from jlebm.errors import UserError
from jlebm.evaluation.extractor import Extractor
from jlebm.evaluation.holding import held, writing
from jlebm.evaluation.inception import Network, features_of, open_network
from jlebm.evaluation.moments import Moments
from jlebm.files import atomic_write, growing, open_regular
from jlebm.npz import UNREADABLE, read_arrays
from jlebm.progress import SILENT, Reporter

FORMAT_VERSION = 1  # version of the cache files; part of their digest
KEPT_LAYER, KEPT_DIMENSION = "2048", 2048  # the layer whose features are stored, for KID, precision and recall
SAVE_SECONDS = 60.0  # the most work that an interruption loses


@dataclass(frozen=True)
class Reference:
    """Feature statistics of a reference set."""

    moments: dict[str, Moments]  # by layer
    features: Float[np.ndarray, "count dimension"] | None  # those of `KEPT_LAYER`, if asked for; memory-mapped


def reference_subset(
    images: UInt8[np.ndarray, "count channels height width"], number: int | None
) -> UInt8[np.ndarray, "number channels height width"]:
    """Return `number` evenly spaced images (None: all), so that sorting by class leaves no class out.

    Raises:
        UserError: there are fewer images, or `number` is less than one.
    """
    if number is None or number == len(images):
        return images
    if not 1 <= number < len(images):
        raise UserError(
            f"{number} reference images were asked for and there are {len(images)}; ask for 1 to {len(images)}"
        )
    return images[np.arange(number) * len(images) // number]


@dataclass(frozen=True)
class ReferenceSet:
    """The images that samples are compared with, and the folder that caches their statistics."""

    dataset: Dataset
    cache: Path
    number: int | None = None  # how many images of the dataset, evenly spaced (`reference_subset`); None for all

    @property
    def images(self) -> UInt8[np.ndarray, "number channels height width"]:
        """The images.

        Raises:
            UserError: `number` is out of range.
        """
        return reference_subset(self.dataset.images, self.number)


def load_reference(
    reference: ReferenceSet,
    extractor: Extractor,
    layers: Sequence[str],
    device: torch.device,
    report: Reporter = SILENT,
) -> Reference:
    """Load the statistics of a reference set from its cache, or compute and cache them.

    An interrupted pass resumes from its last save, and so loses at most `SAVE_SECONDS` of work. A damaged cache file is
    recomputed. If another process computes the same statistics, this one waits for it.

    Args:
        reference: the images and the cache folder.
        extractor: the weights.
        layers: the layers to load; `KEPT_LAYER` among them asks for its features too.
        device: where to compute.
        report: receives the progress, and a message while waiting for another process.

    Raises:
        UserError: the cache folder cannot be written, the disk is full, or `number` is out of range.
    """
    dataset, cache, images = reference.dataset, reference.cache, reference.images
    entries = {layer: _Entry.of(cache, dataset, extractor, layer, len(images)) for layer in layers}
    parallel.barrier()  # all processes see the cache as the first one left it
    known = {layer: entry.load(device) for layer, entry in entries.items()}
    missing = {layer: entry for layer, entry in entries.items() if not entry.is_complete(known[layer])}
    if missing:
        name = f"reference statistics of {dataset.name} ({dataset.split})"
        locks = [entry.lock for entry in missing.values()] if parallel.first() else []
        with writing(cache), held(locks, name, report):
            parallel.barrier()  # the first process holds the locks for all
            known |= {layer: entry.load(device) for layer, entry in missing.items()}  # as another process left them
            missing = {layer: entry for layer, entry in missing.items() if not entry.is_complete(known[layer])}
            if missing:
                network = open_network(extractor, list(missing), device)
                begun = {layer: known[layer] for layer in missing}
                known |= _go_through(images, missing, begun, network, name, report)
            parallel.barrier()
    moments = {layer: sums for layer, sums in known.items() if sums is not None}
    features = np.load(entries[KEPT_LAYER].features, mmap_mode="r") if KEPT_LAYER in layers else None
    return Reference(moments, features)


@dataclass(frozen=True)
class _Entry:
    """The cache files of one layer."""

    moments: Path  # .npz of the sums over the images processed so far
    features: Path  # .npy of `KEPT_LAYER`, moved here when it is complete
    key: str  # the text whose digest is in the name
    images: int

    @classmethod
    def of(cls, cache: Path, dataset: Dataset, extractor: Extractor, layer: str, images: int) -> "_Entry":
        key = json.dumps([FORMAT_VERSION, dataset.digest, extractor.digest, layer, images])
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        stem = f"reference-{dataset.name}-{dataset.split}-{images}-{layer}-{digest}"
        features = cache / (f"{stem}.npy" if layer == KEPT_LAYER else "")
        return cls(cache / f"{stem}.npz", features, key, images)

    @property
    def keeps_features(self) -> bool:
        return self.features.suffix == ".npy"

    @property
    def lock(self) -> Path:
        return self.moments.with_suffix(".lock")

    @property
    def begun_features(self) -> Path:
        return self.features.with_suffix(".part")

    def load(self, device: torch.device) -> Moments | None:
        """Read the sums; None if they are missing or damaged.

        Raises:
            UserError: the file exists and may not be read: recomputed sums could not be stored either.
        """
        if not self.moments.is_file():
            return None
        with open_regular(self.moments) as file:
            try:
                # Twice the largest layer's sums: a larger file is something else.
                arrays = read_arrays(file, 4 * 8 * KEPT_DIMENSION**2)
            except Damaged:
                return None
        if arrays.keys() != {"key", "count", "total", "product"} or str(arrays["key"]) != self.key:
            return None
        count, total, product = arrays["count"], arrays["total"], arrays["product"]
        sides = (2, *total.shape[1:])
        shapes = (count.shape, total.shape, product.shape) == ((2,), sides, (*sides, sides[-1])) and len(sides) == 2
        if not shapes or (count.dtype, total.dtype, product.dtype) != (np.int64, np.float64, np.float64):
            return None
        gone = int(count.sum())
        if count.tolist() != [gone - gone // 2, gone // 2] or not 0 < gone <= self.images:
            return None
        if not np.isfinite(total).all() or not np.isfinite(product).all():
            return None
        sums = (torch.from_numpy(total).to(device), torch.from_numpy(product).to(device))
        return Moments(torch.from_numpy(count), *sums)

    def save(self, moments: Moments) -> None:
        arrays = {name: getattr(moments, name).cpu().numpy() for name in ("count", "total", "product")}
        with atomic_write(self.moments) as file:
            np.savez(file, key=np.array(self.key), **arrays)

    def is_complete(self, moments: Moments | None) -> bool:
        """Whether the entry is complete; the stored features must add up to the stored sums."""
        if moments is None or int(moments.count.sum()) != self.images:
            return False
        if not self.keeps_features:
            return True
        total = moments.total.sum(0).cpu().numpy()
        if not self.features.is_file():
            return False
        with open_regular(self.features):  # an unreadable file is an error, not recomputed
            try:
                with warnings.catch_warnings(action="ignore"):
                    features = np.load(self.features, mmap_mode="r", allow_pickle=False)
            except UNREADABLE:
                return False
        if (features.shape, features.dtype) != ((self.images, len(total)), np.float32):
            return False
        return np.allclose(features.sum(0, dtype=np.float64), total, rtol=1e-9)

    def resumes_at(self, moments: Moments | None) -> int:
        """Return the number of images that need not be processed again."""
        gone = 0 if moments is None else int(moments.count.sum())
        if gone == self.images or (self.keeps_features and not self.begun_features.is_file()):
            return 0
        return gone


def _go_through(
    images: UInt8[np.ndarray, "count channels height width"],
    entries: Mapping[str, _Entry],
    begun: Mapping[str, Moments | None],
    network: Network,
    name: str,
    report: Reporter,
) -> dict[str, Moments]:
    """Sum the features of every layer of `entries` in one pass, saving periodically."""
    starts = {entry.resumes_at(begun[layer]) for layer, entry in entries.items()}
    start = starts.pop() if len(starts) == 1 else 0
    moments = {layer: sums for layer, sums in begun.items() if sums is not None} if start else {}
    saved = time.monotonic()
    kept = entries.get(KEPT_LAYER)
    with ExitStack() as stack:
        writes = parallel.first()
        handle = stack.enter_context(_rows(kept, start)) if kept is not None and writes else None
        task = stack.enter_context(report.task(name, len(images)))
        task.advance(start)
        for first, features in features_of(network, images, start):
            for layer in entries:
                rows = features[layer]
                if layer not in moments:
                    moments[layer] = Moments.zero(rows.shape[1], network.device)
                moments[layer].add(rows, first)
            if handle is not None:
                handle.write(features[KEPT_LAYER].cpu().numpy().tobytes())
            task.advance(len(next(iter(features.values()))))
            if writes and time.monotonic() - saved > SAVE_SECONDS:
                if handle is not None:
                    handle.flush()
                for layer, entry in entries.items():
                    entry.save(moments[layer])
                saved = time.monotonic()
    if writes:
        if kept is not None:
            kept.begun_features.replace(kept.features)
        for layer, entry in entries.items():
            entry.save(moments[layer])
    return moments


@contextmanager
def _rows(entry: _Entry, start: int) -> Iterator[BinaryIO]:
    """Open the file of features at row `start`; it is written, not mapped, so that a full disk raises an error."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (entry.images, KEPT_DIMENSION)}
    with growing(entry.begun_features, "r+b" if start else "wb") as handle:
        np.lib.format.write_array_header_1_0(handle, header)
        handle.seek(start * KEPT_DIMENSION * 4, os.SEEK_CUR)
        yield handle
