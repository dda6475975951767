"""Inception features of a reference set, image by image: computed once, kept in a file, resumed if interrupted."""

import hashlib
import json
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from jlebm.engines import parallel
from jlebm.evaluation.extractor import Extractor
from jlebm.evaluation.holding import held, writing
from jlebm.evaluation.inception import features_of, open_network
from jlebm.evaluation.reference import ReferenceSet
from jlebm.files import growing
from jlebm.npz import UNREADABLE
from jlebm.progress import SILENT, Reporter

FORMAT_VERSION = 1  # version of the files; part of their digest
LAYER, DIMENSION = "768", 768
HEADER = 128  # bytes before the first row of an array file


def features(
    images: UInt8[np.ndarray, "count channels height width"],
    extractor: Extractor,
    device: torch.device,
    report: Reporter = SILENT,
) -> Float32[np.ndarray, "count dimension"]:
    """Return the 768 Inception features of images, in memory.

    Raises:
        UserError: the weights do not give the layer 768.
    """
    network, parts = open_network(extractor, (LAYER,), device), []
    with report.task("Inception features of the images", len(images)) as task:
        for _, found in features_of(network, images):
            parts.append(found[LAYER].cpu().numpy())
            task.advance(len(parts[-1]))
    return np.concatenate(parts)


def kept_features(
    reference: ReferenceSet, extractor: Extractor, device: torch.device, report: Reporter = SILENT
) -> Float32[np.ndarray, "number dimension"]:
    """Return the 768 Inception features of each image of a reference set, from the cache or computed into it.

    An interrupted pass resumes after its last whole batch. A file of another length is computed anew. If another
    process computes the same features, this one waits for it.

    Args:
        reference: the images and the cache folder.
        extractor: the weights, which give the layer 768.
        device: where to compute.
        report: receives the progress.

    Raises:
        UserError: the cache folder cannot be written, the disk is full, or `reference.number` is out of range.
    """
    dataset, images = reference.dataset, reference.images
    key = json.dumps([FORMAT_VERSION, dataset.digest, extractor.digest, LAYER, len(images)])
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    path = reference.cache / f"features-{dataset.name}-{dataset.split}-{len(images)}-{LAYER}-{digest}.npy"
    name = f"features of {dataset.name} ({dataset.split})"
    locks = [path.with_suffix(".lock")] if parallel.first() else []
    with writing(reference.cache), held(locks, name, report):
        parallel.barrier()  # the first process holds the lock for all
        if _whole(path, len(images)) is None:
            _compute(path, images, (extractor, device), name, report)
        parallel.barrier()
    whole = _whole(path, len(images))
    assert whole is not None
    return whole


def _whole(path: Path, count: int) -> np.ndarray | None:
    if not path.is_file():
        return None
    try:
        with warnings.catch_warnings(action="ignore"):
            found = np.load(path, mmap_mode="r", allow_pickle=False)
    except UNREADABLE:
        return None
    return found if (found.shape, found.dtype) == ((count, DIMENSION), np.float32) else None


def _compute(path: Path, images: np.ndarray, by: tuple[Extractor, torch.device], name: str, report: Reporter) -> None:
    network = open_network(by[0], (LAYER,), by[1])
    part, row = path.with_suffix(".part"), 4 * DIMENSION
    done = max(0, part.stat().st_size - HEADER) // row if part.is_file() else 0
    start = min(done, len(images)) // network.batch_size * network.batch_size
    parallel.barrier()  # all processes begin at one image
    if not parallel.first():
        for _ in features_of(network, images, start):
            pass
        return
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(images), DIMENSION)}
    with growing(part, "r+b" if start else "wb") as file, report.task(name, len(images)) as task:
        np.lib.format.write_array_header_1_0(file, header)
        assert file.tell() == HEADER
        file.seek(start * row, os.SEEK_CUR)
        task.advance(start)
        for _, found in features_of(network, images, start):
            rows = np.ascontiguousarray(found[LAYER].cpu().numpy(), "<f4")
            file.write(rows.tobytes())
            file.flush()
            task.advance(len(rows))
    part.replace(path)
