"""Values that papers report, each with its source. They are shown for comparison and never decide a verdict."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jlebm.errors import UserError
from jlebm.files import read_bytes
from reproduce.results.metrics import METRICS
from reproduce.results.records import decode, known, refuse_unwritable

MODELS = ("this paper", "ICCV 2023 sibling", "ICML 2024 follow-up")
VERIFIED = ("read in the source", "second-hand")


@dataclass(frozen=True)
class Reported:
    """One number that a paper reports.

    Attributes:
        key: unique, "table1.cifar10.ours"; the part before the first point is the table or figure.
        model: the paper: "this paper", or the sibling or follow-up, whose models differ.
        system: the row of the table, as the paper names it.
        dataset: the data, with the condition if there is one.
        metric: a name of `METRICS`.
        value: the number.
        source: place in the paper.
        verified: "read in the source", or "second-hand" for a number quoted by others.
        spread: as reported; None if none is.
        same_as: key of the entry with the same number in another table; "" for none.
        note: caveats of a comparison, such as inconsistencies between papers.
    """

    key: str
    model: str
    system: str
    dataset: str
    metric: str
    value: float
    source: str
    verified: str
    spread: float | None = None
    same_as: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        refuse_unwritable(self)
        known(self.metric, METRICS, "metric")
        known(self.model, MODELS, "model")
        known(self.verified, VERIFIED, "kind of verification")


def read_paper(path: Path) -> dict[str, Reported]:
    """Read `paper.toml` as a dictionary by key, in the file's order.

    Raises:
        UserError: the file is missing or not TOML, or an entry has a wrong field or a repeated key.
    """
    reported: dict[str, Reported] = {}
    for number, entry in enumerate(read_tables(path, "reported"), start=1):
        one = decode(Reported, entry, f"{path}, [[reported]] number {number} ({entry.get('key', 'no key')})")
        if one.key in reported:
            raise UserError(f"{path}: the key {one.key!r} stands twice; give each number its own")
        if one.same_as and (one.same_as not in reported or reported[one.same_as].value != one.value):
            raise UserError(
                f"{path}: {one.key!r} is no repetition of {one.same_as!r}: no earlier entry has that key and value"
            )
        reported[one.key] = one
    return reported


def paper_of(folder: Path) -> dict[str, Reported]:
    """Return what a results folder says that papers report; empty without a paper.toml."""
    path = folder / "paper.toml"
    return read_paper(path) if path.exists() else {}


def read_tables(path: Path, name: str) -> list[Mapping[str, Any]]:
    """Read the `[[name]]` tables of a TOML file that has nothing else at the top level.

    Raises:
        UserError: the file is missing, is not TOML, or holds something else.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; restore it, or copy it from the repository's folder results/")
    try:
        content = tomllib.loads(read_bytes(path).decode())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from error
    tables = content.pop(name, [])
    if content or not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        other = f"; it also has {next(iter(content))!r}" if content else ""
        raise UserError(f"{path} holds [[{name}]] tables and nothing else{other}")
    return tables
