"""Every command that the project states exists and parses: README, docs, `expected.toml`."""

import dataclasses
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import tyro

from reproduce.results import read_expected
from tests.test_packaging import DATASETS

ROOT = Path(__file__).resolve().parents[1]
DOCS = [page for page in sorted((ROOT / "docs").glob("*.md")) if page.name != "extending.md"]  # its commands are run
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
PYTHON = re.compile(r"python -m ((?:reproduce|figures)(?:\.\w+)?)((?: [^`\n#|]*)?)")
NOX = re.compile(r"nox -s (reproduce_\w+|evaluate|generate|check|events|figures|bench) -- ([^`\n#|]*)")
MODULES = {"figures": "figures.__main__", "bench": "reproduce.benchmark.__main__"}


def stated(text: str) -> Iterator[tuple[str, str]]:
    """Yield the module and the arguments of each command in a text."""
    for module, rest in PYTHON.findall(text):
        yield module, rest
    for session, rest in NOX.findall(text):
        module = session.replace("_", ".", 1) if session.startswith("reproduce_") else f"reproduce.{session}"
        yield MODULES.get(session, module), rest


def commands() -> list[tuple[str, str]]:
    found = {command for page in PAGES for command in stated(page.read_text())}
    entries = read_expected(ROOT / "results" / "expected.toml")
    return sorted(found | {command for one in entries for command in stated(one.command)})


def arguments_of(module: str) -> type:
    """Return the dataclass of a command's arguments."""
    name = module.removeprefix("reproduce.")
    if name in DATASETS:
        return import_module("reproduce.pipelines.arguments").Arguments
    found = import_module({"figures": "figures.__main__", "reproduce.benchmark": MODULES["bench"]}.get(module, module))
    return getattr(found, "Arguments", None) or import_module("figures.common").Arguments


@pytest.mark.parametrize(("module", "rest"), commands())
def test_a_stated_command_parses(module: str, rest: str) -> None:
    """Breaks if a page or an expectation names a command that does not exist, or an option that it refuses."""
    kind = arguments_of(module)
    assert dataclasses.is_dataclass(kind)
    words = shlex.split(rest.replace("[", "").replace("]", ""))
    if words and words != ["--help"]:  # a command that is only named may need more
        tyro.cli(kind, args=words)


def test_there_is_something_to_parse() -> None:
    """Breaks if the pages are written so that no command is found in them."""
    assert len(commands()) > 40
    assert {module for module, _ in commands()} >= {"reproduce.cifar10", "reproduce.anomaly", "reproduce.generate"}
