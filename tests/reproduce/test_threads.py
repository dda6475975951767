"""Threads of OpenMP in the suite's commands: they sleep while they wait, unless the user wants something else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import reproduce

ROOT = Path(__file__).resolve().parents[2]


def policy(code: str, **chosen: str) -> tuple[str, str]:
    """Return what a new process prints, and its stderr, in surroundings without settings of OpenMP's waiting."""
    surroundings = {name: value for name, value in os.environ.items() if name not in reproduce.WAITING}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=surroundings | chosen,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip(), ran.stderr


@pytest.mark.slow
def test_openmp_sees_the_policy() -> None:
    """Breaks if torch is loaded before the policy is set, so that threads spin all the same."""
    _, said = policy("import reproduce.cifar10, torch", OMP_DISPLAY_ENV="true")
    if "OMP_WAIT_POLICY" not in said:
        pytest.skip("this platform's OpenMP does not print its settings")
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in said


@pytest.mark.parametrize("name", reproduce.WAITING)
def test_a_setting_of_the_users_own_stays(name: str) -> None:
    """Breaks if the suite overrides what was chosen, by whichever of the variables."""
    value = {"OMP_WAIT_POLICY": "ACTIVE"}.get(name, "100")
    code = f"import os, reproduce; print(*(os.environ.get(name) for name in {reproduce.WAITING}))"
    found, _ = policy(code, **{name: value})
    assert found.split() == [value if each == name else "None" for each in reproduce.WAITING]
