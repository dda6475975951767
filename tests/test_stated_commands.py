"""Every command that the project states exists and parses: README, docs, `expected.toml`, help texts, messages."""

import ast
import dataclasses
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import tyro

from reproduce.results import read_expected
from tests.test_packaging import DATASETS, sessions

ROOT = Path(__file__).resolve().parents[1]
DOCS = [page for page in sorted((ROOT / "docs").glob("*.md")) if page.name != "extending.md"]  # its commands are run
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
SOURCES = [path for room in ("jlebm", "reproduce", "figures") for path in sorted((ROOT / room).rglob("*.py"))]
# A command ends with its line, its quotation or its clause, or where two spaces separate it from what it does.
REST = r"(?:(?!  )[^`\n#|;])*"
PYTHON = re.compile(rf"python -m ((?:reproduce|figures)(?:\.\w+)*)((?: {REST})?)")
NOX = re.compile(rf"nox -s (reproduce_\w+|evaluate|generate|check|events|figures|report|bench) -- ({REST})")
MODULES = {"figures": "figures", "report": "figures.report", "bench": "reproduce.benchmark"}


def stated(text: str) -> Iterator[tuple[str, str]]:
    """Yield the module and the arguments of each command in a text."""
    for module, rest in PYTHON.findall(text):
        yield module, rest.strip()
    for session, rest in NOX.findall(text):
        module = session.replace("_", ".", 1) if session.startswith("reproduce_") else f"reproduce.{session}"
        yield MODULES.get(session, module), rest.strip()


def strings(path: Path) -> Iterator[str]:
    """Yield the texts of a source file: docstrings, which --help shows, and messages."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def commands() -> list[tuple[str, str]]:
    texts = [page.read_text() for page in PAGES] + [text for path in SOURCES for text in strings(path)]
    texts += [one.command for one in read_expected(ROOT / "results" / "expected.toml")]
    return sorted({command for text in texts for command in stated(text)})


def arguments_of(module: str) -> type:
    """Return the dataclass of a command's arguments."""
    if module.removeprefix("reproduce.") in DATASETS:
        return import_module("reproduce.pipelines.arguments").Arguments
    if module.startswith("reproduce.benchmark."):  # the checks of a GPU
        return import_module("reproduce.benchmark.options").CheckArguments
    spec = find_spec(module)
    assert spec is not None, module
    found = import_module(module if spec.submodule_search_locations is None else f"{module}.__main__")
    return getattr(found, "Arguments", None) or import_module("figures.common").Arguments


@pytest.mark.parametrize(("module", "rest"), commands())
def test_a_stated_command_parses(module: str, rest: str) -> None:
    """Breaks if a text or an expectation names a command that does not exist, or an option that it refuses."""
    kind = arguments_of(module)
    assert dataclasses.is_dataclass(kind)
    words = shlex.split(rest.replace("[", "").replace("]", ""))
    if words and words != ["--help"]:  # a command that is only named may need more
        tyro.cli(kind, args=words)


def test_there_is_something_to_parse() -> None:
    """Breaks if the texts are written so that no command is found in them."""
    assert len(commands()) > 80
    assert {module for module, _ in commands()} >= {"reproduce.cifar10", "reproduce.anomaly", "reproduce.generate"}


def test_a_session_named_in_the_source_exists() -> None:
    """Breaks if a message or a docstring names a session that nox does not list; pages are read in test_readme."""
    named = {name for path in SOURCES for text in strings(path) for name in re.findall(r"nox -s (\w+)", text)}
    assert {"check", "bench"} <= named
    assert named - {"reproduce_"} <= {name for name, _, _ in sessions()}  # an f-string's first half is no name
