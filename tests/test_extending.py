"""docs/extending is executed: each walk-through is written into a copy of the checkout, and its commands run there.

A block is written into the file that its title names; of a diff the added lines, below the line of context above them.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from reproduce.results import read

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "extending.md"
STORED = "mnist_ladder_cpu_samples.npz"  # the artifact that a figure of one's own is drawn from
FILES = 2  # that a walk-through may touch


class Block(NamedTuple):
    """A fenced block of the page."""

    kind: str
    title: str
    text: str


def walks() -> dict[str, list[Block]]:
    """Return the blocks of each walk-through by its heading."""
    _, *sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    fenced = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return {part.partition("\n")[0]: [Block(*found) for found in fenced.findall(part)] for part in sections}


WALKS = walks()


def applied(text: str, diff: str) -> str:
    """Return a text with the added lines of a diff, each run of them below the context line above it."""
    lines, at = text.splitlines(), -1
    for line in diff.splitlines():
        sign, content = line[:1], line[1:]
        if sign == "+":
            at += 1
            lines.insert(at, content)
        else:
            places = [place for place, each in enumerate(lines) if each == content and place > at]
            assert len(places) == 1 or (places and at >= 0), (
                f"the page's context {content!r} stands {len(places)} times"
            )
            at = places[0]
    return "\n".join(lines) + "\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy what commands need: the code, and results without rows and with one artifact."""
    for room in ("jlebm", "reproduce", "figures"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "results" / "artifacts").mkdir(parents=True)
    (tmp_path / "results" / "measured").mkdir()
    shutil.copy(ROOT / "noxfile.py", tmp_path)
    shutil.copy(ROOT / "results" / "paper.toml", tmp_path / "results")
    (tmp_path / "results" / "expected.toml").write_text("")
    shutil.copy(ROOT / "results" / "artifacts" / STORED, tmp_path / "results" / "artifacts")
    folder = tmp_path / "data" / "flowers"
    folder.mkdir(parents=True)
    for index, pixels in enumerate(np.random.default_rng(4).integers(0, 256, (120, 8, 8, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{index:03d}.png")
    return tmp_path


def written(blocks: list[Block], checkout: Path) -> set[str]:
    """Write a walk-through's files and return their names."""
    for block in blocks:
        place = checkout / block.title
        if block.kind == "python":
            assert not place.exists(), f"{block.title} is there already"
            place.write_text(block.text, encoding="utf-8")
        elif block.kind == "diff":
            place.write_text(applied(place.read_text(encoding="utf-8"), block.text), encoding="utf-8")
    return {block.title for block in blocks if block.kind in ("python", "diff")}


def run(command: str, checkout: Path) -> str:
    """Run a command of the page in the copy, and return what it says."""
    program, *arguments = shlex.split(command)
    assert program == "python", "the page's commands are of this interpreter"
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=checkout, env=environment, timeout=600
    )
    assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def metrics_of(checkout: Path, dataset: str) -> set[tuple[str, str]]:
    return {(row.learning, row.metric) for row in read(checkout / "results" / "measured" / f"{dataset}.jsonl")}


def a_dataset(checkout: Path, said: list[str]) -> None:
    assert ("joint-mle", "latent_auc") in metrics_of(checkout, "flowers")
    assert "flowers" in said[1]
    ask = "import noxfile; print(noxfile.recipes()['flowers'])"
    pytest.importorskip("nox")
    assert run(f"python -c {shlex.quote(ask)}", checkout) == "Flowers by joint maximum likelihood, two layers\n"


def a_system(checkout: Path, said: list[str]) -> None:
    assert "one spread for all pixels" in said[0]
    text = (checkout / "results" / "measured" / "photos.jsonl").read_text()
    assert '"learning": "one-spread"' in text
    assert "3,073" in said[0], "its parameters"


def an_energy(checkout: Path, said: list[str]) -> None:
    images = np.load(checkout / "samples.npy")
    assert (images.shape, images.dtype) == ((16, 1, 28, 28), np.uint8)
    assert list(checkout.glob("runs/digits28-variational-own-*/events.jsonl"))


def a_metric(checkout: Path, said: list[str]) -> None:
    text = (checkout / "results" / "measured" / "photos.jsonl").read_text()
    assert text.count('"metric": "contrast_gap"') == 2
    assert "contrast gap" in said[1]


def a_figure(checkout: Path, said: list[str]) -> None:
    drawn = {path.name for path in (checkout / "drawn").iterdir()}
    stem = STORED.removesuffix(".npz")
    assert f"{stem}_brightness.png" in said[0]
    assert {f"{stem}_brightness.png", f"{stem}_brightness.pdf", f"{stem}.png"} <= drawn
    assert "figures.brightness" in (checkout / "drawn" / "figures.md").read_text()


PROVEN: dict[str, Callable[[Path, list[str]], None]] = {
    "A dataset and its recipe": a_dataset,
    "A system of the table": a_system,
    "An energy network": an_energy,
    "A metric": a_metric,
    "A figure": a_figure,
}


def test_the_page_has_these_walk_throughs() -> None:
    """Breaks if a walk-through is added or renamed and not executed."""
    assert WALKS.keys() == PROVEN.keys()
    assert all(block.title for blocks in WALKS.values() for block in blocks if block.kind != "console")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", PROVEN)
def test_a_walk_through_works(name: str, checkout: Path) -> None:
    """Breaks if a step of the page no longer works as it stands, or needs a third file."""
    touched = written(WALKS[name], checkout)
    assert 1 <= len(touched) <= FILES, f"{name} touches {sorted(touched)}"
    commands = [line for block in WALKS[name] if block.kind == "console" for line in block.text.splitlines()]
    assert commands
    PROVEN[name](checkout, [run(command, checkout) for command in commands])


@pytest.mark.parametrize("block", [block for blocks in WALKS.values() for block in blocks if block.kind == "python"])
def test_the_page_is_formatted_as_code_is(block: Block) -> None:
    """Breaks if somebody who copies a block has to reformat it."""
    pytest.importorskip("ruff")
    for arguments in (("format", "--check"), ("check",)):
        command = [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", block.title, "-"]
        ran = subprocess.run(command, input=block.text, capture_output=True, text=True, cwd=ROOT, timeout=60)
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_diff_adds_below_its_context() -> None:
    """Breaks if an added line could go to another place than the page shows."""
    assert applied("a\nb\nc\n", " a\n+x\n+y\n b\n+z\n") == "a\nx\ny\nb\nz\nc\n"
    with pytest.raises(AssertionError, match="stands 2 times"):
        applied("a\na\n", " a\n+x\n")
