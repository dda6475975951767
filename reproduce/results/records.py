"""Strict reading of flat records: every field known, present, of its type and finite, or a sentence that says which."""

import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from jlebm.errors import UserError, nearest

T = TypeVar("T")


def known(word: str, allowed: Iterable[str], what: str) -> None:
    """Check that `word` is one of `allowed`.

    Raises:
        UserError: it is not; the sentence names the nearest that is.
    """
    if word not in allowed:
        raise UserError(f"{word!r} is not a known {what}{nearest(word, [name for name in allowed if name])}")


def refuse_non_finite(record: Any) -> None:
    """Check every number of a dataclass, those in its dictionaries included.

    Raises:
        UserError: one of them is NaN or infinite.
    """
    for field in dataclasses.fields(record):
        held = getattr(record, field.name)
        for value in held.values() if isinstance(held, dict) else (held,):
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"the field {field.name!r} is {value}; only finite numbers are stored")


def moment(date: str) -> datetime:
    """Return the moment of an ISO 8601 date.

    Raises:
        UserError: it is none, or has no time zone.
    """
    try:
        found = datetime.fromisoformat(date)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise UserError(f"the date {date!r} is not ISO 8601 with its time zone, as 2026-01-31T12:00:00+00:00")
    return found


def decode(kind: type[T], fields: Mapping[str, Any], where: str) -> T:
    """Make a dataclass of a parsed JSON object or TOML table.

    A whole number is accepted where a float is meant; nothing else is converted.

    Raises:
        UserError: a field is unknown, missing, of another type or refused by the dataclass itself. The sentence
            begins with `where` ("FILE, line 3").
    """
    hints = typing.get_type_hints(kind)
    stored = {field.name: field for field in dataclasses.fields(kind) if field.metadata.get("stored", True)}  # type: ignore[arg-type]
    for name in fields:
        if name not in stored:
            raise UserError(f"{where}: {name!r} is not a field of this record{nearest(name, stored)}")
    values = {}
    for name, field in stored.items():
        if name in fields:
            values[name] = _typed(fields[name], hints[name], f"{where}: the field {name!r}")
        elif field.default is dataclasses.MISSING:
            raise UserError(f"{where}: the field {name!r} is missing")
    try:
        return kind(**values)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _typed(value: Any, hint: Any, what: str) -> Any:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        if value is None:
            return None
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if typing.get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise UserError(f"{what} is {_word(value)}, where a table of named values is meant")
        inner = typing.get_args(hint)[1]
        return {key: _typed(item, inner, f"{what}, entry {key!r},") for key, item in value.items()}
    if hint is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise UserError(f"{what} is too large for a number") from None
    if type(value) is not hint:
        raise UserError(f"{what} is {_word(value)}, where {_MEANT[hint]} is meant")
    return value


_MEANT = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def _word(value: Any) -> str:
    if value is None:
        return "null"
    return _MEANT.get(type(value), f"a {type(value).__name__}")
