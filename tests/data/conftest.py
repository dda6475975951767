"""Small images in the formats that people have, and a catalogue that takes them."""

import io
import json
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jlebm.data.catalogue import CATALOGUE


class Maker:
    """Writes small datasets."""

    def noise(self, count: int, height: int, width: int, channels: int) -> np.ndarray:
        """Give random pixels, uint8 (N, H, W, C)."""
        return np.random.default_rng(0).integers(0, 256, (count, height, width, channels), np.uint8)

    def png(self, pixels: np.ndarray) -> bytes:
        """Encode uint8 (H, W, C) pixels without loss."""
        buffer = io.BytesIO()
        Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
        return buffer.getvalue()

    def edm(self, images: np.ndarray, labels: Sequence[int] | None) -> dict[str, bytes]:
        """Name and encode images as the EDM dataset tool does."""
        files = {f"00000/img{index:08d}.png": self.png(image) for index, image in enumerate(images)}
        pairs = None if labels is None else [[name, label] for name, label in zip(files, labels, strict=True)]
        return files | {"dataset.json": json.dumps({"labels": pairs}).encode()}

    def zip(self, path: Path, files: Mapping[str, bytes]) -> Path:
        """Write files into a zip."""
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return path

    def folder(self, path: Path, files: Mapping[str, bytes]) -> Path:
        """Write files into a folder."""
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        return path

    def mnist(self, root: Path, images: np.ndarray, labels: Sequence[int], dataset: str = "MNIST") -> Path:
        """Write images (N, 28, 28, 1) as both splits of torchvision's MNIST layout."""
        raw = root / dataset / "raw"
        raw.mkdir(parents=True)
        for split in ("train", "t10k"):
            header = struct.pack(">4i", 0x803, *images.shape[:3])
            (raw / f"{split}-images-idx3-ubyte").write_bytes(header + images.tobytes())
            header = struct.pack(">2i", 0x801, len(labels))
            (raw / f"{split}-labels-idx1-ubyte").write_bytes(header + bytes(labels))
        return raw


@pytest.fixture(scope="session")
def make() -> Maker:
    return Maker()


@pytest.fixture
def images(make: Maker) -> np.ndarray:
    """Seven images of CIFAR-10's size, uint8 (N, H, W, C)."""
    return make.noise(7, 32, 32, 3)


@pytest.fixture
def labels() -> list[int]:
    return [6, 9, 9, 4, 1, 1, 2]


@pytest.fixture
def any_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every dataset of the catalogue have any count and any digest."""
    for name, entry in list(CATALOGUE.items()):
        monkeypatch.setitem(CATALOGUE, name, replace(entry, counts={}, digests={}))
