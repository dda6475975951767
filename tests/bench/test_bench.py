"""The benchmark: both sides compute the same before either is timed, and each line is a whole row."""

import dataclasses
from pathlib import Path

import pytest
import torch

import bench.__main__ as main
from bench import speed, stopwatch
from bench.plain import Plain
from jlebm.backbones.conv import ConvConfig
from jlebm.errors import UserError
from jlebm.experiment import Experiment, TrainingConfig
from jlebm.langevin import Chain
from jlebm.results import TIMINGS, Timing, timing
from jlebm.results.rows import read
from reproduce.cifar10 import PAPER
from tests.inception import random_state, random_weights

__all__ = ["random_state", "random_weights"]

CPU = torch.device("cpu")
SMALL = Experiment(
    protocol="test/1",
    preset="small",
    dataset="noise",
    model=ConvConfig((3, 32, 32), (6, 8), channels=(6, 5, 4), conditional_hidden=(9, 9)),
    energy_hidden=((7, 7), (6, 6, 6)),
    prior_chain=Chain(5, 0.05),
    posterior_chain=Chain(4, 0.005),
    training=TrainingConfig(batch_size=4),
)


def small_parts() -> dict[str, speed.Part]:
    return {part.metric: part for part in speed.parts(SMALL, "small", CPU, few=2, count=6, whole=True)}


def test_every_part_is_the_plain_computation() -> None:
    """Chains, samples and all gradients of an update agree in float64 with the same noise, to 1e-10."""
    found = small_parts()
    assert set(found) == {"prior chain", "posterior step", "training iteration", "sampling"}
    for part in found.values():
        assert part.limit == speed.EXACT
        assert speed.held(part) <= speed.EXACT, part.metric
    data = speed.data_part(CPU)
    assert speed.held(data) <= data.limit


def test_nothing_is_timed_that_is_not_the_same_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain side that forgets a term is found out."""
    monkeypatch.setattr(Plain, "top_log_prob", lambda self, z2: (0 * z2).sum(1))
    with pytest.raises(UserError, match="prior chain: ours and the plain implementation differ"):
        speed.held(small_parts()["prior chain"])


@pytest.mark.parametrize("metric", ["prior chain", "posterior step", "training iteration", "sampling"])
def test_the_floor_counts_no_more_than_ours_does(metric: str) -> None:
    """Operations that are counted for one image are those of all images together; none are counted twice."""
    part = small_parts()[metric]
    assert part.counted is not None
    counted = part.times * stopwatch.operations(part.counted)
    assert 0 < counted <= 1.001 * stopwatch.operations(part.ours)


def test_operations_of_the_papers_chain() -> None:
    """1.27 MFLOP a chain and step at the paper's sizes: the arithmetic of the layers, forward and back."""
    sizes = [(100, 100), (100, 100), (128, 200), (200, 200), (200, 200)]  # both energies
    sizes += [(100, 200), (200, 200), (200, 200), (200, 200), (200, 256)]  # the conditional
    expected = sum(4 * a * b for a, b in sizes)
    part = next(speed.parts(PAPER.experiment, "paper", CPU, few=1, count=1))
    counted = stopwatch.operations(part.counted or (lambda: None))
    assert counted == 60 * 100 * expected
    assert expected == pytest.approx(1.27e6, rel=0.01)


def test_lines_are_stored_and_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line is a row with its machine; the whole training is extrapolated from the iteration, and says so."""
    monkeypatch.setattr(main, "PAPER", dataclasses.replace(PAPER, experiment=SMALL))
    monkeypatch.setattr(main, "CPU", dataclasses.replace(PAPER, experiment=SMALL))
    places = ["--results", str(tmp_path), "--data-root", str(tmp_path), "--device", "cpu"]
    assert main.main([*places, "--only", "training", "ten", "Inception"]) == 0
    rows = read(tmp_path / "measured" / TIMINGS, Timing)
    kinds = [(row.kind, row.metric) for row in rows]
    assert kinds[:2] == [("speed", "training iteration"), ("extrapolated", "training at the paper's settings")]
    assert kinds.count(("extrapolated", "training at the paper's settings")) == 1
    iteration, whole = rows[:2]
    assert whole.ours == pytest.approx(iteration.ours * SMALL.training.steps * SMALL.training.batch_size / 5)
    assert all(row.intact and row.device.startswith("cpu") and row.repetitions == 7 for row in rows)
    shown = capsys.readouterr()
    assert "not measured" in shown.out
    assert "extrapolated" in shown.out
    assert "Inception is not timed" in shown.err


def test_inception_is_held_to_torch_fidelitys_own_features(random_weights: Path, tmp_path: Path) -> None:
    """Folded batch norm, layout and threads move no feature by more than the declared budget."""
    (tmp_path / "weights-inception-2015-12-05-768.pth").write_bytes(random_weights.read_bytes())
    part = speed.inception_part(tmp_path, CPU)
    assert speed.held(part) <= speed.FEATURES
    # Convolutions that a fused operation does, or another thread, are not counted there: the floor would be nothing.
    assert part.counted is not None
    assert stopwatch.operations(part.counted) > 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--repetitions", "3"], "at least 7"),
        (["--only", "nothing like it", "--no-store"], "no line begins with nothing like it"),
    ],
)
def test_bad_input(
    arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One clear sentence and exit code 2."""
    monkeypatch.setattr(main, "PAPER", dataclasses.replace(PAPER, experiment=SMALL))
    monkeypatch.setattr(main, "CPU", dataclasses.replace(PAPER, experiment=SMALL))
    assert main.main([*arguments, "--device", "cpu"]) == 2
    assert sentence in capsys.readouterr().err


def test_stopwatch_takes_turns() -> None:
    """A B A B, one of each uncounted: a machine that slows down slows both."""
    order: list[str] = []
    medians = stopwatch.interleaved(lambda: order.append("plain"), lambda: order.append("ours"), 7, CPU)
    assert order == ["plain", "ours"] * 8
    assert medians.plain is not None
    assert timing.duration(medians.ours).endswith("µs")
