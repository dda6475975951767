"""The file `expected.toml`: read whole, edited entry by entry; everything else in it is left unchanged."""

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
        UserError: the file is missing or not TOML, or an entry has an unknown, missing or wrong field, or two
            entries ask the same.
    """
    return _decode_all(read_tables(path, "expectation"), path)


def expected_of(folder: Path) -> list[Expectation]:
    """Return the expectations of a results folder; empty without an expected.toml."""
    path = folder / "expected.toml"
    return read_expected(path) if path.exists() else []


def replaces(new: Expectation, old: Expectation) -> bool:
    """Whether `new` replaces `old`: the same question, and the number of images and weights that `old` states.

    An entry without a value leaves open whether the runs ran to their end.
    """
    same = question(new) == question(old)
    ended = old.value is None or old.complete == new.complete
    return same and ended and old.images in (0, new.images) and old.weights in ("", new.weights)


def replaced(new: Expectation, entries: Sequence[Expectation]) -> int | None:
    """Return the index of the entry that `new` replaces; None if it is an additional entry.

    An entry that states as much as `new` is preferred to one that leaves the number of images or the weights open.
    """
    places = [place for place, entry in enumerate(entries) if replaces(new, entry)]
    return min(places, key=lambda place: not replaces(entries[place], new), default=None)


def write_expected(path: Path, new: Sequence[Expectation]) -> None:
    """Put expectations into `expected.toml`, as `rewrite_expected` does."""
    rewrite_expected(path, lambda old: new)


def rewrite_expected(
    path: Path, make: Callable[[Sequence[Expectation]], Sequence[Expectation]]
) -> Sequence[Expectation]:
    """Put expectations into `expected.toml`, each in place of the entry it replaces, or at the end.

    Every other entry and every comment is kept byte for byte. The folder's lock is held from reading to writing, so
    that two processes never lose each other's entries.

    Args:
        path: of the file.
        make: returns the entries to put in, given the stored ones.

    Returns:
        What `make` returned.

    Raises:
        UserError: the file cannot be read or written, its layout would change the other entries, or
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
        if place < len(blocks):  # otherwise the check below refuses
            # Comments at the end of a block belong to the next one.
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
    alike: dict[tuple[Any, ...], list[Expectation]] = defaultdict(list)  # by question
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
        # A JSON string is a TOML basic string, except that TOML wants DEL escaped. Each item of a list has a line.
        text = json.dumps(value, ensure_ascii=False, indent=4).replace("\x7f", "\\u007f")
        if isinstance(value, dict):
            text = "{ " + ", ".join(f"{name} = {json.dumps(said)}" for name, said in value.items()) + " }"
        lines.append(f"{each.name} = {text}")
    return "\n".join(lines) + "\n"
