"""What every system of the table keeps, whichever it is: one protocol of training, resuming and sampling."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from jlebm.engines import parallel
from jlebm.errors import UserError
from jlebm.run import Run
from jlebm.training import TrainState, initial_state
from reproduce import cifar10
from reproduce.pipelines.table_system import OF_ANOTHER
from reproduce.results import read_paper
from reproduce.results.table_lines import BASELINES
from reproduce.systems import SIZES, built, presets_of
from reproduce.systems.system import PROTOCOL, BaselineExperiment
from tests.systems.small import backbone_of, tiny, train
from tests.systems.small import built as build
from tests.test_training import assert_same

ROOT = Path(__file__).resolve().parents[2]


def systems(*slow: str) -> list:
    """Return the systems' names; those that take seconds are marked."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in built()]


@pytest.mark.parametrize("name", built())
def test_presets_are_of_the_system_and_can_be_set(name: str) -> None:
    """A preset under a wrong name, a key that --set cannot set, or a configuration that its JSON loses breaks this."""
    presets = presets_of(name)
    assert presets.keys() == SIZES.keys()
    for size, one in presets.items():
        assert (one.protocol, one.preset, one.dataset, one.learning) == (PROTOCOL, size, "cifar10", name)
        assert type(one).from_json(one.to_json()) == one
        changed = one.override(["training.batch_size=7", "optimizer.ema_decay=0.5"])
        assert (changed.preset, changed.training.batch_size, changed.optimizer.ema_decay) == ("custom", 7, 0.5)
        assert one.training.batch_size != 7
    assert len({one.digest() for one in presets.values()}) == len(presets)
    assert presets["budget"].training.budget_seconds == 1200, "every system has the same 20 minutes"


@pytest.mark.parametrize("name", [name for name in built() if name != "pixels"])  # nothing more to learn in an hour
def test_an_hour_is_spent_on_the_networks_of_five_minutes(name: str) -> None:
    """Would break if the clock did not end `long`, or its networks were others than those of `cpu`."""
    short, long = presets_of(name)["cpu"], presets_of(name)["long"]
    assert (long.training.budget_seconds, long.training.batch_size) == (3_600, short.training.batch_size)
    assert long.training.steps > 100 * short.training.steps  # more than an hour holds
    kept = {"buffer", "grow_every"}  # how long a chain lives, and how long the images grow
    differs = {key for key, value in vars(long.model).items() if value != getattr(short.model, key)}
    assert differs <= kept
    before, after = short.optimizer.ema_decay, long.optimizer.ema_decay
    assert (before is None) == (after is None)
    assert before is None or 1 - after == pytest.approx((1 - before) / 10)


@pytest.mark.parametrize("name", built())
def test_every_parameter_moves_with_one_part(name: str) -> None:
    """A network that no optimiser has, or two have, breaks this."""
    one = tiny(name)
    state = initial_state(one, 1, torch.device("cpu"), backbone_of(one))
    moved = [id(each) for group in one.optimisation(state.model).optimizer.param_groups for each in group["params"]]
    assert len(moved) == len(set(moved))
    assert set(moved) == {id(each) for each in state.model.parameters()}


@pytest.mark.parametrize("name", ["ncp-vae", "vaebm"])
def test_a_system_on_a_backbone_finds_its_own(name: str) -> None:
    """Would break if a preset's networks were of another NVAE than the one that is trained for it, or of none."""
    for size, one in presets_of(name).items():
        plan = cifar10.RECIPE.two_stage[OF_ANOTHER.get(size, size)]
        assert plan.nvae is not None
        assert plan.nvae.model == one.model


class Trained(NamedTuple):
    """One system's training of four steps: at once, and stopped after the first and the second."""

    experiment: BaselineExperiment
    whole: TrainState
    first: TrainState
    second: TrainState
    resumed: TrainState
    run: Run


@pytest.fixture(scope="module", params=systems("biggan"))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Train a system once for all that is asked of its training."""
    one, folder = tiny(request.param), tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    _, whole = train(folder / "whole", one)
    torch.manual_seed(99)
    first, second = (train(folder / "halves", one, stop_after=at)[1] for at in (1, 2))
    run, resumed = train(folder / "halves", one)
    return Trained(one, whole, first, second, resumed, run)


def test_training_moves_every_parameter(trained: Trained) -> None:
    """A part that no turn moves, or that its loss does not reach, breaks this."""
    one, after = trained.experiment, trained.whole.model
    before = initial_state(one, 1, torch.device("cpu"), backbone_of(one)).model
    still = {key for key, value in before.named_parameters() if torch.equal(value, after.get_parameter(key))}
    assert not still


def test_what_is_sampled_is_the_average(trained: Trained) -> None:
    """An average that does not start at the first step's weights, or moves at each turn of a step, breaks this."""
    decay, sampled = trained.experiment.optimizer.ema_decay or 0.0, trained.second.evaluated_model()
    assert (trained.second.ema is None) == (decay == 0)
    for key, weight in trained.second.model.named_parameters():
        expected = decay * trained.first.model.get_parameter(key) + (1 - decay) * weight
        torch.testing.assert_close(sampled.get_parameter(key), expected, msg=lambda said, key=key: f"{key}: {said}")


def test_half_and_half_is_the_whole_bitwise(trained: Trained) -> None:
    """State that is no parameter and no buffer, or a draw from anywhere but the training noise, breaks this."""
    assert_same(trained.whole, trained.resumed)
    assert [event["step"] for event in trained.run.events()] == [1]


@pytest.mark.parametrize("name", systems("pixelcnn"))
def test_an_image_depends_on_its_seed_alone(name: str) -> None:
    """Noise, batch statistics or a chain that other images of the batch reach breaks this."""
    system = build(tiny(name))
    together, other = system.sample([5, 11, 7]), system.sample([11])
    assert together.dtype == torch.uint8
    assert together.shape == (3, 3, 32, 32)
    assert (together[1].int() - other[0].int()).abs().max() <= 1  # float32 is rounded otherwise in another batch
    assert not torch.equal(together[0], together[1])
    assert system.training, "sampling leaves the mode as it was"
    torch.manual_seed(99)
    assert torch.equal(system.sample([11]), other), "a draw from torch's global generator"


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay buffer or batch statistics averaged over processes would be wrong without a word."""
    name = built()[0]
    monkeypatch.setattr(parallel, "size", lambda: 2)
    with pytest.raises(UserError, match=f"{name} is trained by one process"):
        presets_of(name)["tiny"].scheme()


def test_every_system_has_its_reported_numbers() -> None:
    """A key of paper.toml that is misspelt would leave a line of the table empty."""
    paper = read_paper(ROOT / "results/paper.toml")
    for system in BASELINES:
        if not system.paper:
            assert system.name not in {one.system for one in paper.values()}, f"a paper reports {system.name}"
            continue
        assert any(key.startswith(f"table2.cifar10.{system.paper}.") for key in paper), system.name
