"""What is promised about the project as a whole: its commands, its pins, its layers and its wheel."""

import ast
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import jlebm

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LONGEST_MODULE = 320
MOST_PARAMETERS = 6
FEW_PARAMETERS = ("jlebm", "reproduce", "figures")  # rooms that keep to it

# The rooms of the house from the ground up: a module imports its own layer and those below. A new module is given
# its place here. The first layer knows nothing of models; configuration and runs know models, but not learning.
LAYERS = (
    {
        "text",
        "archives",
        "npz",
        "torch_files",
        "resuming",
        "sizes",
        "errors",
        "files",
        "folders",
        "progress",
        "images",
        "checkpoints",
        "guard",
        "devices",
        "engines.parallel",
        "choices",
        "engines.precision",
        "engines.products",
        "engines.allocation",
        "data",
        "evaluation",
    },
    {"latents", "distributions", "networks", "persistence", "randomness", "philox", "philox_kernel", "config"},
    {"backbones", "energies"},
    {"densities", "engines.closed_form", "engines.decoder_gradient"},
    {"engines.gradients", "engines.graphs"},
    {"langevin", "moves", "trajectories"},
    {"model", "diagnostics", "objectives"},
    {"learning", "preflight"},
    {"experiment", "run"},
    {"training", "sampling", "hierarchy"},
    {"trained"},
    {"weights"},
)
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}

# The suite's rooms from the ground up. What a person types is at the top, plotting knows arrays alone.
DATASETS = {path.stem for path in (ROOT / "reproduce").glob("*.py") if "\nRECIPE = " in path.read_text()}
SUITE = (
    {"figures.plotting", "reproduce.results", "reproduce.terminal"},
    {"reproduce.presets"},
    {"reproduce.systems"},
    {"reproduce.measuring"},
    {"reproduce.pipelines"},
    {"reproduce.benchmark"},
)
SUITE_RANK = {room: rank for rank, layer in enumerate(SUITE) for room in layer}
COMMANDS = len(SUITE)  # the rank of everything at the top of `reproduce`
KNOWN_TO_FIGURES = {"text", "errors", "files", "progress"}


# ---- the layers


def sources(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path, late: bool = True) -> Iterator[tuple[str, int]]:
    """Yield every module name that a file imports, and the line; `from jlebm import x` counts as jlebm.x.

    Without `late` those alone that are imported with the file, and not in a function.
    """
    tree = tree_of(path)
    for node in ast.walk(tree) if late else tree.body:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative imports hide the layer"
            assert node.module is not None
            for alias in node.names:
                whole = node.module in ("jlebm", "reproduce", "figures", "reproduce.pipelines", "jlebm.engines")
                yield (f"{node.module}.{alias.name}" if whole else node.module), node.lineno


def room_of(path: Path) -> str:
    """Return a package file's place in the table: `data` for jlebm/data/zip.py, `run` for jlebm/run.py."""
    parts = path.relative_to(ROOT / "jlebm").with_suffix("").parts
    return place_of(parts)


def place_of(parts: Sequence[str]) -> str:
    """Return the room of a module's name: engines of speed have a place each, since they serve different layers."""
    return ".".join(parts[:2]) if parts[0] == "engines" else parts[0]


@pytest.mark.parametrize("path", sources("jlebm"), ids=lambda path: str(path.relative_to(ROOT)))
def test_an_import_never_runs_upwards(path: Path) -> None:
    """Data or evaluation that knows a model, or a kernel that knows the training loop, breaks this."""
    room = room_of(path)
    if room in ("__init__", "engines.__init__"):
        return
    assert room in RANK, f"give jlebm.{room} its layer in this test, and in docs/architecture"
    for name, line in imports(path):
        top, *below = name.split(".")
        assert top not in {"reproduce", "figures", "tests", "noxfile"}, f"{path.name}:{line} knows {name}"
        if top == "jlebm" and below and place_of(below) in RANK:
            known = place_of(below)
            assert RANK[known] <= RANK[room], f"{path.name}:{line}: {room} imports {name}, which is above it"


def suite_room(name: str) -> int:
    """Return the rank of a suite's module: a dataset's file is a preset, everything else at the top a command."""
    if name.removeprefix("reproduce.") in DATASETS:
        return SUITE_RANK["reproduce.presets"]
    fitting = [rank for room, rank in SUITE_RANK.items() if name == room or name.startswith(f"{room}.")]
    return fitting[0] if fitting else COMMANDS


@pytest.mark.parametrize("path", sources("reproduce"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_suite_never_imports_upwards(path: Path) -> None:
    """A measurement that knows a pipeline, or a preset that runs something when it is imported, breaks this."""
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for name, line in imports(path, late=False):
        if name.startswith("reproduce.") or name.startswith("figures.plotting"):
            assert suite_room(name) <= suite_room(module), f"{path.name}:{line} imports {name}, which is above it"


@pytest.mark.parametrize("path", sources("jlebm"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_never_prints_nor_parses_arguments(path: Path) -> None:
    """A forgotten print, or a command line read inside the library, breaks this."""
    for name, line in imports(path):
        assert name.split(".")[0] not in {"optparse", "getopt", "tyro", "click"}, f"{path.name}:{line}"
    for node in ast.walk(tree_of(path)):
        # Of argparse the container alone: published checkpoints keep their sizes in one.
        if isinstance(node, ast.Import):
            assert all(alias.name != "argparse" for alias in node.names), f"{path.name}:{node.lineno}"
        if isinstance(node, ast.ImportFrom) and node.module == "argparse":
            assert [alias.name for alias in node.names] == ["Namespace"], f"{path.name}:{node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"print", "input"}, f"{path.name}:{node.lineno} calls {node.func.id}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sys":
            assert node.attr != "argv", f"{path.name}:{node.lineno} reads sys.argv"


EXTRAS = PYPROJECT["project"]["optional-dependencies"]
OF_THE_METHOD = {canonicalize_name(Requirement(line).name) for line in PYPROJECT["project"]["dependencies"]}
OF = {extra: {canonicalize_name(Requirement(line).name) for line in lines} for extra, lines in EXTRAS.items()}
PEERS = dict.fromkeys(("torchebm_peer", "jax_peers", "blackjax_peers", "inception_peer"), "peers")
KERNELS = {"philox_kernel": "gpu"} | PEERS  # modules that are imported only where an extra is installed, and which
OPTIONAL = set().union(*(names for extra, names in OF.items() if extra != "suite"))
PACKAGES = importlib.metadata.packages_distributions()
OURS = {"jlebm", "reproduce", "figures"}
SUITES_OWN = OF["suite"]


def foreign(path: Path, late: bool) -> Iterator[tuple[set[str], str]]:
    """Yield the distributions that give each module from outside that a file imports, and where it does."""
    for name, line in imports(path, late):
        top = name.split(".")[0]
        if top not in OURS and top not in sys.stdlib_module_names:
            yield {canonicalize_name(found) for found in PACKAGES.get(top, [top])}, f"{path.name}:{line} imports {top}"


@pytest.mark.parametrize("path", sources("jlebm"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_method_imports_its_own_dependencies_alone(path: Path) -> None:
    """Breaks if the library imports what `pip install jlebm` leaves out, or an extra's package before it is used."""
    for given_by, where in foreign(path, late=False):
        assert given_by & (OF_THE_METHOD | OF.get(KERNELS.get(path.stem, ""), set())), where
    for given_by, where in foreign(path, late=True):
        assert given_by & (OF_THE_METHOD | OPTIONAL), where


def test_a_kernel_is_imported_where_it_is_used_alone() -> None:
    """Breaks if a module needs a kernel's extra when it is imported, and not only when a GPU asks for it."""
    for path in sources("jlebm", "reproduce", "figures"):
        if path.stem in PEERS:
            continue  # one of them builds on another
        for name, line in imports(path, late=False):
            assert name.rpartition(".")[2] not in KERNELS, f"{path.name}:{line} imports {name}"


@pytest.mark.parametrize("path", sources("reproduce", "figures"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_suite_imports_what_its_extra_brings(path: Path) -> None:
    """Breaks if `pip install -e ".[suite]"` leaves out what a recipe, a figure or a check imports."""
    for given_by, where in foreign(path, late=False):
        assert given_by & (OF_THE_METHOD | OF["suite"] | OF.get(PEERS.get(path.stem, ""), set())), where
    for given_by, where in foreign(path, late=True):
        assert given_by & (OF_THE_METHOD | OF["suite"] | OPTIONAL), where


def test_every_dependency_is_imported_by_whom_it_is_for() -> None:
    """Breaks if a package that nobody imports any more is still installed."""
    for rooms, asked in ((("jlebm",), OF_THE_METHOD), (("reproduce", "figures"), OF["suite"])):
        used = [given_by for path in sources(*rooms) for given_by, _ in foreign(path, late=True)]
        assert asked <= set().union(*used)
    assert not OF_THE_METHOD & OF["suite"]


HIDE_THE_SUITE = """
import runpy, sys

for name in {hidden}:
    sys.modules[name] = None  # importing it raises ImportError
runpy.run_path("tests/bare_wheel.py")
"""


@pytest.mark.slow
def test_the_method_works_without_the_suite() -> None:
    """Breaks if a module of the library needs tyro, rich or matplotlib, or a recipe: `nox -s wheel` without a wheel."""
    modules = {top for top, given_by in PACKAGES.items() if {canonicalize_name(name) for name in given_by} & SUITES_OWN}
    hidden = sorted(modules | {"pandas", "reproduce", "figures"})
    command = [sys.executable, "-c", HIDE_THE_SUITE.format(hidden=hidden)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "bare\n"


def test_figures_know_results_and_never_models() -> None:
    """A figure that could train or sample, instead of reading stored artifacts, breaks this."""
    for path in sources("figures"):
        for name, line in imports(path):
            top, *below = name.split(".")
            if top == "reproduce":
                assert below[0] in ("results", "terminal"), f"{path.name}:{line} imports {name}"
            if top == "jlebm" and below:
                assert below[0] in KNOWN_TO_FIGURES, f"{path.name}:{line} imports {name}"


DRAWN_BY_RECIPES = ("figures.plotting", "figures.report")  # its own pictures, and the page of its run


def test_recipes_know_plotting_and_the_report_and_not_the_benchmark() -> None:
    """A recipe that draws the paper's figures itself, or leans on the plain implementation, breaks this."""
    for path in sources("reproduce"):
        for name, line in imports(path):
            assert not name.startswith("figures") or name.startswith(DRAWN_BY_RECIPES), f"{path.name}:{line}: {name}"
            inside = path.is_relative_to(ROOT / "reproduce" / "benchmark")
            assert inside or not name.startswith("reproduce.benchmark"), f"{path.name}:{line} imports {name}"


def test_no_module_name_stands_twice() -> None:
    """Two files of one name, of which a reader has to be told which is meant, break this."""
    names = [path.name for path in sources("jlebm", "reproduce", "figures") if not path.name.startswith("__")]
    assert sorted(names) == sorted(set(names))


def test_a_name_that_is_stored_is_spelled_once() -> None:
    """Breaks if a score, a protocol or a file's key that rows and files carry has a second home."""
    homes: dict[str, set[str]] = {"zR+zE": set(), "anomaly-80-20/1": set(), "arr_0": set(), " (not comparable)": set()}
    for path in sources("jlebm", "reproduce", "figures"):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Constant) and node.value in homes:
                homes[str(node.value)].add(path.name)
    assert {name: len(files) for name, files in homes.items()} == dict.fromkeys(homes, 1)


def test_figures_name_sources_as_results_do() -> None:
    """Breaks if a figure spells the source of a number itself, where `reproduce.results.metrics` has its name."""
    for path in sources("figures"):
        spelled = {node.value for node in ast.walk(tree_of(path)) if isinstance(node, ast.Constant)}
        assert not spelled & {"gaussian-prior", "ebm-prior"}, path.name


def test_at_the_top_of_the_suite_is_what_a_person_types() -> None:
    """A module of machinery beside the commands breaks this."""
    top = {path.stem for path in (ROOT / "reproduce").glob("*.py")} - {"__init__"}
    assert top == DATASETS | {"table", "anomaly", "ood", "priors", "evaluate", "generate", "check", "events"}


@pytest.mark.parametrize("path", sources("jlebm", "reproduce", "figures"), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_read_in_one_sitting(path: Path) -> None:
    """A module that grew into two ideas breaks this."""
    assert len(path.read_text().splitlines()) <= LONGEST_MODULE


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Return the names of all parameters of a function; a method's own object is none of them."""
    given = node.args
    starred = [one for one in (given.vararg, given.kwarg) if one is not None]
    names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs, *starred)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


@pytest.mark.parametrize("path", sources(*FEW_PARAMETERS), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_function_takes_few_parameters(path: Path) -> None:
    """Breaks if a function takes a seventh parameter: those that belong together are a frozen value of their own."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert len(parameters(node)) <= MOST_PARAMETERS, f"{path.name}:{node.lineno}: {node.name}"


IMPORT_EVERYTHING = """
import importlib, pkgutil, socket, sys, time

def refuse(*arguments, **keywords):
    raise AssertionError("the network was touched on import")

socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
started = time.monotonic()
import jlebm
assert time.monotonic() - started < 5, "importing jlebm is slow"
for module in pkgutil.walk_packages(jlebm.__path__, "jlebm."):
    if not module.name.endswith("_kernel"):  # which need an extra
        importlib.import_module(module.name)
sys.stdout.write("quiet")
"""


@pytest.mark.slow
def test_importing_is_quiet_quick_and_offline() -> None:
    """Work at import (a download, a printed banner, weights built) breaks this."""
    ran = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "quiet"


# ---- the pins and the wheel


def direct_dependencies() -> list[Requirement]:
    groups = [*PYPROJECT["dependency-groups"].values(), *PYPROJECT["project"]["optional-dependencies"].values()]
    return [Requirement(line) for lines in (PYPROJECT["project"]["dependencies"], *groups) for line in lines]


def pins() -> dict[str, Requirement]:
    lines = [line.strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    names = [canonicalize_name(pin.name) for pin in found]
    assert len(names) == len(set(names)), "a name is pinned twice"
    return dict(zip(names, found, strict=True))


def test_everything_is_pinned_exactly() -> None:
    """A range or a wildcard gives two people two environments."""
    for pin in pins().values():
        assert re.fullmatch(r"==[0-9][0-9a-z.+]*", str(pin.specifier)), str(pin)
        assert not pin.extras, str(pin)
        assert pin.url is None, str(pin)


@pytest.mark.parametrize("requirement", direct_dependencies(), ids=str)
def test_every_direct_dependency_is_pinned_inside_its_range(requirement: Requirement) -> None:
    """A dependency added without a pin, or a pin that pyproject.toml forbids, breaks this."""
    pin = pins()[canonicalize_name(requirement.name)]
    (specifier,) = pin.specifier
    assert requirement.specifier.contains(specifier.version)


def test_a_machine_with_its_own_torch_may_keep_it() -> None:
    """An exact or newer torch in pyproject.toml would make pip replace a GPU machine's own."""
    asked = {requirement.name: str(requirement.specifier) for requirement in direct_dependencies()}
    assert (asked["torch"], asked["torchvision"]) == (">=2.11", ">=0.26")


def test_one_version_everywhere() -> None:
    """A release that forgets CITATION.cff breaks this."""
    (cited,) = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), flags=re.MULTILINE)
    assert cited == jlebm.__version__
    assert PYPROJECT["project"]["dynamic"] == ["version", "readme"]


@pytest.mark.slow
def test_the_wheel_is_the_whole_package_and_nothing_else(tmp_path: Path) -> None:
    """A subpackage without __init__.py, a style file left out, or a recipe packed in breaks this."""
    pytest.importorskip("setuptools", minversion="77")
    copy = tmp_path / "copy"
    for room in ("jlebm", "reproduce", "figures"):
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    package = {str(path.relative_to(copy)) for path in (copy / "jlebm").rglob("*") if path.is_file()}
    build = "import setuptools.build_meta as build; build.build_wheel('wheels')"
    ran = subprocess.run([sys.executable, "-c", build], cwd=copy, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    (wheel,) = (copy / "wheels").glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == package
    assert "jlebm/py.typed" in packed


# ---- the commands


def sessions() -> list[tuple[str, bool, str]]:
    """Return what `nox -l` lists: each session's name, whether plain `nox` runs it, and its help line."""
    listed = run_nox("-l").stdout
    return [(name, mark == "*", said) for mark, name, said in re.findall(r"^([*-]) (\S+)(?: -> (.*))?$", listed, re.M)]


def run_nox(*arguments: str) -> "subprocess.CompletedProcess[str]":
    pytest.importorskip("nox")
    command = [sys.executable, "-m", "nox", "--nocolor", "-f", str(ROOT / "noxfile.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


def test_nox_lists_every_command_with_a_help_line() -> None:
    """`nox -l` is the manual: a session without a sentence breaks it, or a long one that plain `nox` runs."""
    listed = sessions()
    assert {name for name, default, _ in listed if default} == {"lint", "tests", "regression", "check"}
    assert {"cifar10", "celeba64", "celebahq256", "church64", "mnist", "fashion_mnist", "svhn"} <= DATASETS
    recipes = {f"reproduce_{dataset}" for dataset in DATASETS}
    recipes |= {
        "reproduce_table",
        "reproduce_anomaly",
        "reproduce_ood",
        "reproduce_priors",
        "fast",
        "method",
        "wheel",
        "lowest",
    }
    assert recipes | {"evaluate", "generate", "figures", "bench", "events"} <= {
        name for name, default, _ in listed if not default
    }
    for name, _, said in listed:
        assert said.endswith("."), name


def test_sessions_run_modules_that_exist() -> None:
    """A renamed recipe or command breaks this before a person finds out."""
    tree = ast.parse((ROOT / "noxfile.py").read_text())
    commands = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    ours = {text for text in commands if re.fullmatch(r"(reproduce\.[a-z_0-9]+|figures)", text)}
    ours |= {name.replace("_", ".", 1) for name, _, _ in sessions() if name.startswith("reproduce_")}
    assert {"reproduce.check", "reproduce.evaluate", "reproduce.cifar10", "figures", "reproduce.benchmark"} <= ours
    for module in ours:
        place = ROOT.joinpath(*module.split("."))
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), module


PYTHON = f"jlebm-{sys.version_info.major}.{sys.version_info.minor}"


def made_environment(envdir: Path, stamp: str, script: str) -> Path:
    """Lay out a shared environment whose interpreter is a shell script, so that a session can be watched."""
    if os.name == "nt":
        pytest.skip("the interpreter is a shell script here")
    folder = envdir / PYTHON
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >> {envdir}/calls\n{script}\n')
    python.chmod(0o755)
    (folder / "made-from").write_text(stamp)
    return folder / "made-from"


def due_stamp() -> str:
    parts = (bytes(ROOT), *((ROOT / name).read_bytes() for name in ("constraints.txt", "pyproject.toml")))
    return hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.mark.parametrize(("end", "code"), [("exit 2", 2), ("exit 3", 3), ("exit 130", 130), ("kill -9 $$", 137)])
def test_a_command_keeps_its_sentence_and_its_exit_code(tmp_path: Path, end: str, code: int) -> None:
    """A session that turns bad input, a divergence or a stop into nox's own 1, or mixes its streams, breaks this."""
    made_environment(tmp_path, due_stamp(), f"echo result; echo 'error: no such preset' >&2; {end}")
    ran = run_nox("--envdir", str(tmp_path), "-s", "reproduce_cifar10", "--", "--preset", "no-such")
    assert ran.returncode == code
    assert ran.stdout.strip() == "result"
    assert "error: no such preset" in ran.stderr
    assert (tmp_path / "calls").read_text() == "-m reproduce.cifar10 --preset no-such\n"  # and nothing was installed


def test_a_failure_is_a_failure(tmp_path: Path) -> None:
    """A session that swallows a failed check breaks this."""
    made_environment(tmp_path, due_stamp(), "exit 1")
    assert run_nox("--envdir", str(tmp_path), "-s", "check").returncode == 1


def test_the_environment_follows_the_pins(tmp_path: Path) -> None:
    """An environment made from other pins that is used as it is breaks this."""
    stamp = made_environment(tmp_path, "made from something else", "exit 0")
    assert run_nox("--envdir", str(tmp_path), "-s", "check").returncode == 0
    install, check = (tmp_path / "calls").read_text().splitlines()
    assert install.startswith(f"-m pip install --constraint {ROOT / 'constraints.txt'} --editable {ROOT}[suite] ")
    assert check == "-m reproduce.check"
    assert stamp.read_text() == due_stamp()


def test_a_failed_installation_is_not_taken_for_a_finished_one(tmp_path: Path) -> None:
    """A stamp written before pip has ended breaks this."""
    stamp = made_environment(tmp_path, "made from something else", "exit 1")
    assert run_nox("--envdir", str(tmp_path), "-s", "check").returncode == 1
    assert not stamp.exists()


@pytest.mark.slow
def test_two_sessions_at_once_install_once(tmp_path: Path) -> None:
    """Two installations into one environment at the same time break it."""
    made_environment(tmp_path, "made from something else", 'case "$2" in pip) sleep 1;; esac')
    command = [
        sys.executable,
        "-m",
        "nox",
        "-f",
        str(ROOT / "noxfile.py"),
        "--envdir",
        str(tmp_path),
        "-s",
        "check",
    ]
    pytest.importorskip("nox")
    started = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=60) for process in started] == [0, 0]
    calls = [line.split()[1] for line in (tmp_path / "calls").read_text().splitlines()]
    assert sorted(calls) == ["pip", "reproduce.check", "reproduce.check"]
    assert calls[0] == "pip"


def test_the_changelog_names_versions_newest_first() -> None:
    """An entry in the wrong place breaks this; the newest work stands under Unreleased."""
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert headings[0] == "Unreleased"
    released = [tuple(map(int, heading.split("."))) for heading in headings[1:]]
    assert all(newer > older for newer, older in pairwise(released))
