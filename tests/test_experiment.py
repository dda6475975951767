"""The frozen configuration: round trips, digests, and sentences for what it does not know."""

import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jlebm.backbones.conv import ConvConfig
from jlebm.backbones.ladder import LadderConfig
from jlebm.errors import UserError
from jlebm.experiment import Experiment, LearningName, OptimizerConfig
from jlebm.langevin import Chain
from jlebm.learning.trainable import TrainingConfig
from tests.small import experiment, ladder_experiment

# beartype looks at random items of the tuples that hypothesis builds; that does not make the tests random.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")

positive = st.floats(1e-8, 1e3, allow_nan=False)
chains = st.builds(
    Chain, st.integers(0, 200), positive, st.floats(0, 2), st.sampled_from(["standard-normal", "ancestral"])
)
experiments = st.builds(
    Experiment,
    protocol=st.text(max_size=8),
    preset=st.text(max_size=8),
    dataset=st.text(max_size=8),
    model=st.builds(
        ConvConfig,
        latent_dims=st.tuples(st.integers(1, 9), st.integers(1, 9)),
        likelihood_sigma=positive,
        precision=st.sampled_from(["float32", "tf32", "bf16"]),
    ),
    prior_chain=chains,
    posterior_chain=chains,
    optimizer=st.builds(OptimizerConfig, positive, positive, ema_decay=st.none() | st.floats(0.1, 0.9)),
    training=st.builds(TrainingConfig, st.integers(1, 99), st.integers(1, 99), st.none() | positive),
)


@settings(max_examples=60)
@given(experiments)
def test_json_round_trip_is_exact(one: Experiment) -> None:
    """Every float survives to the last bit, through text, and so does the digest."""
    again = Experiment.from_json(json.loads(json.dumps(one.to_json())))
    assert again == one
    assert again.digest() == one.digest()


@settings(max_examples=60)
@given(experiments, experiments)
def test_digest_is_equal_only_for_equal_experiments(a: Experiment, b: Experiment) -> None:
    """A field that the digest leaves out could change a number unseen."""
    assert (a.digest() == b.digest()) == (a == b)


def test_every_single_field_moves_the_digest() -> None:
    """Each leaf of the configuration is part of the digest."""
    base = experiment()
    changed = {
        "protocol": "test/2",
        "preset": "budget",
        "dataset": "other",
        "model.latent_dims": (3, 5),
        "model.likelihood_sigma": 0.31,
        "model.top_sigma": 1.01,
        "model.precision": "bf16",
        "energy_hidden": ((6,), (6, 7)),
        "prior_chain.epsilon": math.nextafter(base.prior_chain.epsilon, 1),
        "prior_chain.start": "ancestral",
        "posterior_chain.steps": 4,
        "posterior_chain.temperature": 0.9,
        "optimizer.energy_l2": 2e-3,
        "optimizer.ema_decay": None,
        "training.budget_seconds": 60.0,
    }
    digests = {base.digest()}
    for key, value in changed.items():
        *path, last = key.split(".")
        part = getattr(base, path[0]) if path else base
        part = dataclasses.replace(part, **{last: value})
        digests.add((dataclasses.replace(base, **{path[0]: part}) if path else part).digest())
    assert len(digests) == len(changed) + 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"trainin": {}}, "unknown configuration key 'trainin'; the nearest known one is 'training'"),
        ({"prior_chain": {"steps": 3, "epsilon": 0.1}}, "lacks 'prior_chain.temperature'"),
        ({"protocol": 3}, "'protocol' cannot be 3"),
        ({"learning": "mle"}, "'learning' cannot be 'mle'"),
        ({"energy_hidden": [[6]]}, "energy_hidden names 1 layers"),
    ],
)
def test_unreadable_json_is_a_sentence(change: dict, sentence: str) -> None:
    """A stored configuration of another version or a typing error names the key."""
    with pytest.raises(UserError, match=sentence):
        Experiment.from_json(experiment().to_json() | change)


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("training.stepz=3", "unknown configuration key 'training.stepz'; the nearest known one is 'training.steps'"),
        ("training.steps", "sets nothing; write KEY=VALUE"),
        ("training.steps=many", "'training.steps' cannot be 'many'"),
        ("model.precision=fp8", "'model.precision' cannot be 'fp8'"),
        ("training.steps=0", "at least one step"),
        ("prior_chain.epsilon=0", "step size epsilon must be positive"),
        ("prior_chain.epsilon=-0.1", "step size epsilon must be positive"),
        ("optimizer.energy_lr=-1", "learning rates must be positive"),
        ("optimizer.ema_decay=1.5", "ema_decay must lie between 0 and 1"),
        ("training.budget_seconds=-5", "budget must be positive"),
    ],
)
def test_bad_assignments_are_sentences(assignment: str, sentence: str) -> None:
    """--set KEY=VALUE refuses unknown keys with the nearest known one, and values that could not run."""
    with pytest.raises(UserError, match=sentence):
        experiment().override([assignment])


def test_assignments_change_the_preset_name_and_the_digest() -> None:
    """A changed configuration never passes for the preset that it came from."""
    changed = experiment().override(["training.steps=7", "optimizer.ema_decay=null", "prior_chain.start=ancestral"])
    assert (changed.preset, changed.training.steps, changed.optimizer.ema_decay) == ("custom", 7, None)
    assert changed.prior_chain.start == "ancestral"
    assert changed.digest() != experiment().digest()
    assert experiment().override([]) == experiment()


@pytest.mark.parametrize("learning", ["variational", "gaussian"])
def test_a_ladder_is_read_as_a_ladder(learning: LearningName) -> None:
    """Two kinds of model stand in one place: a stored configuration of either is read as what it was."""
    one = ladder_experiment(learning)
    again = Experiment.from_json(json.loads(json.dumps(one.to_json())))
    assert again == one
    assert isinstance(again.model, LadderConfig)
    assert again.digest() == one.digest()
    changed = one.override(["model.features=11", "model.likelihood=bernoulli", "kl_warmup=3"])
    assert isinstance(changed.model, LadderConfig)
    assert (changed.model.features, changed.model.likelihood, changed.kl_warmup) == (11, "bernoulli", 3)
    assert isinstance(Experiment.from_json(experiment().to_json()).model, ConvConfig)


def test_a_wrong_key_of_either_model_is_named() -> None:
    """The sentence is about the kind that the other keys belong to."""
    ladder, conv = ladder_experiment().to_json(), experiment().to_json()
    for whole, wrong, right in ((ladder, "feature", "features"), (conv, "top_sigm", "top_sigma")):
        model = {key: value for key, value in whole["model"].items() if key != right} | {wrong: 1}
        with pytest.raises(UserError, match=f"key 'model.{wrong}'; the nearest known one is '{right}'"):
            Experiment.from_json(whole | {"model": model})


def test_the_warm_up_is_left_out_where_there_is_none() -> None:
    """Configurations of before have no such key, and keep their digests."""
    assert not {"kl_warmup", "kl_weight", "conditional_gradient"} & experiment().to_json().keys()
    assert ladder_experiment().to_json()["kl_warmup"] == 8
    assert ladder_experiment().digest() != ladder_experiment(kl_warmup=9).digest()
