"""python -m reproduce.events: what a run recorded, read back from TensorBoard's own files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reproduce import events

RUN = "mnist-variational-tiny-0123456789-seed1"
RECORDED = [
    {"step": step, "seconds": 1.5 * step, "loss": 1 / 3 - step, "energy_posterior/z2": 1e-3 * step, "late": True}
    for step in (0, 10, 20)
]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Lay out two runs, one of which has one event of another kind and a line that a crash cut short."""
    for name in (RUN, "other"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        lines = [*RECORDED, {"step": 20, "diagnostics": {"acceptance": 0.5}}]
        (folder / events.EVENTS).write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3')
    return tmp_path / "runs"


def test_the_scalars_read_back_equal(runs: Path, tmp_path: Path, capsys: Any) -> None:
    """Breaks if a figure, a step or a run is lost or renamed, or a number changes on its way but to float32."""
    pytest.importorskip("tensorboard", reason="needs the extra: python -m pip install -e '.[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import (  # pyright: ignore[reportMissingImports]
        EventAccumulator,
    )

    out = tmp_path / "out"
    assert events.main(["--runs", str(runs), "--tensorboard", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == sorted([RUN, "other"])
    assert f"{out / RUN}: 3 steps" in capsys.readouterr().out
    read = EventAccumulator(str(out / RUN))
    read.Reload()
    assert sorted(read.Tags()["tensors"]) == ["energy_posterior/z2", "loss"]
    for name in ("energy_posterior/z2", "loss"):
        found = [(one.step, one.wall_time, float(one.tensor_proto.float_val[0])) for one in read.Tensors(name)]
        wanted = [(one["step"], one["seconds"], float(np.float32(one[name]))) for one in RECORDED]
        assert found == wanted
    assert events.main(["--runs", str(runs / RUN), "--tensorboard", str(out)]) == 2  # nothing is written twice
    assert "has TensorBoard files already" in capsys.readouterr().err


def test_the_figures_are_those_of_the_curves() -> None:
    """Breaks if TensorBoard shows other figures of a run than its own training.png."""
    from figures.plotting import recorded

    curves = recorded(RECORDED)
    assert {name: list(curves[name][1]) for name in curves} == {
        name: [events.scalars(event)[name] for event in RECORDED] for name in events.scalars(RECORDED[0])
    }


def test_bad_input(tmp_path: Path, runs: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a folder without runs gave an empty result, or a missing extra a traceback."""
    monkeypatch.setattr(events.importlib.util, "find_spec", lambda name: object())
    assert events.main(["--runs", str(tmp_path / "none"), "--tensorboard", str(tmp_path / "out")]) == 2
    assert "holds no run" in capsys.readouterr().err
    monkeypatch.setattr(events.importlib.util, "find_spec", lambda name: None)
    assert events.main(["--runs", str(runs), "--tensorboard", str(tmp_path / "out")]) == 2
    assert "pip install" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
