"""The wire format: digests of configurations and rows, which name folders, rows and weights that exist already.

A digest is taken of the canonical JSON of a configuration. Classes and modules may be renamed and moved; the JSON may
not change, or every stored row would be of a configuration that nothing has any more.
"""

import hashlib
import json
from pathlib import Path

import pytest

from jlebm.backbones.nvae import digest_of, load_nvae
from jlebm.checkpoints import load_weights
from jlebm.config import Config
from jlebm.experiment import Experiment
from reproduce.results import measurement, rows
from tests.wire.presets import PINNED, found, named

ROOT = Path(__file__).resolve().parents[2]
DIGESTS = json.loads(PINNED.read_text())
ROWS = json.loads(PINNED.with_name("rows.json").read_text())
ARTIFACTS = ROOT / "results" / "artifacts"
BACKBONE = (
    "74287d1ceba8d2ef6cae3f9c4a2b38208d0832bb9fb5f688c2aafeccb86a9dcd"  # of the weights of `cifar10 two-stage cpu`
)


def test_every_preset_has_the_digest_that_it_always_had() -> None:
    """Breaks if a field is renamed, added without `since`, given another default, or written otherwise."""
    now = found()
    for name, pinned in DIGESTS.items():
        assert now[name]["json"] == pinned["json"], name
        assert now[name]["digest"] == pinned["digest"], name


def test_a_new_preset_is_pinned_too() -> None:
    """Breaks if a preset has no pinned digest; `python -m tests.wire.presets` writes it."""
    assert {name for name, _ in named()} == set(DIGESTS)


@pytest.mark.parametrize("name", DIGESTS)
def test_the_digest_is_that_of_the_canonical_json(name: str) -> None:
    """States the format itself, apart from the code that writes it: sorted keys, no spaces, ASCII, SHA-256."""
    text = json.dumps(DIGESTS[name]["json"], sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == DIGESTS[name]["digest"]


@pytest.mark.parametrize("name", DIGESTS)
def test_what_is_written_is_read_back(name: str) -> None:
    """Breaks if a stored configuration can no longer be read, or comes back as another one."""
    configs: dict[str, Config] = dict(named())
    again = type(configs[name]).from_json(DIGESTS[name]["json"])
    assert again == configs[name]
    assert again.digest() == DIGESTS[name]["digest"]


def test_the_headers_of_stored_weights_keep_their_digests() -> None:
    """Breaks if a run whose weights are kept would be trained anew."""
    _, header = load_weights(ARTIFACTS / "cifar10_joint_mle_cpu_weights.safetensors")
    assert Experiment.from_json(header["config"]).digest() == header["digest"]


def test_a_stored_backbone_keeps_its_name() -> None:
    """Breaks if energies that were learned on it are refused, since its weights have another digest."""
    network = load_nvae(ARTIFACTS / "cifar10_two_stage_cpu_backbone.safetensors")
    assert digest_of(network) == BACKBONE


@pytest.mark.parametrize("name", ROWS)
def test_stored_rows_are_those_of_the_first_format(name: str) -> None:
    """Breaks if a row that was stored is gone, was changed, or can no longer be written as it was, byte for byte."""
    pinned = ROWS[name]
    lines = (ROOT / "results" / "measured" / name).read_bytes().splitlines(keepends=True)[: pinned["lines"]]
    assert len(lines) == pinned["lines"]
    assert hashlib.sha256(b"".join(lines)).hexdigest() == pinned["sha256"]
    if name == "bench.jsonl":
        return
    read = measurement.read(ROOT / "results" / "measured" / name)[: pinned["lines"]]
    assert all(row.intact for row in read)
    assert [rows._line(row).encode() for row in read] == lines
