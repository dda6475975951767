"""Configurations of every kind: round trips, fields that came later, keys of nested parts."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jlebm.backbones.nvae import NVAEConfig
from jlebm.config import Config, check_choices
from jlebm.energies import ConvEnergy
from jlebm.errors import UserError
from jlebm.langevin import Chain
from jlebm.learning.backbone import AdamaxConfig, BackboneExperiment, ELBOConfig
from jlebm.learning.trainable import TrainingConfig
from jlebm.learning.two_stage import EnergyOptimizer, TwoStageExperiment
from jlebm.sampling import Sampler
from tests.small import backbone_experiment, experiment, two_stage_experiment

# beartype looks at random items of the tuples that hypothesis builds; that does not make the tests random.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")

words = st.text(max_size=8)
positive = st.floats(1e-8, 1e3, allow_nan=False)
counts = st.integers(1, 99)
decays = st.none() | st.floats(0.1, 0.9)
trainings = st.builds(TrainingConfig, counts, counts, st.none() | positive)
models = st.builds(
    NVAEConfig,
    image_size=st.just(32),
    num_channels_enc=counts,
    num_channels_dec=counts,
    num_latent_scales=st.integers(1, 2),
    num_groups_per_scale=counts,
    num_latent_per_group=counts,
    num_preprocess_blocks=st.just(1),
    num_postprocess_blocks=st.just(1),
    ada_groups=st.booleans(),
)
noise_chains = st.builds(
    Chain,
    st.integers(0, 200),
    positive,
    start=st.just("ancestral"),
    space=st.just("noise"),
    drift=st.sampled_from(["exact", "released"]),
    metropolis=st.booleans(),
)
backbones = st.builds(
    BackboneExperiment,
    protocol=words,
    preset=words,
    dataset=words,
    model=models,
    elbo=st.builds(
        ELBOConfig, counts, st.floats(1e-6, 1.0), st.booleans(), positive, st.sampled_from(["float32", "bf16"])
    ),
    optimizer=st.builds(AdamaxConfig, positive, st.just(1e-8), positive, st.none() | positive, decays),
    training=trainings,
)
energies = st.builds(
    TwoStageExperiment,
    protocol=words,
    preset=words,
    dataset=words,
    model=models,
    backbone=words,
    energy=st.builds(ConvEnergy, counts, counts),
    prior_chain=noise_chains,
    optimizer=st.builds(EnergyOptimizer, positive, st.floats(0, 0.99), st.floats(0, 0.99), positive, positive, decays),
    training=trainings,
)
samplers = st.builds(
    Sampler,
    noise_chains,
    st.floats(0, 2),
    st.sampled_from(["trained", "re-estimated"]),
    st.sampled_from(["mean", "sample"]),
)


@dataclass(frozen=True)
class Plan(Config):
    """A configuration of configurations, as a recipe of two stages has it."""

    preset: str
    backbone: BackboneExperiment
    energies: TwoStageExperiment
    sampler: Sampler


plans = st.builds(Plan, words, backbones, energies, samplers)


@settings(max_examples=25)
@given(st.one_of(backbones, energies, samplers, plans))
def test_json_round_trip_is_exact(one: Config) -> None:
    """Every float survives to the last bit, through text, whatever is nested in what, and so does the digest."""
    again = type(one).from_json(json.loads(json.dumps(one.to_json())))
    assert again == one
    assert again.digest() == one.digest()


def test_a_whole_number_is_the_float_that_it_is_read_as() -> None:
    """Breaks if 1 and 1.0 had two digests, equal as they are: a model trained with the one could not be loaded."""
    nested = two_stage_experiment(training=TrainingConfig(3, 4, 60.0), noise_contrast=2.0)
    digest, written = nested.digest(), nested.to_json()
    for part, name, value in (
        (nested.training, "budget_seconds", 60),
        (nested, "noise_contrast", 2),
        (nested.prior_chain, "temperature", 1),
    ):
        assert getattr(part, name) == value
        object.__setattr__(part, name, value)  # what a call does where no test looks at the types of its arguments
    assert nested.digest() == digest
    assert json.dumps(nested.to_json()) == json.dumps(written)
    bits = experiment("gaussian", free_bits=(1.0, 2.0))
    digest = bits.digest()
    object.__setattr__(bits, "free_bits", (1, 2))
    assert bits.digest() == digest
    assert bits.to_json()["free_bits"] == [1.0, 2.0]
    assert type(bits.to_json()["training"]["steps"]) is int


def test_a_misspelt_choice_is_refused_where_it_is_written() -> None:
    """Breaks if a typed word were first looked at by `load`, after the training: Python takes any string."""
    for part, name, value, sentence in (
        (Chain(3, 0.1, start="ancestral", space="noise"), "space", "noize", "the nearest known one is 'noise'"),
        (Sampler(Chain(3, 0.1)), "decoding", "meen", "decoding cannot be 'meen'; the nearest known one is 'mean'"),
        (backbone_experiment().elbo, "precision", "bf61", "the nearest known one is 'bf16'"),
    ):
        object.__setattr__(part, name, value)  # where no test looks at the types of arguments
        with pytest.raises(UserError, match=sentence):
            check_choices(part)
    one = two_stage_experiment()
    object.__setattr__(one.prior_chain, "discretisation", "euller")
    with pytest.raises(UserError, match="the nearest known one is 'euler'"):
        one.digest()


@settings(max_examples=25)
@given(plans, plans)
def test_digest_is_equal_only_for_equal_plans(a: Plan, b: Plan) -> None:
    """A field that the digest leaves out could change a number unseen."""
    assert (a.digest() == b.digest()) == (a == b)


# ---- fields that came later


@dataclass(frozen=True)
class Inner:
    """The part of a part, with one field that came later."""

    first: int
    later: int = field(default=5, metadata={"since": "0.2"})


@dataclass(frozen=True)
class Middle:
    """A part."""

    inner: Inner


@dataclass(frozen=True)
class Outer(Config):
    """A configuration one of whose parts came later, too."""

    middle: Middle
    extra: Middle = field(default_factory=lambda: Middle(Inner(1)), metadata={"since": "0.2"})


def test_later_fields_are_left_out_at_any_depth() -> None:
    """At their defaults: what a run of before wrote, and its digest. They are written where they say something else."""
    before = {"middle": {"inner": {"first": 3}}}
    one = Outer(Middle(Inner(3)))
    assert one.to_json() == before
    assert Outer.from_json(before) == one
    text = '{"middle":{"inner":{"first":3}}}'
    assert one.digest() == hashlib.sha256(text.encode()).hexdigest()
    deep = Outer(Middle(Inner(3, 6)))
    assert deep.to_json() == {"middle": {"inner": {"first": 3, "later": 6}}}
    part = Outer(Middle(Inner(3)), Middle(Inner(2)))
    assert part.to_json() == before | {"extra": {"inner": {"first": 2}}}
    for each in (deep, part):
        assert Outer.from_json(each.to_json()) == each
        assert each.digest() != one.digest()


def test_later_fields_can_be_set() -> None:
    """They are keys like all others, though the stored configuration does not show them."""
    one = Outer(Middle(Inner(3)))
    assert one.override(["middle.inner.later=6", "extra.inner.first=2"]) == Outer(Middle(Inner(3, 6)), Middle(Inner(2)))
    assert one.override(["middle.inner.later=5"]).digest() == one.digest()
    with pytest.raises(UserError, match=r"unknown .* 'middle.inner.latter'; the nearest .* 'middle.inner.later'"):
        one.override(["middle.inner.latter=6"])


def test_a_chains_later_fields_are_left_out() -> None:
    """Inside a plan as well: the joint chains' configurations are those of before there was a drift."""
    values = two_stage_experiment().to_json()["prior_chain"]
    assert values == {"steps": 3, "epsilon": 0.02, "temperature": 1.0, "start": "ancestral", "space": "noise"}
    released = two_stage_experiment(prior_chain=Chain.from_two_stage_paper(3, 0.04, "released"))
    assert released.to_json()["prior_chain"]["drift"] == "released"


# ---- keys


def plan() -> Plan:
    return Plan("tiny", backbone_experiment(), two_stage_experiment(), Sampler(Chain.from_two_stage_paper(3, 0.04)))


def test_nested_keys_of_a_plan_are_set() -> None:
    """At every depth and of every kind of value; what is not named stays, and the plan is a preset's no more."""
    changed = plan().override(
        [
            "backbone.training.steps=7",
            "backbone.elbo.precision=bf16",
            "backbone.optimizer.largest_gradient=null",
            "energies.optimizer.energy_lr=1e-3",
            "energies.prior_chain.drift=released",
            "sampler.temperature=0.9",
            "sampler.chain.metropolis=true",
        ]
    )
    expected = Plan(
        "custom",
        backbone_experiment(
            training=TrainingConfig(7, 5),
            elbo=ELBOConfig(warmup_steps=8, spectral=0.1, precision="bf16"),
            optimizer=AdamaxConfig(lr=2e-3, largest_gradient=None, ema_decay=0.9),
        ),
        two_stage_experiment(
            optimizer=EnergyOptimizer(1e-3, energy_l2=1e-3, ema_decay=0.9),
            prior_chain=Chain.from_two_stage_paper(3, 0.04, "released"),
        ),
        Sampler(dataclasses.replace(Chain.from_two_stage_paper(3, 0.04), metropolis=True), 0.9),
    )
    assert changed == expected
    assert plan().override([]) == plan()


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("backbone.training.stepz=7", "nearest known one is 'backbone.training.steps'"),
        ("energies.optimizer.enery_lr=1", "nearest known one is 'energies.optimizer.energy_lr'"),
        ("sampler.temprature=1", "nearest known one is 'sampler.temperature'"),
        ("backbone.training=7", "unknown configuration key 'backbone.training'"),
        ("training.steps=7", "unknown configuration key 'training.steps'"),
        ("backbone.training.steps=7.5", "'backbone.training.steps' cannot be 7.5"),
        ("sampler.batch_norm=other", "'sampler.batch_norm' cannot be 'other'"),
        ("sampler.temperature=-1", "temperature must be 0 or more, not -1"),
        ("sampler.chain.space=everywhere", "'sampler.chain.space' cannot be 'everywhere'"),
        ("energies.model.num_latent_scales=2", "cannot be halved down to 4x4"),
        ("backbone.elbo.warmup_steps=0", "elbo.warmup_steps"),
        ("sampler.chain.steps=1000000001", "'sampler.chain.steps' must be at most 1000000000, not 1000000001"),
        ("backbone.training.steps=1000000001", "a training of more than 1,000,000,000 steps never ends"),
    ],
)
def test_bad_assignments_are_sentences(assignment: str, sentence: str) -> None:
    """With the whole path of the key."""
    with pytest.raises(UserError, match=sentence):
        plan().override([assignment])


def test_a_chain_that_never_ends_is_refused() -> None:
    """Breaks if a chain of 10^24 steps is begun."""
    with pytest.raises(UserError, match="more than 1,000,000,000 Langevin steps never ends"):
        Chain(10**24, 0.1)
    assert Chain(10**9, 0.1).steps == TrainingConfig(10**9).steps == 10**9


def test_a_temperature_needs_a_chain_in_noise() -> None:
    """It would be refused only where the first image is drawn, after all training."""
    with pytest.raises(UserError, match=r"temperature 0\.9 needs a chain in whitened noise"):
        Sampler(Chain(3, 0.1), temperature=0.9)
    with pytest.raises(UserError, match=r"temperature 0\.9 needs a chain in whitened noise"):
        plan().override(["sampler.temperature=0.9", "sampler.chain.space=latents"])
    assert Sampler(Chain(3, 0.1)).temperature == 1


def test_a_sampler_says_what_it_does() -> None:
    """Two samplings that differ never look alike in a row."""
    chain = Chain.from_two_stage_paper(3, 0.04)
    changed = [
        Sampler(chain),
        Sampler(chain, temperature=0.9),
        Sampler(chain, batch_norm="re-estimated"),
        Sampler(chain, decoding="sample"),
    ]
    assert len({each.describe(chain=False) for each in changed}) == len(changed)
    assert len({each.digest() for each in changed}) == len(changed)
    released = Sampler(Chain.from_two_stage_paper(3, 0.04, "released"))
    assert released.describe(chain=True) != changed[0].describe(chain=True)
    assert released.describe(chain=False) == changed[0].describe(chain=False)
