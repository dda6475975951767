"""Prose in the code is plain English: none of the phrases that sounded translated."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Folders whose docstrings, comments and messages are checked: *.py and *.md. At the top of `reproduce` are commands.
ROOMS = (
    "jlebm",
    "figures",
    *(f"reproduce/{path.name}" for path in sorted((ROOT / "reproduce").iterdir()) if path.is_dir()),
)
# Text of stored rows, whose digests would change, and of the table made from them.
STORED = {"first_format.py": "bits a colour", "comparison.py": "bits a colour"}
COMMANDS = sorted((ROOT / "reproduce").glob("*.py"))
FILES = sorted(path for room in ROOMS for kind in ("py", "md") for path in (ROOT / room).rglob(f"*.{kind}")) + COMMANDS

# What to write instead: "on", "must match", "compared with", "the user", "drifts away", "if recording failed",
# "silently", "None if", "one per image", "evenly spaced", "the only part that learns", "diverged", "except".
BANNED = (
    r"\bupon\b",
    r"\b(is|are) held to\b",
    r"\bheld against\b",
    r"\ba person\b",
    r"\bflees?\b",
    r"\bin vain\b",
    r"\bwithout a word\b",
    r"\bNone where\b",
    r"\bat even distances\b",
    r"\bnothing else that learns\b",
    r"\bthe one move\b",
    r"\brun apart|ran apart\b",
    r"\bcan say to\b",
    r"\bnobody waited\b",
    r"\b(a|one) (row|run|panel|histogram|line) an? (system|score|image|seed|figure|dataset)\b",
    r"\bbut for\b",
    r"\b(nats|one|row|network|perceptron|bits|levels) an? (image|seed|layer|colour|channel)\b",
)


def prose(text: str) -> str:
    """Return a file's words in one line, so that a phrase is found across the end of a line or of a comment."""
    return re.sub(r"\s+(# )?", " ", text)


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and text of every docstring: of modules, classes, functions and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value.strip()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_prose_has_no_translated_phrases(path: Path) -> None:
    """Breaks if a phrase that a reader stumbled over comes back."""
    words = prose(path.read_text()).replace(STORED.get(path.name, "\0"), "")
    for phrase in BANNED:
        for found in re.finditer(phrase, words, re.IGNORECASE if phrase.islower() else 0):
            raise AssertionError(words[max(0, found.start() - 40) : found.end() + 40])


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".py"], ids=lambda path: path.stem)
def test_a_docstring_names_its_subject(path: Path) -> None:
    """Breaks if a first line is a fragment, "Of the EBM prior", instead of "Chain of the EBM prior"."""
    for line, text in docstrings(ast.parse(path.read_text())):
        assert not text.startswith("Of "), f"{path.name}:{line}: {text.splitlines()[0]}"


def test_the_check_finds_what_it_bans() -> None:
    """Breaks if a pattern no longer matches its own phrase, also across the end of a comment's line."""
    assert re.search(BANNED[1], prose("which the features\n    # are held\n    # to, within"))
    assert re.search(BANNED[-1], prose("in nats\n    an image"))
    assert [text for _, text in docstrings(ast.parse('x: int = 1\n"""Of x."""\n'))] == ["Of x."]
