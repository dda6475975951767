"""Priors with fewer parts: layers without an energy, posterior chains with a Gaussian prior, ladders by chains."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from jlebm.backbones.protocol import NoEncoder
from jlebm.densities import PriorInLatents
from jlebm.experiment import Experiment
from jlebm.langevin import Chain
from jlebm.learning.joint_mle import JointMLE
from jlebm.learning.scheme import ContrastiveUpdate
from jlebm.model import JointModel
from jlebm.randomness import SharedNoise
from jlebm.training import TrainState
from tests.small import IMAGES, experiment, fit_one, ladder_experiment

X = torch.tensor(IMAGES[:6], dtype=torch.float64) / 127.5 - 1


def draws(seed: int = 0) -> SharedNoise:
    return SharedNoise(torch.Generator().manual_seed(seed))


def built(one: Experiment) -> JointModel:
    torch.manual_seed(1)
    return one.build().double()


def contrast(one: Experiment, model: JointModel) -> ContrastiveUpdate:
    """Return the update of an experiment's scheme on the first images."""
    update = one.scheme().update(model, X, draws())
    assert isinstance(update, ContrastiveUpdate)
    return update


def by_chains(**changes) -> Experiment:
    """Return a ladder that learns by posterior chains."""
    plain = ladder_experiment(kl_warmup=0)
    model = dataclasses.replace(plain.model, inference_network=False)
    chains = {"prior_chain": Chain.from_joint_paper(4, 0.1), "posterior_chain": Chain.from_joint_paper(3, 0.1)}
    return dataclasses.replace(plain, learning="joint-mle", model=model, **chains, **changes)


def alternating(layers: int = 2) -> Experiment:
    """Return posterior chains with a Gaussian prior of one or two layers."""
    plain = experiment("joint-mle", energy_hidden=())
    return dataclasses.replace(plain, model=dataclasses.replace(plain.model, latent_dims=(3, 4)[-layers:]))


# ---- layers without an energy


@pytest.mark.parametrize("hidden", [((), (6,)), ((6,), ())])
def test_the_prior_of_the_other_layer_alone_is_tilted(hidden: tuple[tuple[int, ...], ...]) -> None:
    """The ratio log p(z) - log p0(z) is a function of the layer with the energy, and the other layer's energy is zero.

    Breaks if an empty tuple still makes a network, such as the linear one of no hidden units.
    """
    model = built(experiment(energy_hidden=hidden))
    bare, tilted = (0, 1) if hidden[0] == () else (1, 0)
    z, other = (tuple(torch.randn(5, d, dtype=torch.float64) for d in (3, 4)) for _ in range(2))
    mixed = tuple(other[i] if i == bare else z[i] for i in range(2))
    prior, log_p0 = PriorInLatents(model.backbone, model.energy), model.backbone.prior_log_prob
    torch.testing.assert_close(prior(mixed) - log_p0(mixed), prior(z) - log_p0(z))
    assert not torch.allclose(prior(other) - log_p0(other), prior(z) - log_p0(z))
    assert not model.energies(z)[:, bare].any()
    rooms = {name.split(".")[2] for name, _ in model.named_parameters() if name.startswith("energy.")}
    assert rooms == {str(tilted)}


@pytest.mark.parametrize("learning", ["joint-mle", "variational"])
def test_an_energy_in_one_layer_is_trained_and_resumed(tmp_path: Path, learning) -> None:
    """Ten steps and fourteen are twenty-four to the bit, and the one energy moves."""
    one = experiment(learning, energy_hidden=((), (6, 6)))
    halves_equal_the_whole(tmp_path, one)


def halves_equal_the_whole(folder: Path, one: Experiment) -> TrainState:
    _, whole = fit_one(folder / "whole", one, IMAGES)
    _, early = fit_one(folder / "halves", one, IMAGES, stop_after=9)
    old = {name: value.clone() for name, value in early.model.named_parameters()}
    _, halves = fit_one(folder / "halves", one, IMAGES)
    for name, value in whole.model.named_parameters():
        assert torch.equal(value, dict(halves.model.named_parameters())[name]), name
        assert not torch.equal(value, old[name]), f"{name} does not learn"
    return whole


# ---- posterior chains with the Gaussian prior


@pytest.mark.parametrize("layers", [1, 2])
def test_posterior_chains_alone_learn(tmp_path: Path, layers: int) -> None:
    """No energies, no inference network, every weight moves; the images are explained better than at the start."""
    state = halves_equal_the_whole(tmp_path, alternating(layers))
    assert {name.split(".")[0] for name, _ in state.model.named_parameters()} == {"backbone"}
    with pytest.raises(NoEncoder):
        state.model.backbone.posterior(X.float(), draws())


def test_the_prior_needs_no_chain() -> None:
    """The loss is -log p(x, z+) at the chain's end up to a constant: a prior's sample moves no weight.

    Breaks if a chain of the prior is still run, whose length would then change the noise of the posterior's.
    """
    one = alternating()
    model, losses = built(one), []
    for chain in (one.prior_chain, Chain.from_joint_paper(50, 0.4)):
        update = contrast(dataclasses.replace(one, prior_chain=chain), model)
        losses.append(update.loss())
    assert torch.equal(*losses)
    posterior = contrast(one, model).posterior
    joint = model.backbone.decode(posterior).log_prob(X) + model.backbone.prior_log_prob(posterior)
    assert_same_gradient(losses[0], -joint.mean(), model)


def test_a_sample_of_the_prior_is_ancestral() -> None:
    """The model's only prior is p0, so that no chain is run to draw from it while it learns."""
    one = alternating()
    model = built(one)
    update = contrast(one, model)
    torch.testing.assert_close(update.prior, model.sample_gaussian(len(X), draws()), rtol=0, atol=0)


# ---- ladders by posterior chains


@pytest.mark.slow
def test_a_ladder_learns_by_chains(tmp_path: Path) -> None:
    """Decoder, conditionals and energies learn, to the bit the same when resumed, without a bottom-up path."""
    state = halves_equal_the_whole(tmp_path, by_chains())
    rooms = {name.split(".")[1] for name, _ in state.model.named_parameters() if name.startswith("backbone.")}
    assert rooms == {"decoder", "conditionals"}
    with pytest.raises(NoEncoder):
        state.model.backbone.posterior(X.float(), draws())


@pytest.mark.parametrize("hidden", [((6,), (6,), (6, 6)), ((), (6,), ()), ()])
def test_the_ladders_gradient_is_the_contrast_of_both_chains(hidden: tuple[tuple[int, ...], ...]) -> None:
    """E[log p(x, z+)] - E[log p(z-)] with both chains' ends fixed; the expectation is written out here.

    Breaks if a chain's end carries a graph, or if a chain of the ladder stands still.
    """
    one = by_chains(energy_hidden=hidden)
    model = built(one)
    update = contrast(one, model)
    assert isinstance(one.scheme(), JointMLE)
    prior = PriorInLatents(model.backbone, model.energy)
    away = prior(update.prior).mean() if hidden else torch.zeros(())
    wanted = model.backbone.decode(update.posterior).log_prob(X).mean() + prior(update.posterior).mean() - away
    losses = update.losses
    assert_same_gradient(losses.reconstruction + losses.conditional + losses.energy.sum(), -wanted, model)
    start = model.start(len(X), one.posterior_chain, draws(7))
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(start, update.posterior, strict=True))


def assert_same_gradient(a: Tensor, b: Tensor, model: JointModel) -> None:
    parameters = list(model.parameters())
    ours, theirs = (torch.autograd.grad(one, parameters, retain_graph=True, materialize_grads=True) for one in (a, b))
    assert any(gradient.any() for gradient in theirs)
    torch.testing.assert_close(ours, theirs)
