"""The limits of `nox -s fast`: a test that computes too long is named, however many processes run the tests."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import processor_time

ROOT = Path(__file__).resolve().parents[1]
TESTS = """
import subprocess, sys, time

BUSY = "import time\\nwhile time.process_time() < 0.6: pass"

def test_quick(): pass
def test_that_sleeps(): time.sleep(0.8)
def test_that_computes(): exec(BUSY.replace("0.6", str(time.process_time() + 0.6)))
def test_whose_program_computes(): subprocess.run([sys.executable, "-c", BUSY], check=True)
"""
RUN = """
import pytest
from tests import processor_time

processor_time.EACH = 0.5
raise SystemExit(pytest.main({arguments}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["0", "2"])
def test_what_computes_too_long_is_named(processes: str, tmp_path: Path) -> None:
    """Breaks if sleep counts, a program that a test starts does not, or a worker's times are lost."""
    (tmp_path / "test_four.py").write_text(TESTS)
    plugins = ["-p", "tests.processor_time", "-p", "no:cacheprovider"]
    arguments = ["-n", processes, *plugins, "-c", "/dev/null", "--rootdir", str(tmp_path), str(tmp_path)]
    command = [sys.executable, "-c", RUN.format(arguments=arguments)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    named = {line.split()[1].partition("::")[2] for line in ran.stdout.splitlines() if line.startswith("error: ")}
    assert named == {"test_that_computes", "test_whose_program_computes"}, ran.stdout + ran.stderr
    assert ran.returncode == 1


def test_all_together_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if many tests, each within its limit, may take longer than two minutes of two cores."""
    plugin, limit = processor_time.ProcessorTime(), processor_time.processor_seconds() + 1_000
    monkeypatch.setattr(processor_time, "ALL", limit)
    assert plugin.too_much() == []
    plugin.workers = limit
    (sentence,) = plugin.too_much()
    assert sentence.startswith("all together took more than")
