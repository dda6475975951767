"""The gradient written out is autograd's, gives the same chain, and is taken only where it holds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from jlebm import langevin
from jlebm.backbones.conv import ConvBackbone, ConvConfig
from jlebm.densities import Posterior, PriorInLatents, PriorInNoise
from jlebm.energies import JointEnergy, mlp_energy
from jlebm.engines.closed_form import LEAST_ROWS, MOST_INPUTS, MLPPrior, Product
from jlebm.engines.gradients import Autograd, PosteriorField, field_of
from jlebm.errors import UserError
from jlebm.langevin import Chain, Trace
from jlebm.latents import Latents
from jlebm.model import JointModel
from jlebm.networks import Affine
from jlebm.randomness import SharedNoise
from tests.linear import linear_model


def model(
    dims: tuple[int, ...] = (5, 7), hidden: tuple[int, ...] = (6, 9), conditional: tuple[int, ...] = (8, 8)
) -> JointModel:
    torch.manual_seed(0)
    config = ConvConfig((1, 4, 4), dims, channels=(4,), conditional_hidden=conditional, top_sigma=1.3)
    return JointModel(ConvBackbone(config), mlp_energy(dims, [hidden] * len(dims))).double()


def latents(of: JointModel, batch: int = 6) -> Latents:
    generator = torch.Generator().manual_seed(1)
    shapes = of.backbone.latent_shapes
    return tuple(torch.randn(batch, *shape, generator=generator, dtype=torch.float64) for shape in shapes)


def noise() -> SharedNoise:
    return SharedNoise(torch.Generator().manual_seed(2))


def prior(of: JointModel) -> PriorInLatents:
    return PriorInLatents(of.backbone, of.energy)


@settings(max_examples=25)
@given(
    dims=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    hidden=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    conditional=st.lists(st.integers(1, 7), min_size=1, max_size=4),
)
def test_written_out_equals_autograd(dims: list[int], hidden: list[int], conditional: list[int]) -> None:
    """For any sizes and number of layers; a wrong sign, a forgotten term or floor of sigma breaks it."""
    one = model(tuple(dims), tuple(hidden), tuple(conditional))
    z = latents(one)
    field = field_of(prior(one))
    assert isinstance(field, MLPPrior)
    value, gradient = field.value_and_gradient(z)
    expected, expected_gradient = Autograd(prior(one)).value_and_gradient(z)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(gradient, expected_gradient, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_chains_of_both_ways_are_the_same(layers: int) -> None:
    """Over 60 steps of the prior and 40 of the posterior, with the same noise, to 1e-10."""
    one = model((5, 7, 4)[:layers])
    z, x = latents(one), torch.randn(6, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for density, chain in (
        (prior(one), Chain.from_joint_paper(60, 0.4)),
        (Posterior(one.backbone, one.energy, x), Chain.from_joint_paper(40, 0.1)),
    ):
        assert isinstance(field_of(density), MLPPrior | PosteriorField)
        fast = langevin.run(z, density, chain, noise())
        plain = langevin.run(z, lambda position, density=density: density(position), chain, noise())
        for ours, theirs in zip(fast, plain, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("hidden", [((), (6,)), ((6, 9), ()), ((), (6,), ()), ((), ()), ((),)])
def test_a_layer_without_an_energy_is_written_out_too(hidden: tuple[tuple[int, ...], ...]) -> None:
    """Autograd's value and gradient, whichever layers have an energy, and the chain of 40 steps is the same.

    Breaks if a layer takes the energy of another, or if one zero network sends the whole chain through autograd.
    """
    dims = (5, 7, 4)[: len(hidden)]
    one = model(dims)
    one.energy = mlp_energy(dims, hidden).double()
    z = latents(one)
    field = field_of(prior(one))
    assert isinstance(field, MLPPrior)
    value, gradient = field.value_and_gradient(z)
    expected, expected_gradient = Autograd(prior(one)).value_and_gradient(z)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-11, atol=1e-12)
    chain = Chain.from_joint_paper(40, 0.4)
    plain = langevin.run(z, lambda position: prior(one)(position), chain, noise())
    torch.testing.assert_close(langevin.run(z, prior(one), chain, noise()), plain, rtol=1e-10, atol=1e-10)


def test_watching_a_written_out_chain_does_not_move_it() -> None:
    """The gradient with the value and without is the same to the bit; the value is the log-density itself."""
    one = model()
    z, trace = latents(one), Trace()
    chain = Chain(5, 0.05)
    watched = langevin.run(z, prior(one), chain, noise(), trace)
    for seen, unseen in zip(watched, langevin.run(z, prior(one), chain, noise()), strict=True):
        assert torch.equal(seen, unseen)
    torch.testing.assert_close(trace.log_density()[0], prior(one)(z).detach())


def test_memory_that_is_written_anew_changes_no_earlier_gradient() -> None:
    """Batches of several sizes in turn, small ones by the weights and larger ones by transposed copies of them.

    Breaks if a gradient lies in memory of the passes, which the next step overwrites, or memory keeps an old size.
    """
    one = model((5, 7, 4))
    field, found = field_of(prior(one)), []
    for rows in (LEAST_ROWS + 3, 2, LEAST_ROWS, LEAST_ROWS):
        z = latents(one, rows)
        found.append((field.gradient(z), Autograd(prior(one)).gradient(z)))
    for gradient, expected in found:
        for ours, theirs in zip(gradient, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="the bits are those of MKL's products")
@pytest.mark.parametrize("inputs", [1, 2, 32, 100, 200, MOST_INPUTS, MOST_INPUTS + 1, 512])
def test_a_products_layout_does_not_change_its_bits(inputs: int) -> None:
    """A copied weight and a bias that is added afterwards give the bits of a linear layer, in batches that take them.

    Breaks if the bias is added afterwards where MKL sums up the inputs in two parts, between which it has its place.
    """
    generator = torch.Generator().manual_seed(4)
    for rows in (LEAST_ROWS, 50, 100):
        shapes = (rows, inputs), (200, inputs), (200,)
        x, weight, bias = (torch.randn(shape, generator=generator) for shape in shapes)
        laid_out = Product.of(Affine(weight, bias), torch.empty(rows, 200), copied=True)
        assert laid_out.added == (1 < inputs <= MOST_INPUTS)
        assert torch.equal(laid_out(x), nn.functional.linear(x, weight, bias))


@pytest.mark.parametrize("metropolis", [False, True])
def test_what_a_chain_returns_can_enter_a_graph_of_autograd(metropolis: bool) -> None:
    """Steps are taken in inference mode, whose tensors cannot; breaks if a chain returns one of them.

    A field that was used in that mode can be used outside of it, and the other way round.
    """
    one = model()
    ends = langevin.run(latents(one), prior(one), Chain(3, 0.05, metropolis=metropolis), noise())
    sum((layer * parameter.sum()).sum() for layer, parameter in zip(ends, one.parameters(), strict=False)).backward()
    field, z = field_of(prior(one)), latents(one)
    first = field.gradient(z)
    with torch.inference_mode():
        second, small = field.gradient(z), field.gradient(latents(one, 2))
    for found in (second, field.gradient(z)):
        assert all(torch.equal(a, b) for a, b in zip(found, first, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(field.gradient(latents(one, 2)), small, strict=True))


def test_a_new_chain_sees_new_weights() -> None:
    """Weights that were kept from an earlier chain, instead of read anew, break this."""
    one = model()
    z = latents(one)
    before = field_of(prior(one)).gradient(z)
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.mul_(1.5)
    after = field_of(prior(one)).gradient(z)
    _, expected = Autograd(prior(one)).value_and_gradient(z)
    for old, new, right in zip(before, after, expected, strict=True):
        assert not torch.allclose(old, new)
        torch.testing.assert_close(new, right)


def test_it_leaves_weights_and_position_alone() -> None:
    """No graph, no gradient and no change in place of what it was given."""
    one = model()
    z = latents(one)
    state = {name: value.clone() for name, value in one.state_dict().items()}
    copies = tuple(layer.clone() for layer in z)
    value, gradient = field_of(prior(one)).value_and_gradient(z)
    assert not value.requires_grad
    assert not any(layer.requires_grad for layer in gradient)
    assert all(torch.equal(layer, copy) for layer, copy in zip(z, copies, strict=True))
    assert all(torch.equal(value, state[name]) for name, value in one.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in one.parameters())


class Shifted(ConvBackbone):
    """A backbone with a p0 of its own."""

    def prior_log_prob(self, z: Latents) -> Tensor:
        """Return another density."""
        return super().prior_log_prob(z) - z[0].square().sum(1)


class Doubled(JointEnergy):
    """An energy with a sum of its own."""

    def forward(self, z: Latents) -> Tensor:
        """Return twice the energy."""
        return 2 * super().forward(z)


def hooked(one: JointModel) -> JointModel:
    one.energy.networks[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    return one


def hooked_before(one: JointModel) -> JointModel:
    one.energy.register_forward_pre_hook(lambda module, inputs: ((inputs[0][0] + 1, *inputs[0][1:]),))
    return one


def normalised(one: JointModel) -> JointModel:
    nn.utils.parametrizations.spectral_norm(one.energy.networks[0][0])
    return one.eval()


def hooked_zero(one: JointModel) -> JointModel:
    one.energy = mlp_energy((5, 7), ((), (6,))).double()
    one.energy.networks[0].register_forward_hook(lambda module, inputs, output: output + inputs[0].sum(1)[:, None])
    return one


def smooth(one: JointModel) -> JointModel:
    one.energy.networks[1][1] = nn.SiLU()
    return one


def conditional_hooked(one: JointModel) -> JointModel:
    one.backbone.conditionals[0].network[0].register_forward_hook(lambda module, inputs, output: output + 1)
    return one


@pytest.mark.parametrize(
    "changed",
    [
        hooked,
        hooked_zero,
        hooked_before,
        normalised,
        smooth,
        conditional_hooked,
        lambda one: JointModel(Shifted(one.backbone.config).double(), one.energy),
        lambda one: JointModel(one.backbone, Doubled(list(one.energy.networks))),
        lambda one: linear_model(),
    ],
    ids=[
        "hook",
        "hook-on-none",
        "hook-before",
        "spectral-norm",
        "activation",
        "conditional-hook",
        "own-p0",
        "own-sum",
        "own-backbone",
    ],
)
def test_anything_else_goes_through_autograd(changed) -> None:
    """A prior that only looks like perceptrons gets the gradient of what it computes, not of what it looks like."""
    one = changed(model())
    field = field_of(prior(one))
    assert isinstance(field, Autograd)
    z = latents(one, batch=2)
    h = 1e-6
    shift = torch.zeros_like(z[0])
    shift[:, 0] = h
    up, down = prior(one)((z[0] + shift, *z[1:])), prior(one)((z[0] - shift, *z[1:]))
    torch.testing.assert_close(field.gradient(z)[0][:, 0], ((up - down) / (2 * h)).detach(), rtol=1e-6, atol=1e-7)


def test_inference_mode_is_a_sentence() -> None:
    """Breaks if autograd's own error, which names no way out, came out of a chain."""
    one = model()
    with torch.inference_mode(), pytest.raises(UserError, match=r"use torch\.no_grad"):
        Autograd(prior(one)).gradient(latents(one))


def test_noise_space_goes_through_autograd() -> None:
    """The prior in whitened noise has another gradient."""
    one = model()
    assert isinstance(field_of(PriorInNoise(one.backbone, one.energy)), Autograd)
