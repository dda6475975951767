"""Golden curves: the first step that leaves the tolerance is named, nothing is written unasked."""

from pathlib import Path
from typing import Any

import pytest

from jlebm.errors import UserError
from reproduce.results import compare_golden, write_golden

CURVES = {"loss": [3.0, 2.0, 1.0], "energy": [0.5, 0.25, 0.0]}


def compare(curves: Any, path: Path, device: str = "cpu-avx2") -> Any:
    return compare_golden(curves, path, device, rtol=1e-4, atol=1e-6, command="write it")


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.json"
    write_golden(CURVES, path, "cpu-avx2")
    return path


def test_the_same_passes(golden: Path) -> None:
    """Would break if curves did not come back as they were stored, or the tolerance were zero."""
    assert compare(CURVES, golden).status == "PASS"
    assert compare({**CURVES, "loss": [3.0 * (1 + 9e-5), 2.0, 1.0]}, golden).status == "PASS"


@pytest.mark.parametrize(
    ("curves", "name", "step"),
    [
        ({"loss": [3.0, 2.0, 1.01], "energy": [0.5, 0.3, 0.0]}, "energy", 1),
        ({"loss": [3.001, 2.0, 1.0], "energy": [0.5, 0.3, 0.0]}, "loss", 0),
        ({**CURVES, "loss": [3.0, float("nan"), 1.0]}, "loss", 1),
        ({**CURVES, "loss": [3.0, 2.0]}, "loss", 2),
        ({**CURVES, "loss": [3.0, 2.0, 1.0, 0.5]}, "loss", 3),
        ({"loss": CURVES["loss"]}, "energy", None),
        ({**CURVES, "other": [1.0]}, "other", None),
    ],
)
def test_the_first_step_off_is_named(golden: Path, curves: Any, name: str, step: int | None) -> None:
    """Would break if a NaN, a missing curve or a shorter one passed, or a later step were named first."""
    verdict = compare(curves, golden)
    assert (verdict.status, verdict.curve, verdict.step) == ("FAIL", name, step)
    assert repr(name) in verdict.reason


def test_another_device_is_not_run(golden: Path, tmp_path: Path) -> None:
    """Would break if curves of one device class were held to another's, or absent ones passed or were written."""
    verdict = compare(CURVES, golden, "cuda-NVIDIA H200")
    assert (verdict.status, verdict.command) == ("NOT RUN", "write it")
    assert "it has cpu-avx2" in verdict.reason
    missing = tmp_path / "none.json"
    assert compare(CURVES, missing).status == "NOT RUN"
    assert not missing.exists()


def test_writing_keeps_other_devices(golden: Path) -> None:
    """Would break if writing one device class anew lost another's curves, or stored NaN."""
    write_golden({"loss": [1.0]}, golden, "cuda")
    assert compare(CURVES, golden).status == "PASS"
    with pytest.raises(UserError, match="'loss' is nan at step 0"):
        write_golden({"loss": [float("nan")]}, golden, "cuda")
    assert compare({"loss": [1.0]}, golden, "cuda").status == "PASS"


@pytest.mark.parametrize("content", ["{", "[]", '{"cpu-avx2": {"loss": 3}}', '{"cpu-avx2": {"loss": ["x"]}}'])
def test_a_damaged_file_gets_a_sentence(tmp_path: Path, content: str) -> None:
    """Would break if a damaged golden file counted as none."""
    path = tmp_path / "tiny.json"
    path.write_text(content)
    with pytest.raises(UserError, match="damaged"):
        compare(CURVES, path)
