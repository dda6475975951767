"""Strict reading of flat records: every field is known, present, of its type and finite, or an error names it."""

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeVar

from jlebm.errors import UserError, nearest

T = TypeVar("T")
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character of UTF-16


def known(word: str, allowed: Iterable[str], what: str) -> None:
    """Check that `word` is one of `allowed`.

    Raises:
        UserError: it is not; the message names the nearest one.
    """
    if word not in allowed:
        raise UserError(f"{word!r} is not a known {what}{nearest(word, [name for name in allowed if name])}")


def refuse_unwritable(record: Any) -> None:
    """Check every number and text of a dataclass, including those in its dictionaries and tuples.

    Raises:
        UserError: a number is NaN or infinite, or a text has half of a surrogate pair, which UTF-8 cannot encode.
    """
    for name in _names(type(record)):
        held = getattr(record, name)
        if type(held) in _ALWAYS_WRITABLE or (type(held) is str and held.isascii()):
            continue
        if type(held) is float and math.isfinite(held):
            continue
        parts = (*held, *held.values()) if isinstance(held, dict) else held if isinstance(held, tuple) else (held,)
        for value in parts:
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"the field {name!r} is {value}; only finite numbers are stored")
            if isinstance(value, str) and (half := _SURROGATE.search(value)):
                raise UserError(f"the field {name!r} has the half character {half[0]!r}, which is no text")


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


_ALWAYS_WRITABLE = (int, bool, type(None))


def moment(date: str) -> datetime:
    """Return the moment of an ISO 8601 date.

    Raises:
        UserError: it is not such a date, or has no time zone.
    """
    try:
        found = datetime.fromisoformat(date)
        if found.tzinfo is not None:
            found.astimezone(UTC)  # fails outside of the calendar: year 1 with +23:59
    except (ValueError, OverflowError):
        found = None
    if found is None or found.tzinfo is None:
        raise UserError(f"the date {date!r} is not ISO 8601 with its time zone, as 2026-01-31T12:00:00+00:00")
    return found


@cache
def _plan(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Return the type of each stored field of a dataclass, and whether it is required."""
    hints = typing.get_type_hints(kind)
    missing = dataclasses.MISSING
    return {
        field.name: (hints[field.name], field.default is missing and field.default_factory is missing)
        for field in dataclasses.fields(kind)
        if field.metadata.get("stored", True)
    }


def decode(kind: type[T], fields: Mapping[str, Any], where: str, /, **unstored: Any) -> T:
    """Make a dataclass of a parsed JSON object or TOML table.

    A whole number is accepted for a float; nothing else is converted.

    Args:
        kind: the dataclass.
        fields: the parsed fields.
        where: place in the file, "FILE, line 3", with which an error message begins.
        **unstored: fields that are not stored.

    Raises:
        UserError: a field is unknown, missing, of another type or refused by the dataclass itself.
    """
    stored = _plan(kind)
    for name in fields:
        if name not in stored:
            raise UserError(f"{where}: {name!r} is not a field of this record{nearest(name, stored)}")
    values = {}
    for name, (hint, needed) in stored.items():
        if name in fields:
            value = fields[name]
            plain = type(value) is hint and (hint is not str or value.isascii())
            values[name] = value if plain else typed(value, hint, f"{where}: the field {name!r}")
        elif needed:
            raise UserError(f"{where}: the field {name!r} is missing")
    try:
        return kind(**values, **unstored)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def typed(value: Any, hint: Any, what: str) -> Any:
    """Return a parsed JSON or TOML value as a plain type, an optional, a dictionary or a tuple of such.

    A whole number is accepted for a float, and a list for a tuple; nothing else is converted.

    Raises:
        UserError: it has another type, or is a text that UTF-8 cannot encode; the message begins with `what`.
    """
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        if value is None:
            return None
        kinds = [option for option in typing.get_args(hint) if option is not type(None)]
        hint = next((kind for kind in kinds if type(value) is kind), kinds[0])
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise UserError(f"{what} must be a list, not {_word(value)}")
        inner = typing.get_args(hint)[0]
        return tuple(typed(item, inner, f"{what}, number {number},") for number, item in enumerate(value, start=1))
    if typing.get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise UserError(f"{what} must be a table of named values, not {_word(value)}")
        inner = typing.get_args(hint)[1]
        if all(type(item) is inner and (inner is not str or item.isascii()) for item in value.values()):
            return value
        return {key: typed(item, inner, f"{what}, entry {key!r},") for key, item in value.items()}
    if hint is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise UserError(f"{what} is too large for a number") from None
    if type(value) is not hint:
        raise UserError(f"{what} must be {_MEANT[hint]}, not {_word(value)}")
    if isinstance(value, str) and (half := _SURROGATE.search(value)):
        raise UserError(f"{what} has the half character {half[0]!r}, which is no text")
    return value


_MEANT = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def _word(value: Any) -> str:
    """Name a value in a message: a number as it stands in the file, anything longer by its kind."""
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)[:40]
    return _MEANT.get(type(value), f"a {type(value).__name__}")
