"""Errors that end a command with one sentence and their own exit code."""

import codecs
import difflib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import ParamSpec

from jlebm.text import in_plain_characters, printable

P = ParamSpec("P")
PLAIN = "jlebm-plain"  # the name of the handler for characters that an output cannot encode
NOBODY_READS = 141  # the exit code that a shell reports after SIGPIPE

codecs.register_error(PLAIN, in_plain_characters)


class UserError(Exception):
    """Bad input. The message is one sentence: what was wrong and what to do about it."""

    exit_code = 2


def nearest(word: str, known: Iterable[str]) -> str:
    """Name the nearest known word, for the end of a `UserError` message; "CIFAR10" is near "cifar10".

    Returns "; the nearest known one is 'cifar10'", or "; known are: ..." if nothing is near.
    """
    known = sorted(known)
    folded = {name.casefold(): name for name in known}
    match = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.5)
    if match:
        return f"; the nearest known one is {folded[match[0]]!r}"
    return "; known are: " + ", ".join(known)


def exit_on_user_error(main: Callable[P, int | None]) -> Callable[P, int]:
    """Make a command's `main` report bad input as one sentence on stderr, with its exit code.

    An operating system's error about a named file is reported in the same way: its cause lies outside this code.
    Characters that the output's encoding lacks (ASCII has no frames, cp1252 no Greek) are replaced by plain ones,
    whichever library prints them. An output that is closed early, as by `| head`, ends the command silently; one on a
    full disk is a sentence, and where that cannot be written either, the exit code alone.
    """

    @wraps(main)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> int:
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # closed before the command began, as by `>&-`
                setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors=PLAIN)
        try:
            code = main(*args, **kwargs) or 0
            sys.stdout.flush()  # here, where a failed write is still reported
            return code
        except UserError as error:
            _say(f"error: {printable(str(error))}")
            return error.exit_code
        except BrokenPipeError:
            _drop("stdout")
            return NOBODY_READS
        except OSError as error:
            if error.filename is None and error.errno != errno.ENOSPC:
                raise
            if error.filename is None:
                _drop("stdout")
            name = "the output" if error.filename is None else printable(str(error.filename))
            _say(f"error: {name} cannot be used ({error.strerror})")
            return UserError.exit_code
        except KeyboardInterrupt:
            _say("interrupted; nothing that was stored is lost")
            return 130

    return guarded


def _say(line: str) -> None:
    try:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    except OSError:  # the exit code is left to tell
        _drop("stderr")


def _drop(name: str) -> None:
    """Send what Python flushes at exit into an output nowhere."""
    with suppress(OSError, ValueError):  # a stream without a descriptor has nothing to flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), getattr(sys, name).fileno())
