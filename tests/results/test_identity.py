"""A row names its recipe: folder, label and command from one value; every old row in both formats."""

import json
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import tyro
from hypothesis import given
from hypothesis import strategies as st

from jlebm.choices import GENERATOR
from jlebm.errors import UserError
from reproduce.results.first_format import KINDS, packed, unpacked
from reproduce.results.identity import FIRST_NOISE, Identity, option
from tests.wire.test_digests import first_line

ROOT = Path(__file__).resolve().parents[2]
PINNED = json.loads((ROOT / "tests/wire/rows.json").read_text())
OLD = [
    first_line(json.loads(line))
    for name, pinned in PINNED.items()
    if name != "bench.jsonl"
    for line in (ROOT / "results/measured" / name).read_text().splitlines()[: pinned["lines"]]
]


def identity_of(fields: dict) -> Identity:
    names = ("recipe", "model", "learning", "dataset", "preset", "variation", "seed")
    return Identity(**{name: fields[name] for name in names})


def test_rows_that_name_no_noise_are_of_the_librarys_first() -> None:
    """Breaks if the scheme that a command takes by default becomes an entry of a row's variation."""
    assert FIRST_NOISE == GENERATOR


def test_every_row_of_the_first_format_is_rebuilt() -> None:
    """Breaks if one field of one stored row is lost, added or written otherwise on the way to format 2 and back."""
    for old in OLD:
        assert list(packed(unpacked(old)).items()) == list(old.items())


def test_what_was_packed_into_text_is_a_field() -> None:
    """Breaks if a flag stays in a preset, a layer or a score in a source, or levels in a chain."""
    rows = [unpacked(old) for old in OLD]
    assert all(" " not in row["preset"] and "/" not in row["source"] for row in rows)
    assert {tuple(row["variation"]) for row in rows} >= {("chain_steps",), ("chain_noise",), ("temperature",)}
    assert {row["score"] for row in rows} >= {"L>0", "E", "LLR>1"}
    assert {row["bits"] for row in rows} == {None, 5, 6}


def commands() -> list[str]:
    rows = [unpacked(old) for old in OLD]
    return sorted({identity_of(row).command(target=row["target"], digest=row["config_digest"]) for row in rows})


@pytest.mark.parametrize("command", commands())
def test_the_command_of_every_stored_row_parses(command: str) -> None:
    """Breaks if a row's command names a recipe that does not exist, or an option that it refuses."""
    words = shlex.split(command)
    assert words[:2] == ["nox", "-s"]
    assert words[3] == "--"
    module = import_module(words[2].replace("_", ".", 1))
    arguments = getattr(module, "Arguments", None) or import_module("reproduce.pipelines.arguments").Arguments
    tyro.cli(arguments, args=words[4:])


SAID = {
    str: st.sampled_from(["exact", "released", "a b", "it's"]),
    int: st.integers(0, 10**6),
    float: st.sampled_from([0.0, 0.5, 0.7, 1.0, 2.0]),
    bool: st.booleans(),
}
VARIATIONS = st.fixed_dictionaries({}, optional={name: SAID[kind] for name, kind in KINDS.items() if kind is not str})


@given(VARIATIONS, st.sampled_from(["tiny", "cpu", "custom"]))
def test_variations_come_back_from_their_text(variation: dict, preset: str) -> None:
    """Breaks if an option's text reads as another option or value."""
    fields = {"variation": variation, "preset": preset, "source": "samples", "chain": "", "bits": None}
    fields |= {"layer": "", "target": "", "score": "", "protocol": "cifar10-two-stage/1", "learning": "two-stage"}
    again = unpacked(packed(fields))
    assert again["preset"] == preset
    assert again["variation"] == variation


def test_one_value_gives_folder_label_and_command() -> None:
    """States the three texts once; a folder of a run begun before must be found again under its name."""
    one = Identity("cifar10", "two-stage", "two-stage", "photos", "cpu", {"chain_steps": 40, "chain_noise": False}, 2)
    assert one.label == "cpu --chain-steps 40 --no-chain-noise"
    assert one.folder("0123456789abcdef") == "photos-two-stage-cpu-0123456789-seed2"
    assert one.command((1, 2)) == (
        "nox -s reproduce_cifar10 -- --model two-stage --preset cpu --chain-steps 40 --no-chain-noise "
        "--dataset photos --seeds 1 2"
    )


def test_settings_of_its_own_have_no_command() -> None:
    """Breaks if a page told a command that is refused, or that measures other settings."""
    assert Identity("cifar10", "two-layer", "joint-mle", "cifar10", "custom").command() == ""
    one = Identity("anomaly", "two-layer", "two-stage", "digits", "tiny", {"protocol": "80-20"})
    assert one.command(target="1") == (
        "nox -s reproduce_anomaly -- --digits 1 --learning two-stage --preset tiny --protocol 80-20 --seeds 1"
    )


def test_an_unknown_option_of_an_old_row_is_a_sentence() -> None:
    """Breaks if a row of another program's is taken for a variation of ours."""
    with pytest.raises(UserError, match="no option of a variation"):
        unpacked(dict(OLD[0], preset="cpu --warmup 3"))
    assert option("decoding", "sample") == "--decoding sample"
