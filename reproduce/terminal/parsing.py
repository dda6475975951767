"""Command lines: a dataclass parsed by tyro, after a check for mistakes that tyro accepts silently."""

import dataclasses
import sys
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import tyro

from jlebm.errors import UserError
from jlebm.text import shell_command

A = TypeVar("A")


def parse(kind: type[A], argv: Sequence[str] | None, description: str | None) -> A:
    """Parse a command's arguments.

    A repeated option of several values, `--set A --set B`, is one option with all of them, `--set A B`.

    Args:
        kind: a frozen dataclass, each field an option; a nested dataclass adds its options without a prefix.
        argv: the words after the command's name; None for those of this process.
        description: first text of `--help`.

    Raises:
        UserError: an option of one value is given twice, or an option is given an empty text, which the shell makes of
            an unset variable; as a path it would be the working folder.
        SystemExit: tyro printed its help, or an option is unknown or a value cannot be parsed (exit code 2).
    """
    words = sys.argv[1:] if argv is None else list(argv)
    return tyro.cli(kind, prog=_program(), args=_joined(words, dict(_options(kind))), description=description)


def _program() -> str | None:
    """Return how this process was started, "python -m reproduce.cifar10"; None if not as a module."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return None if spec is None else f"python -m {spec.name.removesuffix('.__main__')}"


def _options(kind: Any) -> Iterator[tuple[str, bool]]:
    """Yield the name of each option and whether it takes several values."""
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from _options(hint)
        else:
            yield f"--{name.replace('_', '-')}", typing.get_origin(hint) is tuple


@dataclass(frozen=True)
class _Use:
    """One use of an option: the word itself, "--set=A", and the words after it."""

    option: str
    word: str
    behind: list[str]

    @property
    def values(self) -> list[str]:
        _, equals, value = self.word.partition("=")
        return [value, *self.behind] if equals and self.option else self.behind

    @property
    def words(self) -> list[str]:
        return [self.word, *self.behind] if self.option else self.behind


def _uses(words: Sequence[str], known: Collection[str]) -> list[_Use]:
    """Split a command line before each option; words before the first belong to the option ""."""
    uses = [_Use("", "", [])]
    for word in words:
        if not word.startswith("--") or word == "--":
            uses[-1].behind.append(word)
            continue
        name = word.partition("=")[0].replace("_", "-")
        positive = "--" + name.removeprefix("--no-")
        uses.append(_Use(positive if positive in known and name not in known else name, word, []))
    return uses


def _joined(words: Sequence[str], several: Mapping[str, bool]) -> list[str]:
    """Return the words with each option once; unknown options are left to tyro."""
    given: dict[str, list[_Use]] = {}
    for use in _uses(words, several):
        if not all(value.strip() for value in use.values):
            name = use.option or "an argument"
            why = "an empty text, as a shell makes of a variable that is not set"
            raise UserError(f"{name} is {why}; set it, or leave it out")
        given.setdefault(use.option, []).append(use)
    joined = []
    for option, uses in given.items():
        if len(uses) > 1 and several.get(option) is False:
            said = " and ".join(shell_command(*use.words) for use in uses)
            raise UserError(f"{option} takes one value and is given {len(uses)} times, {said}; give it once")
        if several.get(option):
            joined += [*uses[0].words, *(value for use in uses[1:] for value in use.values)]
        else:
            joined += [word for use in uses for word in use.words]
    return joined
