"""Errors that end a command with one sentence and an exit code of their own."""

import difflib
import io
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from typing import ParamSpec

P = ParamSpec("P")


class UserError(Exception):
    """Bad input. The message is one sentence: what was wrong and what to do about it."""

    exit_code = 2


def nearest(word: str, known: Iterable[str]) -> str:
    """Name the nearest known word, for the end of a `UserError` sentence.

    Returns "; the nearest known one is 'cifar10'", or "; known are: ..." where nothing is near.
    """
    known = sorted(known)
    by_lower = {name.casefold(): name for name in known}  # CIFAR10 is nearer to cifar10 than to nothing
    match = difflib.get_close_matches(word.casefold(), by_lower, n=1, cutoff=0.5)
    if match:
        return f"; the nearest known one is {by_lower[match[0]]!r}"
    return "; known are: " + ", ".join(known)


def exit_on_user_error(main: Callable[P, int | None]) -> Callable[P, int]:
    """Make a command's `main` answer bad input with its sentence on stderr and its exit code.

    An operating system's error about a named file is such a sentence too: it is about the surroundings and not about
    this code. Characters that the output's encoding lacks (cp1252 has no Greek) are written as escapes.
    """

    @wraps(main)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> int:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            return main(*args, **kwargs) or 0
        except UserError as error:
            sys.stderr.write(f"error: {error}\n")
            return error.exit_code
        except OSError as error:
            if error.filename is None:
                raise
            sys.stderr.write(f"error: {error.filename} cannot be used ({error.strerror})\n")
            return UserError.exit_code
        except KeyboardInterrupt:
            sys.stderr.write("interrupted; nothing that was stored is lost\n")
            return 130

    return guarded
