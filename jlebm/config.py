"""Frozen configurations: their JSON, their digest, and setting a key from text.

A configuration holds everything that can change weights or samples, and nothing else: two runs with the same digest and
seed are the same run. The seed is kept outside it, and so is the number of images of a measurement, which every row
names. The machine is not part of it.
"""

import dataclasses
import functools
import hashlib
import inspect
import json
import sys
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from jlebm.errors import UserError, nearest

C = TypeVar("C", bound="Config")
LARGEST = sys.float_info.max
MOST = 10**9  # largest count: a chain or a training of more steps never ends
SHOWN = 80  # characters of a value in a message
_WORDS = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false", "none": "null"}


@dataclass(frozen=True)
class Config:
    """A frozen dataclass of plain values, tuples and other such dataclasses.

    A whole number is a count or a size: it must be at least 1, or at least what its field's metadata say
    (`metadata={"least": 0}`, None for a number that is not a count), and at most 10^9: what counts further never ends.
    """

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as plain dictionaries, lists, numbers and strings.

        A field added later (`metadata={"since": VERSION}`) is left out at its default, which is what earlier runs did:
        their digests, folders and rows stay valid.
        """
        return json.loads(json.dumps(_plain(self, whole=False)))

    @classmethod
    def from_json(cls: type[C], values: dict[str, Any]) -> C:
        """Read a configuration that `to_json` wrote.

        Raises:
            UserError: a key is unknown (with the nearest known one), missing, or a value has the wrong type.
        """
        return _read(cls, values, "")

    def digest(self) -> str:
        """Return the SHA-256 of the canonical JSON, as hexadecimal."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def override(self: C, assignments: Sequence[str]) -> C:
        """Return a copy with keys set from "training.steps=100"; its preset, if any, is renamed "custom".

        Raises:
            UserError: a key is unknown (with the nearest known one) or set twice, or a value does not fit.
        """
        if not assignments:
            return self
        values = json.loads(json.dumps(_plain(self, whole=True)))
        known, seen = _flat_keys(values), {}
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals:
                raise UserError(f"{assignment!r} sets nothing; write KEY=VALUE, such as training.steps=100")
            if key not in known:
                raise UserError(f"unknown configuration key {key!r}{nearest(key, known)}")
            if key in seen:
                raise UserError(f"{key!r} is set twice, to {seen[key]} and to {text}; set it once")
            seen[key] = text
            *path, last = key.split(".")
            target = values
            for part in path:
                target = target[part]
            try:
                target[last] = json.loads(text)
            except (ValueError, RecursionError):  # a word, or a number or nesting too large to read
                target[last] = text
        return self.from_json(values | ({"preset": "custom"} if "preset" in values else {}))


class Kinds:
    """Base class of a role with several kinds of configuration, each a frozen dataclass with fields of its own.

    A field typed as the base is read as the kind whose fields the JSON has, in this library or in a user's code.
    Two kinds with the same fields would have the same JSON and digest: the second is refused.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse a kind with the fields of another.

        Raises:
            TypeError: another kind has the same fields.
        """
        super().__init_subclass__(**options)
        if Kinds in cls.__bases__:
            return
        for other in kinds_of(_role(cls)):
            again = (other.__module__, other.__qualname__) == (cls.__module__, cls.__qualname__)
            if other is not cls and not again and _names(other) == _names(cls):
                raise TypeError(f"{cls.__qualname__} has the fields of {other.__qualname__}; give it one of its own")


def kinds_of(base: type) -> list[type]:
    """Return every kind of a base, including subclasses of kinds, in the order of definition."""
    return [kind for each in base.__subclasses__() for kind in (each, *kinds_of(each))]


def _role(kind: type) -> type:
    return next(each for each in kind.__mro__ if Kinds in each.__bases__)


def _names(kind: type) -> set[str]:
    return {name for each in kind.__mro__ for name in inspect.get_annotations(each)}


def _plain(value: Any, whole: bool) -> Any:
    """Return a dataclass as a dictionary; fields added later are included at their defaults only if `whole`."""
    if not dataclasses.is_dataclass(value):
        return value
    check_choices(value)
    kept, hints = {}, _hints(type(value))
    for field in dataclasses.fields(value):
        held = _as_read(hints[field.name], getattr(value, field.name))
        if whole or "since" not in field.metadata or held != _default(field):
            kept[field.name] = _plain(held, whole)
    return kept


def _as_read(kind: Any, value: Any) -> Any:
    """Return a value as `_read` gives it back: a whole number as a float where floats are, so 1 and 1.0 are one."""
    kinds = typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else (kind,)
    if isinstance(value, tuple):
        items = next((list(typing.get_args(each)) for each in kinds if typing.get_origin(each) is tuple), [])
        repeated = items[:1] * len(value) if Ellipsis in items else items
        return tuple(map(_as_read, repeated, value)) if len(repeated) == len(value) else value
    return float(value) if type(value) is int and float in kinds and int not in kinds else value


def check_choices(one: Any) -> None:
    """Refuse a value of a `Literal` field that is not one of its choices: Python itself takes any.

    Raises:
        UserError: with the field and the nearest choice.
    """
    for field in dataclasses.fields(one):
        hint, value = _hints(type(one))[field.name], getattr(one, field.name)
        if typing.get_origin(hint) is Literal and value not in typing.get_args(hint):
            choices = map(str, typing.get_args(hint))
            raise UserError(f"{field.name} cannot be {_short(value)}{nearest(str(value), choices)}")


_hints = functools.cache(typing.get_type_hints)  # of a class: evaluating them takes as long as reading a configuration


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _flat_keys(values: dict[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key, value in values.items():
        keys += _flat_keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return keys


def _likest(kinds: Sequence[Any], value: Any) -> Any:
    """Return the kind to read a value as: among dataclasses, the one with the most of its keys."""

    def known(kind: Any) -> int:
        return len(_hints(kind).keys() & value.keys()) if dataclasses.is_dataclass(kind) else 0

    return max(kinds, key=known) if isinstance(value, dict) else kinds[0]


def _read(kind: Any, value: Any, path: str) -> Any:
    """Read a JSON value as `kind`: a dataclass or a union of them, a tuple, a literal, an optional or a plain type."""
    if isinstance(kind, type) and Kinds in kind.__bases__ and isinstance(value, dict):
        fields = {name for each in kinds_of(kind) for name in _names(each)}
        if strange := sorted(value.keys() - fields):
            raise UserError(
                f"unknown configuration key {path + strange[0]!r}{nearest(strange[0], fields)}; a kind of your own is "
                "known once the module that defines it is imported"
            )
        kind = max(kinds_of(kind), key=lambda each: (len(_names(each) & value.keys()), -len(_names(each))))
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints = _hints(kind)
        for key in value:
            if key not in hints:
                raise UserError(f"unknown configuration key {path + key!r}{nearest(key, hints)}")
        missing = [f.name for f in dataclasses.fields(kind) if f.name not in value and "since" not in f.metadata]
        if missing:
            raise UserError(f"the configuration lacks {path + missing[0]!r}")
        read = {k: _read(hints[k], v, f"{path}{k}.") for k, v in value.items()}
        for field in dataclasses.fields(kind):
            _refuse_outside(read.get(field.name), field.metadata.get("least", 1), path + field.name)
        return typing.cast(Any, kind)(**read)
    if origin is tuple and isinstance(value, list):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(value):
            return tuple(_read(k, v, path) for k, v in zip(kinds, value, strict=True))
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _read(_likest([a for a in arguments if a is not type(None)], value), value, path)
    if origin is Literal and value in arguments:
        return value
    if kind is float and isinstance(value, int | float) and abs(value) <= LARGEST and not isinstance(value, bool):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise UserError(f"the configuration's {path.rstrip('.')!r} cannot be {_short(value)}{_meant(kind, value)}")


def _refuse_outside(value: Any, least: int | None, key: str) -> None:
    """Refuse a count below its least value or above the largest of all, also inside nested tuples."""
    if isinstance(value, tuple):
        for item in value:
            _refuse_outside(item, least, key)
    elif type(value) is int and least is not None and not least <= value <= MOST:
        bound = f"at least {least}" if value < least else f"at most {MOST}"
        raise UserError(f"the configuration's {key!r} must be {bound}, not {_short(value)}")


def _short(value: Any) -> str:
    said = f"{value!r}" if not isinstance(value, int) or abs(value) < LARGEST else "so large a number"
    return said if len(said) <= SHOWN else f"{said[:SHOWN]}..."


def _meant(kind: Any, value: Any) -> str:
    """Return advice for a value that Python or another program would accept; empty if there is none."""
    if isinstance(value, str) and value.lower() in _WORDS and not (kind is str or typing.get_origin(kind) is Literal):
        return f"; say {_WORDS[value.lower()]}"
    if typing.get_origin(kind) is Literal:
        return nearest(str(value), [str(choice) for choice in typing.get_args(kind)])
    if kind is bool:
        return "; say true or false"
    if kind is int:
        return "; give a whole number"
    if kind is float:
        return "; give a finite number"
    return ""
