"""A measured row to vary, for every test about results."""

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reproduce.results import Measurement
from reproduce.results.expectation import QUESTION

ROW = Measurement(
    protocol="cifar10/1",
    dataset="cifar10",
    preset="tiny",
    model="two-layer",
    learning="joint-mle",
    seed=1,
    metric="fid768",
    source="ebm-prior",
    value=1.25,
    spread=None,
    images=2000,
    reference="cifar10/train, 50000 images, sha256:47af8b02cfcf",
    extractor="inception-2015-12-05, sha256:0123",
    weights="raw",
    chain="60 steps, epsilon 0.08, from standard normal",
    steps=100,
    complete=True,
    config_digest="c" * 64,
    commit="d" * 40,
    dirty=False,
    device="cpu-avx2",
    versions={"python": "3.11", "torch": "2.11"},
    wall_seconds={"train": 12.5, "sample": 1.0},
    date="2026-01-31T12:00:00+00:00",
)


@pytest.fixture
def row() -> Callable[..., Measurement]:
    """Make a row that differs from the plain one in the given fields."""

    def make(**changes: Any) -> Measurement:
        return dataclasses.replace(ROW, **changes)

    return make


def copy_open_questions(results: Path, folder: Path) -> None:
    """Copy paper.toml and expected.toml without what has been measured: every question waits for its first row."""
    shutil.copy(results / "paper.toml", folder)
    written = "images|config_digest|complete|reference|extractor|weights|chain|value|tolerance|fail_beyond|basis"
    text = re.sub(r"^basis_rows = \[[^]]*\]\n", "", (results / "expected.toml").read_text(), flags=re.MULTILINE)
    text = re.sub(rf"^({written}) = .*\n", "", text, flags=re.MULTILINE)
    head, *entries = re.split(r"^(?=\[\[expectation\]\])", text, flags=re.MULTILINE)
    # Without their numbers of images, entries may ask the same.
    asked = re.compile(rf"^(?:{'|'.join(('protocol', *QUESTION))}) = .*$", flags=re.MULTILINE)
    questions = {tuple(asked.findall(entry)): entry for entry in reversed(entries)}
    (folder / "expected.toml").write_text(head + "".join(reversed(questions.values())))
