"""The checks of a GPU, tried on a CPU: all of them run, and a device that is wrong is found out."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from jlebm import randomness
from jlebm.engines import graphs, precision
from reproduce.benchmark import checks_in_turn, device_checks, gpu_check
from tests import tape

CPU = torch.device("cpu")


@pytest.mark.slow
def test_the_whole_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every check runs and finds nothing; versions, findings and times are in the file."""
    assert gpu_check.main(["--pretend", "--out", str(tmp_path / "check.json")]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"everything works: {', '.join(checks_in_turn.CHECKS)}"
    written = json.loads((tmp_path / "check.json").read_text())
    assert set(written["works"]) == set(checks_in_turn.CHECKS)
    assert written["versions"]["torch"]
    assert {"milliseconds", "gib"} <= set(
        next(each for each in written["findings"] if "what" in each and "ok" not in each)
    )
    assert all(each["ok"] for each in written["findings"] if "ok" in each)
    assert not graphs.given_up(), "the recording that broke was another process's"


def test_the_last_line_says_what_works() -> None:
    """And what to switch off; the exit code is of all of them."""
    assert checks_in_turn.summary({"noise": True, "training": True}) == "everything works: noise, training"
    said = checks_in_turn.summary({"noise": True, "recorded chains": False})
    assert said.startswith("NOT WORKING: recorded chains (set JLEBM_GRAPHS=0")
    assert said.endswith("works: noise")


def test_an_error_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """The checks after it still run; a warning is an error."""

    def broken(device: torch.device, full: bool):
        yield device_checks.Finding(True, "a start")
        raise RuntimeError("illegal memory access")

    checks = {"first": broken, "second": lambda device, full: [device_checks.Finding(True, "fine")]}
    monkeypatch.setattr(checks_in_turn, "CHECKS", checks)
    assert gpu_check.main(["--pretend", "--out", str(tmp_path / "check.json")]) == 1
    out = capsys.readouterr().out.splitlines()
    assert any("BAD" in line and "illegal memory access" in line for line in out)
    assert out[-1] == "NOT WORKING: first; works: second"


def test_a_cpu_is_not_checked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Breaks if the command passes where there is nothing to check."""
    assert gpu_check.main(["--device", "cpu", "--out", str(tmp_path / "check.json")]) == 2
    assert "--pretend" in capsys.readouterr().err


def bad(check: Callable) -> list[str]:
    return [found.what for found in check(CPU) if not found.ok]


def test_a_wrong_arithmetic_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """float32 that is rounded to bf16 on the way."""
    convolve = torch.nn.functional.conv_transpose2d

    def rounded(x: torch.Tensor, *rest):
        return convolve(x if x.dtype == torch.float64 else x.bfloat16().to(x.dtype), *rest)

    monkeypatch.setattr(device_checks.F, "conv_transpose2d", rounded)
    assert bad(device_checks.arithmetic_is_what_is_asked) == ["float32 convolutions are float32"]
    assert precision.in_force()[0] != "ieee"


@pytest.fixture
def _taped(monkeypatch: pytest.MonkeyPatch):
    graphs.forget()
    monkeypatch.setattr(graphs, "_off", False)
    yield monkeypatch.setattr(graphs, "recorder", lambda device: tape.record)
    graphs.forget()


@pytest.mark.slow
@pytest.mark.usefixtures("_taped")
def test_a_recording_that_keeps_old_weights_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """It launches what it saw, whatever the weights are now."""

    def frozen(work: Callable[[], None]) -> Callable[[], None]:
        play, first = tape.record(work), []

        def launch() -> None:
            if len(first) < 4:
                first.append(None)
                play()

        return launch

    monkeypatch.setattr(graphs, "recorder", lambda device: frozen)
    assert any("recorded = stepwise" in what for what in bad(device_checks.recordings_are_their_steps))


def test_other_noise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A draw of the second call that differs by one bit."""
    normals, calls = randomness.philox.normals, []

    def other(*given):
        calls.append(None)
        return normals(*given) + (1e-7 if len(calls) == 3 else 0.0)

    monkeypatch.setattr(randomness.philox, "normals", other)
    assert "noise philox/1 has the bits of a CPU" in bad(device_checks.noise_is_the_cpus)
