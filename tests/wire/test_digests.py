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
from reproduce.results import measurement
from reproduce.results.first_format import packed
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
    if name != "bench.jsonl":
        read = measurement.read(ROOT / "results" / "measured" / name)[: pinned["lines"]]
        assert all(row.intact and row.format == 1 for row in read)
        lines = [(json.dumps(first_line(json.loads(line)), ensure_ascii=False) + "\n").encode() for line in lines]
    assert hashlib.sha256(b"".join(lines)).hexdigest() == pinned["sha256"]


def first_line(fields: dict) -> dict:
    """Return a row as format 1 wrote it: its digest is the last field, and was taken of the others."""
    digest = fields.pop("row_digest")
    return {**packed(fields), "row_digest": digest}


@pytest.mark.parametrize("name", [name for name in ROWS if name != "bench.jsonl"])
def test_a_line_of_the_first_format_is_still_read(name: str, tmp_path: Path) -> None:
    """Breaks if the rows of a run that was begun before format 2 cannot be read, or are other rows then."""
    path = ROOT / "results" / "measured" / name
    old = [first_line(json.loads(line)) for line in path.read_text().splitlines()[: ROWS[name]["lines"]]]
    (tmp_path / name).write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in old))
    assert measurement.read(tmp_path / name) == measurement.read(path)[: len(old)]
