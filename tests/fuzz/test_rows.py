"""Files of results and settings, damaged at random: each is read, or refused by a sentence; nothing else comes out.

`JLEBM_FUZZ=2000` tries so many of each format instead of the few of an ordinary run.
"""

import contextlib
import json
import os
import random
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jlebm.errors import UserError
from reproduce.cifar10 import RECIPE
from reproduce.results import Timing, append, check, held_to_basis, read, read_all, read_expected, read_paper, render
from reproduce.results.rows import read as read_rows
from reproduce.results.timing import read_awaited, speed_cells
from tests.rows import ROW

COUNT = int(os.environ.get("JLEBM_FUZZ", "50"))  # of each format
RESULTS = Path(__file__).parents[2] / "results"
ODD = (
    b"\xff\xfe", b"\x00", b"\\ud800", b"\xed\xa0\x80", b"\r\n", b"\n", b"1e400", b"-1", b"0", b"NaN", b"Infinity",
    b"null", b"true", b"[]", b"{}", b'""', b"9" * 5000, b"[" * 3000, b"{" * 3000, b'"', b"\x1b[2J", b"\xe2\x80\xa8",
    b"10" + b"0" * 400, b"0001-01-01T00:00:00+23:59", b"1979-05-27T07:32:00Z", b"'", b"#", b"=", b"\\", b"inf", b",",
)  # fmt: skip


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Return a content with a few bytes, tokens or lines lost, doubled, swapped or put in."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        place, length = rng.randrange(len(data) + 1), rng.choice((1, 1, 4, 40))
        match rng.randrange(7):
            case 0:
                del data[place : place + length]
            case 1:
                data[place:place] = rng.choice(ODD)
            case 2:
                data[place : place + length] = rng.choice(ODD)
            case 3:
                data[place:place] = data[rng.randrange(len(data) + 1) :][:length]
            case 4:
                if place < len(data):
                    data[place] ^= 1 << rng.randrange(8)
            case 5:
                del data[place:]
            case _:
                _replace_value(rng, data)
    return bytes(data)


def _replace_value(rng: random.Random, data: bytearray) -> None:
    """Put something odd in place of a whole value, behind a ':' or a '='."""
    places = [index for index, byte in enumerate(data) if byte in b":="]
    if places:
        first = rng.choice(places) + 1
        last = min([at for at in (data.find(b",", first), data.find(b"\n", first)) if at >= 0], default=len(data))
        data[first:last] = b" " + rng.choice(ODD)


def look(folder: Path) -> None:
    """Do all that check does with a results folder."""
    rows = read_all(folder / "measured")
    verdicts = held_to_basis(check(rows, read_expected(folder / "expected.toml")), rows)
    for form in ("terminal", "markdown", "latex"):
        render(verdicts, {}, form).encode()
    append(folder / "measured" / "cifar10.jsonl", [ROW])


def _rows(folder: Path) -> None:
    look(folder)


def _timings(folder: Path) -> None:
    speed_cells(read_rows(folder / "measured" / "bench.jsonl", Timing))


def _awaited(folder: Path) -> None:
    str(speed_cells([], read_awaited(folder))).encode()


def _paper(folder: Path) -> None:
    rows = read(folder / "measured" / "cifar10.jsonl")
    for form in ("terminal", "latex"):
        render(check(rows, read_expected(folder / "expected.toml")), read_paper(folder / "paper.toml"), form).encode()


def entries(name: str, head: str, count: int) -> bytes:
    """Return the first few entries of a stored TOML file."""
    return head.join((RESULTS / name).read_text().split(head)[: count + 1]).encode()


def lines(name: str, count: int) -> bytes:
    return b"".join((RESULTS / "measured" / name).read_bytes().splitlines(keepends=True)[:count])


FORMATS: dict[str, Callable[[Path], None]] = {
    "measured/cifar10.jsonl": _rows,
    "measured/bench.jsonl": _timings,
    "expected.toml": _rows,
    "paper.toml": _paper,
    "awaited.json": _awaited,
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file(name: str, tmp_path: Path) -> None:
    """Would break if some damage got past the readers, or ended in an exception that is no sentence."""
    whole = {
        "measured/cifar10.jsonl": lines("cifar10.jsonl", 4),
        "measured/bench.jsonl": lines("bench.jsonl", 3),
        "expected.toml": entries("expected.toml", "[[expectation]]", 5),
        "paper.toml": entries("paper.toml", "[[reported]]", 6),
        "awaited.json": (RESULTS / "awaited.json").read_bytes(),
    }
    (tmp_path / "measured").mkdir()
    rng, read_on = random.Random(f"{name} 1"), 0
    for number in range(COUNT):
        for other, content in whole.items():
            (tmp_path / other).write_bytes(content)
        content = damaged(rng, whole[name])
        (tmp_path / name).write_bytes(content)
        try:
            FORMATS[name](tmp_path)
            read_on += 1
        except UserError:
            continue
        except Exception as error:
            raise AssertionError(f"{name}, number {number}: {type(error).__name__}: {error}\n{content!r}") from error
    assert read_on < COUNT  # the damage is damage


def test_odd_settings() -> None:
    """Would break if some text behind --set ended in an exception that is no sentence."""
    rng = random.Random("settings 1")
    experiments: list[Any] = [
        RECIPE.presets["tiny"].experiment,
        RECIPE.two_stage["tiny"].plan,
        RECIPE.ladder["tiny"].experiment,
    ]
    values = ["-1", "0", "2", "1.5", "1e30", "true", "True", "None", "null", "[]", "[0]", "[[]]", "{}", "NaN", "1e400"]
    values += ["[" * 3000, "9" * 5000, "\udcff", "", "=", "x", '"', "[1, null]", "[[16], [16]]", '{"steps": 1}']
    for _ in range(5 * COUNT):
        one = rng.choice(experiments)
        text = json.dumps(one.to_json())
        key = rng.choice([*_keys(one.to_json()), "", "x.y", "training"])
        if rng.random() < 0.2:
            key = "".join(rng.choice(string.printable) for _ in range(rng.randint(0, 12)))
        with contextlib.suppress(UserError):
            made = one.override([f"{key}={rng.choice(values)}" for _ in range(rng.choice((1, 1, 2)))])
            made.digest()
        assert json.dumps(one.to_json()) == text


def _keys(values: dict[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key, value in values.items():
        keys += _keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return keys


def test_settings_that_could_not_run_are_refused() -> None:
    """Would break if a size of nothing, or a rate that no optimiser takes, were found only after something long."""
    one = RECIPE.presets["tiny"].experiment
    for assignment in (
        "optimizer.beta1=2", "optimizer.beta1=-0.1", "optimizer.beta2=1", "optimizer.energy_l2=-1",
        "model.channels=[0]", "model.channels=[-32,16]", "model.channels=[]", "model.conditional_hidden=[0,0]",
        "model.latent_dims=[16,-1]", "energy_hidden=[[-1],[64]]", "training.steps=0", "training.batch_size=-3",
        "prior_chain.epsilon=NaN", "optimizer.energy_lr=1e400", "prior_chain.steps=-1", "model.likelihood_sigma=0",
    ):  # fmt: skip
        with pytest.raises(UserError):
            one.override([assignment])
    with pytest.raises(UserError, match=r"'prior_chain.metropolis' cannot be 'True'; say true"):
        one.override(["prior_chain.metropolis=True"])
    with pytest.raises(UserError, match=r"cannot be 'ancestrall'; the nearest known one is 'ancestral'"):
        one.override(["prior_chain.start=ancestrall"])
    with pytest.raises(UserError, match="is set twice"):
        one.override(["training.steps=3", "training.steps=5"])
    assert one.override(["prior_chain.steps=0"]).prior_chain.steps == 0
