"""Text of others: shown and not obeyed, pasted and not run as something else."""

import shlex
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jlebm.errors import nearest
from jlebm.text import in_plain_characters, printable, shell_command


@given(st.text())
def test_nothing_printable_moves_a_cursor(text: str) -> None:
    """Would break if a control character but the line end and the tab reached a terminal."""
    shown = printable(text)
    assert all(character in "\n\t" or not (ord(character) < 32 or 127 <= ord(character) < 160) for character in shown)
    if text.isprintable():
        assert shown == text


def test_escapes_are_shown() -> None:
    """Would break if an escape were dropped, so that a text looked like another one."""
    assert printable("cpu\x1b[2J\x1b[31mPASS\r\u202e") == r"cpu\x1b[2J\x1b[31mPASS\r\u202e"


WORDS = [
    "source=anomaly/9/L>0",
    "a b",
    "$(touch x)",
    "`touch x`",
    "x; touch y",
    "it's",
    "",
    "\x1b[2J",
    "a\nb\\",
    "ε'\x07",
]


def test_a_shell_reads_the_words() -> None:
    """Would break if a printed command made a file, ran a second one, or lost a quotation mark."""
    command = shell_command("printf", "%s\\0", *WORDS)
    ran = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    assert ran.stdout.decode().split("\0")[:-1] == WORDS


@settings(max_examples=200)
@given(st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs", "Cf", "Zl", "Zp"])), min_size=1))
def test_plain_words_are_quoted_as_usual(words: list[str]) -> None:
    """Would break if a word without control characters were not written as shlex writes it."""
    assert shell_command(*words) == shlex.join(words)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_every_character_can_be_written(encoding: str) -> None:
    """Would break if some character still raised, or a frame or a sign had no plain form."""
    import codecs

    codecs.register_error("plain-in-a-test", in_plain_characters)
    for text in ("┏━┳┓┃│└", "1 ± 2 µs ε é → ≥ \u3042 \ud800 \U0001f600"):
        written = text.encode(encoding, "plain-in-a-test").decode(encoding)
        assert ("┏" in written) == (encoding == "utf-8" and "┏" in text)
    assert "┏━┳│".encode("ascii", "plain-in-a-test") == b"+-+|"
    assert "1 ± 2".encode("ascii", "plain-in-a-test") == b"1 +/- 2"


def test_the_nearest_name_whatever_its_case() -> None:
    """Would break if `--against CIFAR10` got a list of everything."""
    assert nearest("CIFAR10", ["celeba64", "cifar10", "mnist"]) == "; the nearest known one is 'cifar10'"
