"""Weights, checkpoints and stored arrays against damaged and odd files: read, or refused with one sentence.

Each format is given a number of inputs of its own, by seed; the environment variable JLEBM_FUZZ says how many.
"""

import copy
import hashlib
import io
import json
import math
import os
import random
import struct
import zipfile
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jlebm import checkpoints
from jlebm.backbones.nvae import load_nvae, save_nvae
from jlebm.errors import UserError
from jlebm.evaluation import extractor, reference
from jlebm.training import initial_state
from reproduce.results import artifact, golden
from tests.small import backbone, experiment, train

INPUTS = int(os.environ.get("JLEBM_FUZZ", "30"))  # of each format
CPU = torch.device("cpu")
RUN = dict.fromkeys(artifact.RUN, "text") | {"seed": 1}
KEY = "[1]"
DEEP: list[Any] = []
for _ in range(500):
    DEEP = [DEEP]
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 7, 10**6, 10**30, 0.5, math.nan, math.inf, "", "text", "\ud800", b"bytes", (), [], {}, DEEP),
    *({"a": 1}, {1: 2}, [1, "2"], Namespace(a=1), torch.Size([2, 3]), torch.float16),
    *(torch.zeros(()), torch.zeros(0), torch.zeros(3, 4), torch.ones(2, dtype=torch.int64), torch.full((2,), math.nan)),
    *(torch.zeros(1).expand(10**9), torch.zeros(2, dtype=torch.complex64), torch.zeros(1, dtype=torch.float16)),
    *(np.float64(1), np.int64(3), np.bool_(True), torch.zeros(2, 2).to_sparse()),
)


@dataclass(frozen=True)
class Format:
    """A kind of file: a whole one, its reader, and ways to write odd content into a container that is whole."""

    content: Any
    write: Callable[[Any, Path], None]
    read: Callable[[Path], Any]
    sealed: bool
    """Whether each bit of it is held by a digest or a CRC."""


def checkpoint(folder: Path) -> Format:
    run, _ = train(folder, stop_after=2)
    fresh = initial_state(experiment(), 1, CPU)
    digest = experiment().digest()
    content = torch.load(run.checkpoint, weights_only=True)

    def read(path: Path) -> None:
        fresh.load_state_dict(checkpoints.load(path, digest, 1))

    return Format(content, by_torch(False), read, True)


def published(legacy: bool = False) -> Format:
    network = backbone()
    sizes = {name: value for name, value in vars(network.config).items() if not name.startswith("image_")}
    args = Namespace(**sizes, dataset="pictures_16", learning_rate=np.float64(0.01))
    content = {"epoch": 1, "state_dict": dict(network.state_dict()), "args": args}
    return Format(content, by_torch(legacy), load_nvae, not legacy)


def inception() -> Format:
    state = {"Conv2d_1a_3x3.conv.weight": torch.randn(4, 3, 3, 3), "fc.bias": torch.randn(5)}
    return Format(state, by_torch(False), extractor._read_state, True)


def by_torch(legacy: bool) -> Callable[[Any, Path], None]:
    def write(content: Any, path: Path) -> None:
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)

    return write


def weights(content: bytes, read: Callable[[Path], Any]) -> Format:
    """A safetensors file, whose header is its content; what is written has the digest that it should have."""
    length = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:length])
    header["__metadata__"] = json.loads(header["__metadata__"]["jlebm"])

    def write(header: Any, path: Path) -> None:
        about = header.get("__metadata__")
        if isinstance(about, dict) and "sha256" in about:
            about = about | {"sha256": checkpoints.NOT_YET}
        text = json.dumps(header | {"__metadata__": {"jlebm": json.dumps(about)}}).encode()
        whole = len(text).to_bytes(8, "little") + text + content[length:]
        sha256 = hashlib.sha256(whole).hexdigest()
        path.write_bytes(whole.replace(checkpoints._entry(checkpoints.NOT_YET), checkpoints._entry(sha256), 1))

    return Format(header, write, read, True)


def stored_artifact() -> Format:
    arrays = {"energy": np.linspace(0, 1, 60).reshape(3, 20), "images": np.zeros((2, 3, 4, 4), np.uint8)}
    text = io.BytesIO()
    run = RUN | {"arrays_digest": artifact._digest(arrays)}
    np.savez_compressed(text, provenance=np.array(json.dumps(run)), **arrays)
    content: dict[str, Any] = {**arrays, "provenance": run}

    def write(content: Any, path: Path) -> None:
        given = {str(name): np.asarray(value, dtype_of(value)) for name, value in content.items()}
        if "provenance" in content:
            given["provenance"] = np.array(json.dumps(content["provenance"], default=str))
        with path.open("wb") as file:
            np.savez_compressed(file, **given)  # pyright: ignore

    def dtype_of(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            raise TypeError("numpy would make an object of each of its numbers")
        return value.dtype if isinstance(value, np.ndarray) else object

    return Format(content, write, lambda path: artifact.read_artifact(path, ("energy",), []), False)


def cached() -> Format:
    content = {"key": KEY, "count": np.array([2, 1]), "total": np.ones((2, 3)), "product": np.ones((2, 3, 3))}

    def write(content: Any, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **{str(name): np.array(value, None) for name, value in content.items() if fits(value)})  # pyright: ignore

    def fits(value: Any) -> bool:
        return isinstance(value, np.ndarray | str | int | float)

    return Format(content, write, lambda path: reference._Entry(path, Path(), KEY, 3).load(CPU), False)


def curves() -> Format:
    def write(content: Any, path: Path) -> None:
        path.write_text(json.dumps(content, default=str))

    def read(path: Path) -> None:
        golden.compare({"loss": [1.0, 2.0]}, path, "cpu", rtol=0.1, atol=0.1, command="")

    return Format({"cpu": {"loss": [1.0, 2.0]}, "cuda": {"loss": [1.0]}}, write, read, False)


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Format]:
    folder = tmp_path_factory.mktemp("runs")
    checkpoints.save_weights(folder / "weights", torch.nn.Linear(4, 3), {"config": {"a": 1}, "step": 3})
    save_nvae(folder / "own", backbone())
    return {
        "checkpoint": checkpoint(folder / "new"),
        "published NVAE": published(),
        "legacy NVAE": published(legacy=True),
        "own NVAE": weights((folder / "own").read_bytes(), load_nvae),
        "weights": weights((folder / "weights").read_bytes(), checkpoints.load_weights),
        "Inception": inception(),
        "artifact": stored_artifact(),
        "cached sums": cached(),
        "golden curves": curves(),
    }


# ---- mutations


def flipped(content: bytes, dice: random.Random) -> bytes:
    changed = bytearray(content)
    changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def cut(content: bytes, dice: random.Random) -> bytes:
    return content[: dice.randrange(len(content))]


def spliced(content: bytes, dice: random.Random) -> bytes:
    """Overwrite, insert, repeat or leave out a piece."""
    at, other = dice.randrange(len(content)), dice.randrange(len(content))
    piece = dice.choice(
        (content[other : other + dice.randrange(1, 400)], bytes(dice.randrange(1, 90)), b"\xff" * 8, b"")
    )
    skipped = dice.choice((0, len(piece), dice.randrange(200)))
    return content[:at] + piece + content[at + skipped :]


def head_changed(content: bytes, dice: random.Random) -> bytes:
    """Change some bytes near the beginning or the end, where sizes and names stand."""
    changed = bytearray(content)
    for _ in range(dice.randrange(1, 6)):
        near = dice.randrange(min(300, len(changed)))
        changed[near if dice.random() < 0.5 else -1 - near] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
    return bytes(changed)


def repacked(content: bytes, dice: random.Random) -> bytes:
    """Change members of an archive and make an archive of them again, whose every CRC is right."""
    if content[:2] != b"PK":
        return spliced(spliced(content, dice), dice)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        kind = archive.infolist()[0].compress_type
        members = [[name, archive.read(name)] for name in archive.namelist()]
    for _ in range(dice.randrange(1, 3)):
        one, other = dice.choice(members), dice.choice(members)
        match dice.randrange(6):
            case 0:
                one[1], other[1] = other[1], one[1]
            case 1 if len(members) > 1:
                members.remove(one)
            case 2:
                one[0] = dice.choice((other[0], one[0] + "x", "data.pkl", "../up", ""))
            case _ if one[1]:
                one[1] = dice.choice((flipped, cut, spliced, head_changed))(one[1], dice)
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", kind) as archive:
        for name in dict.fromkeys(name for name, _ in members):
            archive.writestr(zipfile.ZipInfo(name), dict(members)[name], kind)  # pyright: ignore
    return whole.getvalue()


def pickle_changed(content: bytes, dice: random.Random) -> bytes:
    """Change the pickle of an archive, whose every CRC is right."""
    if content[:2] != b"PK":
        return head_changed(content, dice)
    whole = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(whole, "w") as changed:
        for name in archive.namelist():
            member = archive.read(name)
            if name.endswith(("data.pkl", ".npy")):
                member = dice.choice((flipped, flipped, spliced, head_changed))(member, dice)
            changed.writestr(zipfile.ZipInfo(name), member)
    return whole.getvalue()


def places(content: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the ways to everything in nested dictionaries and lists."""
    inside: Any = vars(content) if isinstance(content, Namespace) else content
    keys: list[Any] = (
        list(inside) if isinstance(inside, dict) else list(range(len(inside))) if isinstance(inside, list) else []
    )
    return [way for key in keys for way in ((*above, key), *places(inside[key], (*above, key)))]


def made_odd(content: Any, dice: random.Random) -> Any:
    """Put something odd in one or two places of a content, or take them away."""
    content = copy.deepcopy(content)
    for _ in range(dice.randrange(1, 3)):
        *above, last = dice.choice(places(content))
        inside: Any = content
        for key in above:
            inside = vars(inside)[key] if isinstance(inside, Namespace) else inside[key]
        inside = vars(inside) if isinstance(inside, Namespace) else inside
        if dice.random() < 0.2:
            del inside[last]
            break
        inside[dice.choice((last, last, last, "odd", 3)) if isinstance(inside, dict) else last] = dice.choice(ODD)
        if not places(content):
            break
    return content


BYTES = (flipped, flipped, cut, spliced, head_changed, repacked, pickle_changed)
NAMES = (
    *("checkpoint", "published NVAE", "legacy NVAE", "own NVAE", "weights"),
    *("Inception", "artifact", "cached sums", "golden curves"),
)
CASES = [pytest.param(name, marks=pytest.mark.slow) if name == "published NVAE" else name for name in NAMES]


@pytest.mark.parametrize("name", CASES)
def test_a_damaged_or_odd_file_is_read_or_refused(
    formats: dict[str, Format], tmp_path: Path, name: str, record_property: Callable[[str, object], None]
) -> None:
    """Breaks if any input ends in another exception than the project's own, or a flipped bit is not noticed.

    Nor may a sentence of torch or numpy about what to switch off reach anybody.
    """
    one, path = formats[name], tmp_path / "input"
    one.write(one.content, path)
    whole = path.read_bytes()
    one.read(path)
    refused = 0
    for number in range(INPUTS):
        dice = random.Random(f"{name} {number}")
        change = None
        try:
            if number % 2:
                change = dice.choice(BYTES)
                path.write_bytes(change(whole, dice))
            else:
                one.write(made_odd(one.content, dice), path)
        except (TypeError, ValueError, OverflowError, RuntimeError, struct.error, AttributeError):
            continue  # nobody can write such a file
        try:
            one.read(path)
        except UserError as error:
            refused += 1
            sentence = str(error)
        except Exception as error:
            raise AssertionError(f"{name}, input {number}, {change}: {error!r}") from error
        else:
            sentence = ""
            assert change is not flipped or not one.sealed, f"{name}, input {number}: a flipped bit was not noticed"
        assert not any(word in sentence for word in ("weights_only", "allow_pickle", "\n", "\x1b")), sentence
    record_property("refused", refused)
    print(f"{name}: {INPUTS} inputs, {refused} refused")
