"""The benchmark: both sides compute the same before either is timed, and each line is a whole row."""

import dataclasses
import time
from pathlib import Path

import pytest
import torch

import reproduce.benchmark.__main__ as main
from jlebm.backbones.conv import ConvConfig
from jlebm.engines import products
from jlebm.engines.precision import in_force
from jlebm.errors import UserError
from jlebm.experiment import Experiment
from jlebm.langevin import Chain
from jlebm.learning.trainable import TrainingConfig
from jlebm.progress import SILENT
from reproduce.benchmark import ceilings, lines, options, speed, stopwatch, throughput, timed, untaken
from reproduce.benchmark.part import EXACT, Part, agreed, noise
from reproduce.benchmark.plain import Plain
from reproduce.cifar10 import PAPER
from reproduce.results import TIMINGS, Timing, timing
from reproduce.results.rows import read
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


WORKLOAD = speed.Workload(SMALL, "small", few=2, count=6, whole=True)


def small_parts() -> dict[str, Part]:
    return {part.metric: part for part in speed.parts(WORKLOAD, CPU)}


def test_every_part_is_the_plain_computation() -> None:
    """Chains, samples and all gradients of an update agree in float64 with the same noise, to 1e-10."""
    found = small_parts()
    assert set(found) == {"prior chain", "posterior step", "training iteration", "sampling"}
    for part in found.values():
        assert part.limit == EXACT
        assert agreed(part) <= EXACT, part.metric
    data = throughput.data_part(CPU)
    assert agreed(data) <= data.limit


def test_nothing_is_timed_that_is_not_the_same_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain side that forgets a term is found out."""
    monkeypatch.setattr(Plain, "top_log_prob", lambda self, z2: (0 * z2).sum(1))
    with pytest.raises(UserError, match="prior chain: ours and the plain implementation differ"):
        agreed(small_parts()["prior chain"])


def test_plain_makes_the_gradient_calls_of_the_released_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls a step, log p0 with log p(x|z) and the energies, and the posterior's chain before the prior's.

    Breaks if plain does more work than the released code, so that every ratio of the table flatters ours.
    """
    plain = Plain(SMALL.build())
    calls: list[str] = []
    gradient = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args: calls.append("grad") or gradient(*args))
    for name in ("log_likelihood", "log_p0", "energy_terms"):
        of = getattr(plain, name)
        monkeypatch.setattr(plain, name, lambda *args, of=of, name=name: calls.append(name) or of(*args))
    x = torch.zeros(2, 3, 32, 32)
    posterior, prior = Chain(2, 0.005), Chain(3, 0.05)
    plain.samples(x, (posterior, prior), (noise(CPU), noise(CPU)))
    step = ["log_p0", "energy_terms", "grad", "grad"]
    assert calls == ["log_p0", "log_likelihood", *step[1:]] * 2 + step * 3


@pytest.mark.parametrize("metric", ["prior chain", "posterior step", "training iteration", "sampling"])
def test_the_floor_counts_no_more_than_ours_does(metric: str) -> None:
    """Operations that are counted for one image are those of all images together; none are counted twice."""
    parts = {part.metric: part for part in speed.parts(dataclasses.replace(WORKLOAD, steps=3), CPU)}
    part = parts[metric]
    assert part.counted is not None
    counted = part.times * stopwatch.operations(part.counted)
    whole = stopwatch.operations(part.ours)
    assert 0 < counted <= 1.001 * whole
    assert metric != "posterior step" or counted == pytest.approx(whole, rel=1e-3)


def test_operations_of_the_papers_chain() -> None:
    """1.27 MFLOP a chain and step at the paper's sizes: the arithmetic of the layers, forward and back."""
    sizes = [(100, 100), (100, 100), (128, 200), (200, 200), (200, 200)]  # both energies
    sizes += [(100, 200), (200, 200), (200, 200), (200, 200), (200, 256)]  # the conditional
    expected = sum(4 * a * b for a, b in sizes)
    part = next(speed.parts(speed.Workload(PAPER.experiment, "paper", few=1, count=1), CPU))
    counted = stopwatch.operations(part.counted or (lambda: None))
    assert counted == 60 * 100 * expected
    assert expected == pytest.approx(1.27e6, rel=0.01)


@pytest.mark.slow
def test_lines_are_stored_and_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line is a row with its machine; the whole training is extrapolated from the iteration, and says so."""
    monkeypatch.setattr(lines, "PAPER", dataclasses.replace(PAPER, experiment=SMALL))
    monkeypatch.setattr(lines, "CPU", dataclasses.replace(PAPER, experiment=SMALL))
    places = ["--results", str(tmp_path), "--data-root", str(tmp_path), "--device", "cpu"]
    assert main.main([*places, "--only", "training", "ten", "Inception"]) == 0
    rows = read(tmp_path / "measured" / TIMINGS, Timing)
    kinds = [(row.kind, row.metric) for row in rows]
    assert kinds[:2] == [("speed", "training iteration"), ("extrapolated", "training at the paper's settings")]
    assert kinds.count(("extrapolated", "training at the paper's settings")) == 1
    iteration, whole = rows[:2]
    assert whole.ours == pytest.approx(iteration.ours * SMALL.training.steps * SMALL.training.batch_size / 5)
    assert all(row.intact and row.device.startswith("cpu") and row.repetitions >= 7 for row in rows)
    shown = capsys.readouterr()
    assert "not measured" in shown.out
    assert "extrapolated" in shown.out
    assert "Inception is not timed" in shown.err


@pytest.mark.slow
def test_inception_is_held_to_torch_fidelitys_own_features(random_weights: Path, tmp_path: Path) -> None:
    """Folded batch norm, layout and threads move no feature by more than the declared budget."""
    (tmp_path / "weights-inception-2015-12-05-768.pth").write_bytes(random_weights.read_bytes())
    part = throughput.inception_part(tmp_path, CPU)
    assert agreed(part) <= throughput.FEATURES
    # Convolutions that a fused operation does, or another thread, are not counted there: the floor would be nothing.
    assert part.counted is not None
    assert stopwatch.operations(part.counted) > 0


@pytest.mark.slow
def test_what_ours_does_not_use_is_timed_beside_it() -> None:
    """Products through oneDNN have the error of float32, or have no line; layers in bf16 are as far off as bf16 is."""
    found = list(untaken.parts((WORKLOAD,)))
    expected = [untaken.PRODUCTS] * products.is_exact() + [untaken.LAYERS] * 3
    assert [part.metric for part in found] == expected
    for part in found:
        assert agreed(part) <= part.limit
        part.plain()
        part.ours()
        assert part.metric != untaken.LAYERS or part.agreement() > 1e-6, "bf16 was not used"


@pytest.mark.parametrize(("threads", "slept"), [(1, False), (2, True)])
def test_time_that_one_thread_does_not_work_is_not_its_own(
    monkeypatch: pytest.MonkeyPatch, threads: int, slept: bool
) -> None:
    """Breaks if other work on a pinned core counts, or several threads' times are added up."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    seconds = stopwatch.once(lambda: time.sleep(0.1), CPU)
    assert (seconds >= 0.1) == slept
    assert stopwatch.clock(CPU) == ("" if slept else "processor")
    assert stopwatch.clock(torch.device("cuda")) == ""


@pytest.mark.parametrize(
    ("only", "seen"),
    [
        ((), True),
        (("help",), True),
        (("help of a command, the slowest of 7",), True),
        (("prior chain", "help me"), False),
    ],
)
def test_a_line_is_chosen_by_metric_and_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, only: tuple[str, ...], seen: bool
) -> None:
    """Breaks if a word that goes on to the setting chooses nothing, or commands are prepared that nobody asked for."""
    asked: list[Path] = []
    monkeypatch.setattr(timed, "_parts", lambda *given: iter(()))
    monkeypatch.setattr(timed.scale, "points", lambda *given: iter(()))
    monkeypatch.setattr(timed.commands, "lines", lambda results, scratch: asked.append(results) or iter(()))
    arguments = options.Arguments(only=only, results=tmp_path)
    assert list(timed.measured(arguments, CPU, ceilings.Ceilings(CPU), {}, SILENT)) == []
    assert asked == [tmp_path] * seen


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--repetitions", "3"], "at least 7"),
        pytest.param(
            ["--only", "nothing like it", "--no-store"],
            "no line begins with nothing like it",
            marks=pytest.mark.slow,  # every line is built first
        ),
    ],
)
def test_bad_input(
    arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One clear sentence and exit code 2."""
    monkeypatch.setattr(lines, "PAPER", dataclasses.replace(PAPER, experiment=SMALL))
    monkeypatch.setattr(lines, "CPU", dataclasses.replace(PAPER, experiment=SMALL))
    assert main.main([*arguments, "--device", "cpu"]) == 2
    assert sentence in capsys.readouterr().err


def test_stopwatch_takes_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A B A B, one of each uncounted: a machine that slows down slows both. Short parts are repeated more often."""
    order: list[str] = []
    monkeypatch.setattr(stopwatch, "LEAST_SECONDS", 0.0)
    medians = stopwatch.interleaved(lambda: order.append("plain"), lambda: order.append("ours"), 7, CPU)
    assert order == ["plain", "ours"] * 8
    assert medians.plain is not None
    assert timing.duration(medians.ours).endswith("µs")
    assert medians.repetitions == 7
    monkeypatch.undo()
    assert stopwatch.interleaved(None, lambda: None, 7, CPU).repetitions == stopwatch.MOST_REPETITIONS


# ---- the lines of a GPU


@pytest.fixture(scope="module")
def awaited() -> list[timing.Awaited]:
    """The lines of a GPU, whose networks are built once for all tests."""
    return lines.awaited()


@pytest.mark.slow
def test_a_gpu_has_the_papers_sizes_in_each_arithmetic(awaited: list[timing.Awaited]) -> None:
    """Whole batches, ten steps and 10,000 images; the prior's chain once, as the generator is not in it."""
    assert len(awaited) == len(set(awaited))
    said = [(line.metric, line.setting) for line in awaited]
    for arithmetic in ("", ", tf32", ", bf16"):
        assert ("posterior step", f"10 steps, batch 100, the paper's sizes{arithmetic}") in said
        assert ("sampling", f"10000 images of the EBM prior, the paper's sizes{arithmetic}") in said
        assert (lines.WHOLE_TRAINING, f"50500 iterations of 100 images, from one of 100{arithmetic}") in said
    assert sum(metric == "prior chain" for metric, _ in said) == 2
    assert any(
        metric == "two-stage chain step" and "10 steps, batch 32, 30 groups" in setting for metric, setting in said
    )


@pytest.mark.slow
def test_the_table_waits_for_the_lines_of_this_benchmark(tmp_path: Path) -> None:
    """A line of another name or size breaks this; `python -m reproduce.benchmark --write-awaited` stores it."""
    assert timing.read_awaited(tmp_path) == []
    assert main.main(["--write-awaited", "--results", str(tmp_path)]) == 0
    assert timing.read_awaited(tmp_path) == timing.read_awaited(options.RESULTS)
    for damaged in ("[", "[[1, 2]]", "5"):
        (tmp_path / timing.AWAITED).write_text(damaged)
        with pytest.raises(UserError, match="write-awaited"):
            timing.read_awaited(tmp_path)


@pytest.mark.slow
def test_parts_are_the_lines_that_are_awaited(
    random_weights: Path, tmp_path: Path, awaited: list[timing.Awaited]
) -> None:
    """What a run makes carries the metric and the setting that the table waits for; another word breaks it."""
    tf32 = speed.Workload(SMALL.override(["model.precision=tf32"]), "small", few=2, count=6, whole=True)
    for workload in (WORKLOAD, tf32):
        found = {part.metric: part for part in speed.parts(workload, CPU)}
        assert {metric: part.setting for metric, part in found.items()} == workload.settings()
        assert {part.precision for part in found.values()} == {workload.precision}
        iteration = found["training iteration"]
        assert iteration.whole == workload.whole_training()
        assert iteration.iterations == SMALL.training.steps * SMALL.training.batch_size / 2
        assert all(part.whole is None for part in found.values() if part is not iteration)
    assert "prior chain" in WORKLOAD.settings()
    assert "prior chain" not in tf32.settings()
    (tmp_path / "weights-inception-2015-12-05-768.pth").write_bytes(random_weights.read_bytes())
    inception, data = throughput.inception_part(tmp_path, CPU), throughput.data_part(CPU)
    assert {(part.metric, part.setting) for part in (inception, data)} < {line[1:] for line in awaited}


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_plain_has_what_torch_allows_by_default_beside_less_precision(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TF32 in the released code's convolutions, unless ours is in float32; and the flag is as it was afterwards."""
    workload = speed.Workload(SMALL.override([f"model.precision={precision}"]), "small", few=2, count=6)
    seen: list[bool] = []
    monkeypatch.setattr(
        Plain, "log_likelihood", lambda self, z1, x: seen.append(in_force()[0] == "tf32") or (0 * z1).sum()
    )
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for part in speed.parts(workload, CPU):
            part.plain()
        assert not torch.backends.cudnn.allow_tf32
    assert set(seen) == {precision != "float32"}


def test_floors_are_read_from_the_ceiling_of_the_same_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each ceiling is measured once, where it is first asked for."""
    asked: list[str] = []

    def ceiling(device: torch.device, precision: str) -> ceilings.Ceiling:
        asked.append(precision)
        return ceilings.Ceiling({"float32": 1e9, "tf32": 2e9, "bf16": 4e9}[precision], "a kernel")

    monkeypatch.setattr(ceilings, "ceiling", ceiling)
    tops = ceilings.Ceilings(CPU)
    assert [tops[precision].flops for precision in ("bf16", "float32", "bf16")] == [4e9, 1e9, 4e9]
    assert asked == ["bf16", "float32"]
    monkeypatch.undo()
    before = in_force()
    monkeypatch.setitem(ceilings.MATRIX, "cpu", 64)
    monkeypatch.setattr(stopwatch, "LEAST_SECONDS", 0.0)
    assert ceilings.ceiling(CPU, "tf32").flops > 0
    assert in_force() == before


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_ceiling_is_the_fastest_kernel(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a slow product stands for the machine, as MKL's does on AMD, or the row names another kernel."""
    monkeypatch.setitem(ceilings.MATRIX, "cpu", 64)
    found = list(ceilings.kernels(CPU, precision))  # pyright: ignore[reportArgumentType]
    names = [kernel.name for kernel in found]
    assert len(names) == len(set(names)) >= 2
    assert "a convolution" in names
    monkeypatch.setattr(stopwatch, "in_turn", lambda parts, *rest: ([2.0] * (len(parts) - 1) + [0.001], 7))
    assert ceilings.ceiling(CPU, precision).kernel == names[-1]  # pyright: ignore[reportArgumentType]
    counted = [stopwatch.operations(kernel.run) for kernel in found if "oneDNN's" not in kernel.name]
    assert counted == [kernel.operations for kernel in found if "oneDNN's" not in kernel.name]


def test_a_product_that_rounds_is_no_ceiling_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a kernel that computes in bf16, as oneDNN's on AMX, is the ceiling of float32, or its switch stays."""
    switch = torch.backends.mkldnn.matmul
    before = switch.fp32_precision
    monkeypatch.setitem(ceilings.MATRIX, "cpu", 64)
    monkeypatch.setattr(products, "product", lambda first, second: (first.bfloat16() @ second.bfloat16()).float())
    assert "torch's product through oneDNN" not in [kernel.name for kernel in ceilings.kernels(CPU, "float32")]
    monkeypatch.undo()
    first, second = torch.eye(4), torch.arange(16.0).reshape(4, 4)
    assert torch.equal(products.product(first, second), second)
    assert switch.fp32_precision == before
