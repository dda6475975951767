"""The file `expected.toml`: read whole, and written entry by entry so that everything else in it stays as it is."""

import dataclasses
import json
import re
import tomllib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jlebm.errors import UserError
from jlebm.files import read_bytes, write_text
from reproduce.results.expectation import Expectation, describe, question
from reproduce.results.paper import read_tables
from reproduce.results.records import decode
from reproduce.results.rows import hold


def read_expected(path: Path) -> list[Expectation]:
    """Read `expected.toml`.

    Raises:
        UserError: the file is missing or not TOML, or an entry has an unknown, missing or wrong field, or asks
            exactly what another one asks.
    """
    return _decode_all(read_tables(path, "expectation"), path)


def replaces(new: Expectation, old: Expectation) -> bool:
    """Whether `new` takes the place of `old`: the same question, and what `old` states of count and weights.

    Whether the runs went to their end is left open by an entry that has no value yet.
    """
    same = question(new) == question(old)
    ended = old.value is None or old.complete == new.complete
    return same and ended and old.images in (0, new.images) and old.weights in ("", new.weights)


def replaced(new: Expectation, entries: Sequence[Expectation]) -> int | None:
    """Return the place of the entry that `new` takes the place of, None where it is one more entry.

    An entry that states as much as `new` goes before one that leaves the number of images or the weights open.
    """
    places = [place for place, entry in enumerate(entries) if replaces(new, entry)]
    return min(places, key=lambda place: not replaces(entries[place], new), default=None)


def write_expected(path: Path, new: Sequence[Expectation]) -> None:
    """Put expectations into `expected.toml`, as `rewrite_expected` does."""
    rewrite_expected(path, lambda old: new)


def rewrite_expected(
    path: Path, make: Callable[[Sequence[Expectation]], Sequence[Expectation]]
) -> Sequence[Expectation]:
    """Put expectations into `expected.toml`, each in place of the one that is `replaced` or else at the end.

    Every other entry and every comment stays as it is, byte for byte. The folder's lock is held from the reading to the
    writing, so that of two processes none loses what the other one writes.

    Args:
        path: of the file.
        make: given the entries that stand there, returns those to be put in.

    Returns:
        What `make` returned.

    Raises:
        UserError: the file cannot be read or written, its layout would not let the other entries stand as they are, or
            `make` raised it.
    """
    with hold(path.parent):
        old = read_expected(path)
        new = make(old)
        write_text(path, _edited(path, old, new))
    return new


def _edited(path: Path, old: Sequence[Expectation], new: Sequence[Expectation]) -> str:
    head, *blocks = re.split(r"^(?=\[\[expectation\]\])", read_bytes(path).decode(), flags=re.MULTILINE)
    kept = list(old)
    for one in new:
        place = replaced(one, kept)
        if place is None:
            kept.append(one)
            blocks.append("\n" + _toml(one))
            continue
        kept[place] = one
        if place < len(blocks):  # otherwise the comparison below refuses
            # Comments at the end of a block belong to what follows it.
            tail = re.search(r"(?:^[ \t]*(?:#[^\n]*)?\n)*\Z", blocks[place], flags=re.MULTILINE)
            blocks[place] = _toml(one) + (tail.group() if tail else "")
    text = head + "".join(blocks)
    try:
        same = _decode_all(tomllib.loads(text)["expectation"], path) == kept
    except (ValueError, KeyError):
        same = False
    if not same:
        raise UserError(f"{path} cannot be edited entry by entry; begin each entry with a line [[expectation]]")
    return text


def _decode_all(tables: Sequence[Any], path: Path) -> list[Expectation]:
    made: list[Expectation] = []
    alike: dict[tuple[Any, ...], list[Expectation]] = defaultdict(list)  # of one question
    for number, entry in enumerate(tables, start=1):
        one = decode(Expectation, entry, f"{path}, [[expectation]] number {number}")
        same = alike[question(one)]
        if any(replaces(one, other) and replaces(other, one) for other in same):
            raise UserError(f"{path}, [[expectation]] number {number}: {describe(one)} is expected twice")
        made.append(one)
        same.append(one)
    return made


def _toml(one: Expectation) -> str:
    lines = ["[[expectation]]"]
    for each in dataclasses.fields(one):
        value = getattr(one, each.name)
        if value is None or value == {} or (value == each.default and each.name != "complete"):
            continue
        # A JSON text is a TOML basic string but for DEL, which TOML wants escaped. Of a list each item has its line.
        text = json.dumps(value, ensure_ascii=False, indent=4).replace("\x7f", "\\u007f")
        if isinstance(value, dict):
            text = "{ " + ", ".join(f"{name} = {json.dumps(said)}" for name, said in value.items()) + " }"
        lines.append(f"{each.name} = {text}")
    return "\n".join(lines) + "\n"
