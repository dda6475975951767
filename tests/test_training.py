"""The loop: resume to the bit in another process, dying at any moment, energies that run away."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from jlebm import checkpoints, guard, training
from jlebm.errors import UserError
from jlebm.experiment import LearningName, OptimizerConfig
from jlebm.learning.trainable import TrainingConfig
from jlebm.run import open_run
from jlebm.training import Batches, LoopControl, TrainState, fit, initial_state
from tests.small import IMAGES, experiment, train

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")


def tensors(state: TrainState) -> dict[str, torch.Tensor]:
    """Every tensor of the state by its path, the optimiser's and the generator's included."""
    found: dict[str, torch.Tensor] = {}

    def walk(value: object, path: str) -> None:
        if isinstance(value, torch.Tensor):
            found[path] = value
        elif isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{path}/{key}")

    walk(state.state_dict(), "")
    return found


def assert_same(a: TrainState, b: TrainState) -> None:
    ours, theirs = tensors(a), tensors(b)
    assert ours.keys() == theirs.keys()
    assert a.step == b.step
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("learning", ["joint-mle", "variational"])
def test_half_and_half_is_the_whole_bitwise(tmp_path: Path, learning: LearningName) -> None:
    """N steps equal N/2 steps, a new process and N/2 steps: a generator, moment, average or order left out shows."""
    _, whole = train(tmp_path / "whole", learning=learning)
    command = (
        "import sys; from pathlib import Path; from tests.small import train;"
        f"train(Path(sys.argv[1]), stop_after=11, learning={learning!r})"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run([sys.executable, "-c", command, str(tmp_path / "halves")], cwd=ROOT, env=environment, check=True)
    run, halves = train(tmp_path / "halves", learning=learning)
    assert_same(whole, halves)
    assert [event["step"] for event in run.events()] == [1, 11, 21]


def test_training_changes_what_it_should(tmp_path: Path) -> None:
    """Every parameter of every network moves, and the average lags behind the weights."""
    before = initial_state(experiment(), 1, CPU).model
    _, after = train(tmp_path)
    for (name, old), new in zip(before.named_parameters(), after.model.parameters(), strict=True):
        assert not torch.equal(old, new), name
    assert after.ema is not None
    assert not torch.equal(next(after.ema.parameters()), next(after.model.parameters()))
    assert after.evaluated_model() is after.ema.module


@pytest.mark.slow
def test_seed_decides_everything(tmp_path: Path) -> None:
    """The same seed gives the same weights, another seed others; torch's global generator plays no part."""
    torch.manual_seed(0)
    _, first = train(tmp_path / "a")
    torch.manual_seed(99)
    _, second = train(tmp_path / "b")
    _, third = train(tmp_path / "c", seed=2)
    assert_same(first, second)
    assert not torch.equal(next(first.model.parameters()), next(third.model.parameters()))


def test_finished_run_trains_no_further(tmp_path: Path) -> None:
    """The same command after the end changes nothing."""
    run, state = train(tmp_path)
    events = (run.folder / "events.jsonl").read_bytes()
    _, again = train(tmp_path)
    assert_same(state, again)
    assert (run.folder / "events.jsonl").read_bytes() == events


def test_a_pause_is_at_its_step_and_changes_nothing(tmp_path: Path) -> None:
    """Breaks if a run that is there already made another step, or one that pauses ended elsewhere than another."""
    _, whole = train(tmp_path / "whole")
    reached = []
    for until in (2, 2, 1, 5):
        with open_run(tmp_path / "parts", experiment(), 1) as run:
            reached.append(fit(run, IMAGES, CPU, LoopControl(until=until)).step)
    assert reached == [2, 2, 2, 5]
    _, parts = train(tmp_path / "parts")
    assert_same(whole, parts)


def test_a_run_is_of_the_images_that_it_was_begun_with(tmp_path: Path) -> None:
    """Breaks if new images of the same configuration brought back the model of the old ones, or wrong values trained.

    A run of an earlier version, whose folder has no digest of its images yet, takes those of its next call.
    """
    run, first = train(tmp_path)
    (run.folder / "images.sha256").unlink()
    _, again = train(tmp_path)
    assert_same(first, again)
    wrong = {
        "trained on other images; give these another dataset name": (255 - IMAGES, IMAGES[:-1]),
        "uint8, 0 to 255, of shape": (IMAGES / 255, torch.from_numpy(IMAGES)),
        "the dataset's are": (IMAGES[:, :, :4],),
    }
    with open_run(tmp_path, experiment(), 1) as opened:
        for sentence, several in wrong.items():
            for images in several:
                with pytest.raises(UserError, match=sentence):
                    opened.check_images(images)
    _, again = train(tmp_path)
    assert_same(first, again)


def test_events_of_repeated_steps_are_not_doubled(tmp_path: Path) -> None:
    """Events written after the last checkpoint are dropped when their steps are made again."""
    run, _ = train(tmp_path, stop_after=11)
    run.append_event({"step": 21, "loss": 0.0})
    with (run.folder / "events.jsonl").open("a") as file:
        file.write('{"step": 30, "lo')  # a line that a crash cut short
    run, _ = train(tmp_path)
    assert [event["step"] for event in run.events()] == [1, 11, 21]
    # Killed before its first checkpoint: everything is made again, and nothing of the first attempt is left.
    run.checkpoint.unlink()
    with (run.folder / "events.jsonl").open("a") as file:
        file.write('{"step": 30, "lo')
    run, _ = train(tmp_path)
    assert [event["step"] for event in run.events()] == [1, 11, 21]


def test_epochs_see_every_image_once() -> None:
    """An epoch is a permutation, a new one each time, that depends on seed and epoch alone."""
    images = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1)
    batches = Batches(images, 5, 1, CPU)
    epochs = [torch.cat([batches(8 * e + i) for i in range(8)]).flatten() for e in range(2)]
    for epoch in epochs:
        assert sorted(((epoch + 1) * 127.5).round().tolist()) == list(range(40))
    assert not torch.equal(*epochs)
    assert torch.equal(Batches(images, 5, 1, CPU)(11), batches(11))


def test_many_images_stay_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of a memory map that are others than those of the copy, or a map that is copied after all, break it."""
    copied = Batches(IMAGES, 5, 1, CPU)
    np.save(tmp_path / "images.npy", IMAGES)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    monkeypatch.setattr(training, "LARGEST_COPY", IMAGES.nbytes - 1)
    batches = Batches(mapped, 5, 1, CPU)
    assert batches.images is mapped
    assert batches.copy is None
    assert all(torch.equal(batches(step), copied(step)) for step in range(10))


def test_budget_ends_in_a_clean_checkpoint(tmp_path: Path) -> None:
    """A spent wall-clock budget stops before the last step, with a checkpoint of the step that it stopped at."""
    budget = TrainingConfig(steps=10**6, batch_size=5, budget_seconds=0.5)
    _, state = train(tmp_path, training=budget)
    assert 0 < state.step < 10**6
    assert state.seconds >= 0.5
    _, again = train(tmp_path, training=budget)
    assert_same(state, again)


@pytest.mark.slow
def test_kill_at_any_moment_loses_only_the_work_since_the_checkpoint(tmp_path: Path) -> None:
    """Kill -9 again and again, in the middle of writing too: the checkpoint is always whole and the end is the same."""
    code = (
        "import sys, torch; from pathlib import Path; from tests.small import IMAGES, experiment;"
        "from jlebm.run import open_run; from jlebm.training import LoopControl, fit\n"
        "with open_run(Path(sys.argv[1]), experiment(steps=3000), 1) as run:\n"
        "    print('open', flush=True)\n"
        "    fit(run, IMAGES, torch.device('cpu'), LoopControl(checkpoint_seconds=0.0))\n"  # a checkpoint at every step
    )
    folder = tmp_path / "killed"
    reached = []
    for pause in (0.2, 0.37, 0.51):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        with open_run(folder, experiment(steps=3000), 1) as run:  # the lock went with the process
            reached.append(fit(run, IMAGES, CPU, LoopControl(stop=lambda step: True)).step)
    assert reached == sorted(reached)
    assert reached[-1] > 0
    few_more = LoopControl(checkpoint_seconds=1e9, stop=lambda step: step >= reached[-1] + 5)
    with open_run(folder, experiment(steps=3000), 1) as run:
        end = fit(run, IMAGES, CPU, few_more)
    with open_run(tmp_path / "whole", experiment(steps=3000), 1) as run:
        assert_same(end, fit(run, IMAGES, CPU, few_more))


def test_second_process_on_one_run_is_refused(tmp_path: Path) -> None:
    """Two loops in one folder would interleave their events and overwrite each other's checkpoints."""
    with open_run(tmp_path, experiment(), 1), pytest.raises(UserError, match="another process"):  # noqa: SIM117
        with open_run(tmp_path, experiment(), 1):
            pass


def test_runaway_energies_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit passed stops with the layer, the step, the figures and a remedy; the checkpoint stays as it was."""
    run, _ = train(tmp_path, stop_after=5)
    before = run.checkpoint.read_bytes()
    monkeypatch.setattr(guard, "ENERGY_LIMIT", 1e-12)
    with pytest.raises(guard.Diverged, match=r"step 11: energy_posterior of layer z2 .* try a smaller .*energy_lr"):
        train(tmp_path)
    assert run.checkpoint.read_bytes() == before


def test_nan_stops_the_run(tmp_path: Path) -> None:
    """A learning rate that breaks the weights ends in a sentence, not in a file of NaNs."""
    wild = OptimizerConfig(generator_lr=1e30, energy_lr=1e-3)
    with pytest.raises(guard.Diverged, match=r"step 11: .*(not finite|beyond)"):
        train(tmp_path, optimizer=wild)
    assert not list(tmp_path.glob("*/checkpoint.pt"))


def test_weights_that_are_not_finite_never_replace_a_checkpoint(tmp_path: Path) -> None:
    """A gradient that breaks the weights between two looks of the guard is found before the checkpoint is written."""
    run, _ = train(tmp_path, stop_after=3)
    before = run.checkpoint.read_bytes()
    state = checkpoints.load(run.checkpoint, run.experiment.digest(), 1)
    state["optimizer"]["param_groups"][1]["lr"] = float("nan")  # the energies'
    checkpoints.save(run.checkpoint, state, run.experiment.digest(), 1)
    poisoned = run.checkpoint.read_bytes()
    assert poisoned != before
    with pytest.raises(guard.Diverged, match=r"step 4: the weights energy\..* are not finite"):
        train(tmp_path, stop_after=4)
    assert run.checkpoint.read_bytes() == poisoned


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_guard_names_what_is_not_finite(value: float) -> None:
    """Each figure is looked at, also one without a layer."""
    with pytest.raises(guard.Diverged, match=r"reconstruction = .* is not finite"):
        guard.check(3, {"loss": 1.0, "reconstruction": value})
    with pytest.raises(guard.Diverged, match=r"range_prior of layer z1 .* epsilon"):
        guard.check(3, {"range_prior/z1": 2 * guard.RANGE_LIMIT})
    guard.check(3, {"loss": 1e9, "energy_prior/z1": 10.0, "range_prior/z1": 5.0})


def test_images_of_another_shape_and_too_few_are_refused(tmp_path: Path) -> None:
    """Bad input is said before the first step."""
    with open_run(tmp_path, experiment(), 1) as run:
        with pytest.raises(UserError, match="images of"):
            fit(run, IMAGES[:, :, :4, :4], CPU)
        with pytest.raises(UserError, match="batch of 5 images"):
            fit(run, IMAGES[:4], CPU)


def test_figures_name_every_layer(tmp_path: Path) -> None:
    """What the events record: plain numbers by layer, the energies those of the samples."""
    state = initial_state(experiment(), 1, CPU)
    x = Batches(IMAGES, 5, 1, CPU)(0)
    update = experiment().scheme().update(state.model, x, lambda like: tuple(torch.zeros_like(z) for z in like))
    seen = {name: float(value) for name, value in update.figures().items()}
    assert json.loads(json.dumps(seen)) == seen
    for index, layer in enumerate(("z2", "z1")):
        assert seen[f"energy_prior/{layer}"] == pytest.approx(
            float(state.model.energies(update.prior)[:, index].mean()), rel=1e-6
        )
        assert seen[f"range_posterior/{layer}"] == pytest.approx(float(update.posterior[index].abs().max()))
