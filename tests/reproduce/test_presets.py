"""Presets: stored and read whole, with the digests that rows and folders carry, and the sizes that the paper states."""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jlebm.backbones.nvae import NVAE, frozen_copy
from jlebm.config import Config
from jlebm.densities import PriorInNoise
from jlebm.energies import VectorEnergy, conv_energy
from jlebm.errors import UserError
from jlebm.experiment import Experiment
from jlebm.langevin import Chain
from reproduce import celebahq256
from reproduce.cifar10 import RECIPE
from reproduce.presets.ladder_sizes import twin_of
from reproduce.presets.staged import Sampled, TwoStagePlan
from reproduce.systems import built, presets_of
from tests.small import ladder_experiment
from tests.test_backbones_nvae import Kept
from tests.test_config import backbones, energies, samplers, words

# beartype looks at random items of the tuples that hypothesis builds; that does not make the tests random.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")

plans = st.builds(TwoStagePlan, words, backbones, energies, samplers)
sampled = st.builds(Sampled, energies, samplers)


@settings(max_examples=10)
@given(st.one_of(plans, sampled))
def test_a_plan_round_trips(one: Config) -> None:
    """Breaks if a number of a plan, or of what a row's digest is taken of, is lost on the way through text."""
    again = type(one).from_json(json.loads(json.dumps(one.to_json())))
    assert again == one
    assert again.digest() == one.digest()


@settings(max_examples=10)
@given(plans, plans)
def test_plans_of_one_digest_are_equal(a: TwoStagePlan, b: TwoStagePlan) -> None:
    """A field that the digest leaves out could change a number unseen."""
    assert (a.digest() == b.digest()) == (a == b)


def test_the_twin_of_a_ladder_has_no_energy() -> None:
    """Breaks if twins of two kinds of energies differ."""
    plain = ladder_experiment()
    other = ladder_experiment(energy=VectorEnergy(((6,), (6,), (6, 6))), energy_hidden=())
    assert plain != other
    assert twin_of(other) == twin_of(plain)


@pytest.mark.parametrize("name", RECIPE.presets)
def test_presets_round_trip(name: str) -> None:
    """Every preset of the recipe can be stored and read."""
    one = RECIPE.presets[name].experiment
    assert Experiment.from_json(json.loads(json.dumps(one.to_json()))) == one
    assert one.preset == name


def test_the_papers_preset_is_the_papers() -> None:
    """The sizes, chains, rates, batch and length of the released CIFAR-10 run (docs/facts, "Training settings")."""
    one = RECIPE.presets["paper"].experiment
    assert one.model.latent_dims == (100, 128)
    assert one.model.channels == (1024, 512, 256)
    assert one.model.conditional_hidden == (200,) * 4
    assert one.energy_hidden == ((100, 100), (200, 200, 200))
    assert (one.prior_chain, one.posterior_chain) == (
        Chain.from_joint_paper(60, 0.4),
        Chain.from_joint_paper(40, 0.1),
    )
    assert (one.optimizer.generator_lr, one.optimizer.energy_lr, one.optimizer.energy_l2) == (1e-4, 2e-5, 0.0)
    assert (one.training.steps, one.training.batch_size, one.model.likelihood_sigma) == (50_500, 100, 0.3)


def test_fields_that_came_later_leave_earlier_digests_alone() -> None:
    """The stored rows of the cpu preset and the configurations of their runs stay those of today's preset."""
    one = RECIPE.presets["cpu"].experiment
    assert one.digest().startswith("3200fbddb3")
    assert "precision" not in one.to_json()["model"]
    changed = one.override(["model.precision=bf16"])
    assert changed.to_json()["model"]["precision"] == "bf16"
    assert Experiment.from_json(changed.to_json()).model.precision == "bf16"
    assert Experiment.from_json(one.to_json()).model.precision == "float32"


def test_the_runs_of_the_cpu_preset_stay_its_own() -> None:
    """The folder and the rows of its stage one carry this digest."""
    plan = RECIPE.two_stage["cpu"].plan
    assert plan.backbone.digest().startswith("555938db8a")
    name = f"{plan.backbone.digest()}, seed 1, 2400 steps"
    assert dataclasses.replace(plan.energies, backbone=name).digest().startswith("6ade2a89ad")


def whole_numbers(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the keys of whole numbers in nested dictionaries."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from whole_numbers(value, f"{prefix}{key}.")
        elif type(value) is int:
            yield prefix + key


def test_a_count_that_never_ends_is_refused() -> None:
    """Breaks if a chain, a training or a system's own sampling is asked for 10^24 steps and begins with them."""
    tinies: list[Config] = [
        *(RECIPE.presets["tiny"].experiment, RECIPE.two_stage["tiny"].plan, RECIPE.ladder["tiny"].experiment),
        *(presets_of(name)["tiny"] for name in built()),
    ]
    tried = set()
    for one in tinies:
        for key in whole_numbers(one.to_json()):
            if key.endswith("batch_size"):  # compared with the images, which are no part of a configuration
                continue
            with pytest.raises(UserError, match=r"at most 1000000000|never ends"):
                one.override([f"{key}=1{24 * '0'}"])
            tried.add(key)
    assert {"prior_chain.steps", "sampler.chain.steps", "model.chain_steps", "training.steps"} <= tried


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.slow
def test_what_the_published_celebahq_network_keeps(recompute: bool) -> None:
    """The figures that the recipe states of one chain step of two images; a module that is not recomputed breaks it.

    On torch's meta device, which has shapes and no memory.
    """
    with torch.device("meta"):
        network = frozen_copy(NVAE(celebahq256.PUBLISHED))
        energy = conv_energy(network.latent_shapes)
    assert network.recompute
    network.recompute = recompute
    kept = Kept(network, energy)
    noise = tuple(torch.empty(2, *shape, device="meta", requires_grad=True) for shape in network.latent_shapes)
    with kept.counting():
        PriorInNoise(network, energy)(noise)
    assert round(kept.bytes / 2**30, 2) == celebahq256.KEPT_GIB[recompute]
