"""Commands answer at once: `--help` imports no more than it says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_packaging import DATASETS

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    f"reproduce.{name}"
    for name in ("check", "evaluate", "generate", "ood", "priors", "table", "anomaly", "benchmark", "events")
} | {"reproduce.benchmark.gpu_check"}
DRAWN = [path.stem for path in (ROOT / "figures").glob("*.py") if "main(DRAWING" in path.read_text()]
FIGURES = {
    "figures",
    "figures.pages",
    "figures.report",
    "figures.system_samples",
    *(f"figures.{name}" for name in DRAWN),
}
PAGES = [ROOT / "README.md", ROOT / "results" / "README.md", *(ROOT / "docs").glob("*.md")]
WRITTEN = [*PAGES, ROOT / "tests" / "wire" / "digests.json"]
# Configurations, of which a dataset's presets are made, name torch's modules; everything slower comes in with the work.
RECIPES = {f"reproduce.{name}" for name in DATASETS}
SLOW = ("torch_fidelity", "torchvision", "sklearn", "scipy", "diffusers", "transformers", "torch._dynamo")
WITHOUT_TORCH = (*SLOW, "torch")

HELP = """
import contextlib, io, json, runpy, sys

imported = {{}}
for module in {modules}:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("jlebm", "reproduce", "figures")]:
        del sys.modules[name]
    before = set(sys.modules)
    sys.argv = ["command", "--help"]
    shown = io.StringIO()
    try:
        with contextlib.redirect_stdout(shown):
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        assert not ended.code, (module, ended.code)
    assert "usage:" in shown.getvalue(), module
    imported[module] = [name for name in {slow} if name in sys.modules and name not in before]
print(json.dumps(imported))
"""


def imported_by_help(*modules: str) -> dict[str, list[str]]:
    """Return which of the slow modules each command's `--help` imports, one command after the other in a process.

    What the first of several imports is not told of the others.
    """
    command = [sys.executable, "-c", HELP.format(modules=modules, slow=WITHOUT_TORCH)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_help_needs_no_torch() -> None:
    """Breaks if a command imports a model, a pipeline or the metric network before its options are read."""
    imported = imported_by_help(*sorted(COMMANDS | FIGURES))
    assert imported == {module: [] for module in COMMANDS | FIGURES}


@pytest.mark.parametrize("module", ["reproduce.check", "figures"])
def test_help_can_be_asked_for_as_it_says(module: str) -> None:
    """Breaks if usage, or where to find the full help, is the path of a file that cannot be run."""
    as_typed = f"python -m {module}"
    for option, code, said in (("--help", 0, f"usage: {as_typed} "), ("--none", 2, f"run {as_typed} --help")):
        command = [sys.executable, "-m", module, option]
        ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
        assert ran.returncode == code
        assert said in ran.stdout + ran.stderr
        assert str(ROOT) not in (ran.stdout + ran.stderr).partition("options")[0]


@pytest.mark.parametrize("module", ["figures.pages", "tests.wire.presets"])
def test_help_writes_nothing(module: str) -> None:
    """Breaks if a command that rewrites the repository's files does so where it is asked for help, or is mistyped."""
    before = {path: path.stat().st_mtime_ns for path in WRITTEN}
    for option, code in (("--help", 0), ("--none", 2)):
        command = [sys.executable, "-m", module, option]
        ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
        assert ran.returncode == code
    assert {path: path.stat().st_mtime_ns for path in WRITTEN} == before


@pytest.mark.slow
@pytest.mark.parametrize("module", sorted(RECIPES))
def test_the_help_of_a_recipe_needs_torch_alone(module: str) -> None:
    """Breaks if a recipe imports its pipeline, and with it torch-fidelity's CLIP, before its options are read."""
    assert set(imported_by_help(module)[module]) <= {"torch"}


@pytest.mark.slow
def test_the_slow_modules_are_those_that_the_work_imports() -> None:
    """Breaks if a name above is no longer what is slow, so that the tests above see nothing."""
    slow = "import sys, jlebm.evaluation.inception; print(*(name for name in {} if name in sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", slow.format(SLOW)], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert {"torch_fidelity", "torchvision"} <= set(ran.stdout.split()), ran.stderr


IMPORTED_LATE = """
import sys

import jlebm, jlebm.evaluation
from jlebm.evaluation import detection, two_sample_auc
from jlebm.sampling import Sampler
from jlebm.training import fit
help_of = jlebm.evaluation.__dir__()
assert "evaluate" in help_of and "detection" in help_of
print(*sorted(name for name in {slow} if name in sys.modules))
"""


@pytest.mark.slow
def test_training_and_detection_import_no_metric_network() -> None:
    """Breaks if the library loads torch-fidelity, torchvision or scikit-learn before one of their functions runs."""
    ran = subprocess.run(
        [sys.executable, "-c", IMPORTED_LATE.format(slow=SLOW)], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert (ran.returncode, ran.stdout.strip()) == (0, ""), ran.stderr
