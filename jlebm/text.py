"""Make untrusted text safe to show: on a terminal, in a shell, in an output's encoding."""

import re
import shlex
import unicodedata

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_PLAIN = {
    "±": "+/-", "×": "x", "·": ".", "µ": "u", "μ": "u", "ε": "epsilon", "…": "...", "–": "-", "—": "-", "→": "->",
    "≤": "<=", "≥": ">=", "“": '"', "”": '"', "‘": "'", "’": "'", "•": "*",
}  # fmt: skip
_LINES = dict.fromkeys("─━┄┅┈┉╌╍═╴╶╸╺", "-") | dict.fromkeys("│┃┆┇┊┋╎╏║", "|")


def printable(text: str) -> str:
    r"""Return a text with control characters escaped, `\x1b`, so that a terminal shows them and does not obey them.

    Line ends and tabs stay. Marks that change the direction of writing are escaped too.
    """
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text)


def shell_command(*words: str) -> str:
    """Return a command line that a shell reads as exactly these words, whatever characters they contain."""
    return " ".join(map(_shell_word, words))


def _shell_word(word: str) -> str:
    if not re.search(r"[\n\t]", word) and printable(word) == word:
        return shlex.quote(word)
    # Quoted so that an escape survives on the way to the terminal: bash and zsh read $'\x1b'.
    written = word.replace("\\", r"\\").replace("'", r"\'").replace("\n", r"\n").replace("\t", r"\t")
    return "$'" + _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", written) + "'"


def in_plain_characters(error: UnicodeError) -> tuple[str, int]:
    r"""Replace characters that an encoding lacks by ASCII; a handler for `codecs.register_error`.

    Frames become `+`, `-` and `|`, "±" becomes "+/-", accents are dropped, and the rest is escaped, `\u2028`.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(character: str) -> str:
    if "\u2500" <= character <= "\u257f":
        return _LINES.get(character, "+")
    known = _PLAIN.get(character) or unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return known or character.encode("ascii", "backslashreplace").decode()
