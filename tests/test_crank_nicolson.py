"""Chains whose Gaussian part is implicit, and step sizes that follow their acceptance layer by layer."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from jlebm import langevin, moves
from jlebm.densities import PriorInNoise, SomeLayers
from jlebm.errors import UserError
from jlebm.langevin import Chain
from jlebm.latents import Latents, standard_normal_log_prob
from jlebm.learning.step_sizes import Adaptation, acceptance_by_layer, adapted
from jlebm.randomness import SharedNoise
from tests.linear import linear_model
from tests.test_langevin import coefficients


def implicit(steps: int, epsilon: float, **rest: bool) -> Chain:
    return Chain(steps, epsilon, start="ancestral", space="noise", discretisation="crank-nicolson", **rest)


def draws(seed: int) -> SharedNoise:
    return SharedNoise(torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("epsilon", [1e-3, 0.1, 0.5, 2.0, 30.0])
@pytest.mark.parametrize("steps", [1, 7])
def test_a_standard_normal_stays_as_it_is(epsilon: float, steps: int) -> None:
    """Breaks if a factor of the step is wrong: from N(0, 1) the variance is 1 after any steps of any size.

    Euler's step inflates it by 1 / (1 - epsilon / 2), and explodes from 2 on.
    """
    constant, start, noise = coefficients(standard_normal_log_prob, implicit(steps, epsilon))
    assert start**2 + float(noise.square().sum()) == pytest.approx(1, rel=1e-12)
    assert start == pytest.approx(((2 - epsilon) / (2 + epsilon)) ** steps, rel=1e-10)
    assert constant == 0


@pytest.mark.parametrize("temperature", [1.0, 0.4])
@pytest.mark.parametrize("epsilon", [0.3, 5.0])
def test_how_far_noise_alone_goes(temperature: float, epsilon: float) -> None:
    """Breaks if the distance that a diagnosis compares with were that of another chain.

    From 2 on a step leads to the other side of zero, and an odd number of them farther than sqrt(2).
    """
    chain = Chain(9, epsilon, temperature, "ancestral", "noise", discretisation="crank-nicolson")
    _, start, noise = coefficients(standard_normal_log_prob, chain)
    assert chain.noise_alone(9) ** 2 == pytest.approx((1 - start) ** 2 + float(noise.square().sum()), rel=1e-10)
    assert Chain(9, 0.3).noise_alone(9) == pytest.approx((2 * 0.3 * 9) ** 0.5)


def test_small_steps_are_those_of_euler() -> None:
    """Breaks if the energy's gradient had another factor than the Gaussian's: the difference is of second order."""

    def tilted(z: Latents) -> Tensor:
        return standard_normal_log_prob(z) - (0.5 * z[0].square() - 1.2 * z[0]).sum(1)

    def apart(epsilon: float) -> float:
        ours, euler = (coefficients(tilted, chain) for chain in (implicit(1, epsilon), Chain(1, epsilon)))
        return abs(ours[0] - euler[0]) + abs(ours[1] - euler[1])

    assert apart(2e-3) / apart(1e-3) == pytest.approx(4, rel=0.01)


def test_the_fixed_point_of_a_linear_energy_is_its_mean() -> None:
    """E(z) = -c z on N(0, 1) is N(c, 1): the chain has this very law at every step size, unlike Euler's."""
    for epsilon in (0.1, 0.7, 1.9):
        constant, start, noise = coefficients(
            lambda z: standard_normal_log_prob(z) + 1.3 * z[0].sum(1), implicit(400, epsilon)
        )
        assert constant == pytest.approx(1.3, rel=1e-9)
        assert start**2 + float(noise.square().sum()) == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("sizes", [(0.4, 1.5), (2.5, 0.05)])
def test_detailed_balance_of_both_discretisations(sizes: tuple[float, float]) -> None:
    """Breaks if the acceptance forgets a layer's own size: p(x) q(y|x) a(x, y) = p(y) q(x|y) a(y, x), q written out."""
    model = linear_model((0.9, 2.0))
    density = PriorInNoise(model.backbone, model.energy)
    x, y = model.noise(50, draws(1)), model.noise(50, draws(2))
    for chain in (implicit(1, 1.0), Chain(1, 1.0, start="ancestral", space="noise")):
        strides = [chain.stride(size) for size in sizes]
        field = langevin.field_of(density)

        def flow(x: Latents, y: Latents, strides=strides, field=field) -> Tensor:
            (here, slope), (there, its_slope) = field.value_and_gradient(x), field.value_and_gradient(y)
            xi = tuple(
                (b - a - stride.drift * g) / stride.noise for a, b, g, stride in zip(x, y, slope, strides, strict=True)
            )
            q = sum(torch.distributions.Normal(0.0, 1.0).log_prob(each).sum(1) for each in xi)
            ratio = moves.log_acceptance(there - here, slope, its_slope, xi, sizes)
            return here + q + ratio.clamp(max=0)

        torch.testing.assert_close(flow(x, y), flow(y, x), rtol=1e-10, atol=1e-10)


def test_a_corrected_chain_of_large_steps_has_the_densitys_own_variance() -> None:
    """E(z) = a z^2 / 2 on N(0, 1) is N(0, 1 / (1 + a)); the tolerance is four standard errors of a variance."""
    count, a = 20_000, 3.0

    def log_density(z: Latents) -> Tensor:
        return -0.5 * (1 + a) * z[0].square().sum(1)

    start = draws(3)((torch.empty(count, 1).double(),))
    end = langevin.run(start, log_density, implicit(40, 0.5, metropolis=True), draws(4))[0]
    assert abs(float(end.var()) * (1 + a) - 1) < 4 * math.sqrt(2 / count)
    plain = langevin.run(start, log_density, implicit(40, 0.5), draws(4))[0]
    assert abs(float(plain.var()) * (1 + a) - 1) > 8 * math.sqrt(2 / count), "then the law says nothing"


def test_a_layers_size_moves_that_layer_alone() -> None:
    """Breaks if sizes are matched to other layers than their own, also where some layers are held or given."""
    model = linear_model()
    model.energy.step_sizes = torch.tensor([0.3, 0.02])
    density = PriorInNoise(model.backbone, model.energy)
    chain = Chain(1, 0.5, start="ancestral", space="noise", discretisation="crank-nicolson", sizes="adapted")
    start = model.noise(6, draws(5))
    assert langevin.sizes_of(density, chain, 2) == pytest.approx((0.3, 0.02))
    held = SomeLayers(density, start, (1,))
    assert langevin.sizes_of(held, chain, 1) == pytest.approx((0.02,))
    given = PriorInNoise(model.backbone, model.energy, given=model.pushed(start)[:1])
    assert langevin.sizes_of(given, chain, 1) == pytest.approx((0.02,))
    end = langevin.run(start, density, chain, draws(6))
    _, slope = langevin.field_of(density).value_and_gradient(start)
    for z, g, xi, found, size in zip(start, slope, draws(6)(start), end, (0.3, 0.02), strict=True):
        right = ((2 - size) * z + 2 * size * (g + z) + math.sqrt(8 * size) * xi) / (2 + size)  # g + z is -grad E
        torch.testing.assert_close(found, right)


def test_acceptance_is_that_of_a_layer_alone() -> None:
    """Breaks if a probe moves other layers along: a stiff layer accepts few steps of its own."""
    model, chain = linear_model((0.0, 400.0)), implicit(1, 0.5)
    density = PriorInNoise(model.backbone, model.energy)
    found = acceptance_by_layer(model.noise(2_000, draws(7)), density, chain, (0.5, 0.5), draws(8))
    assert found[1] < 0.2
    small = acceptance_by_layer(model.noise(2_000, draws(7)), density, chain, (0.5, 1e-5), draws(8))
    assert small[1] > 0.9
    linear = linear_model((0.0, 0.0))
    free = PriorInNoise(linear.backbone, linear.energy)
    every = acceptance_by_layer(linear.noise(9, draws(7)), free, chain, (0.5, 3.0), draws(8))
    torch.testing.assert_close(every, torch.ones(2).double())  # Crank-Nicolson is reversible for a linear energy


@pytest.mark.parametrize("chain", [implicit(1, 0.5), Chain(1, 0.5, start="ancestral", space="noise")])
def test_a_cold_chains_probe_has_temperature_one(chain: Chain) -> None:
    """Breaks if a probe's steps were colder than the ratio of densities that judges them is of."""
    model = linear_model((0.9, 2.0))
    density, start = PriorInNoise(model.backbone, model.energy), model.noise(50, draws(7))
    warm, cold = (
        acceptance_by_layer(start, density, dataclasses.replace(chain, temperature=t), (0.5, 0.1), draws(8))
        for t in (1.0, 0.0)
    )
    assert torch.equal(cold, warm)


@pytest.mark.parametrize("leapfrog", [1, 4])
def test_a_step_to_a_density_of_nan_is_not_accepted(leapfrog: int) -> None:
    """Breaks if a size rose where the density breaks down: from there on every chain would be lost."""
    start = draws(7)((torch.empty(9, 2).double(),))

    def density(z: Latents) -> Tensor:
        return torch.where((z[0] == start[0]).all(1), standard_normal_log_prob(z), math.nan)

    chain = dataclasses.replace(implicit(4, 0.5, metropolis=True), leapfrog=leapfrog)
    assert acceptance_by_layer(start, density, chain, (0.5,), draws(8)) == 0


def test_sizes_follow_the_acceptance_within_their_bounds() -> None:
    """Breaks if a size runs the wrong way, or past its bounds, or if one that accepts nothing does not fall."""
    sizes = torch.tensor([0.1, 0.1, 0.49, 1.05e-3])
    found = adapted(sizes, torch.tensor([0.9, 0.5, 0.99, 0.0]), Adaptation(), 0.5)
    torch.testing.assert_close(found, torch.tensor([0.115, 0.1 / 1.15, 0.5, 1e-3]))
    model, chain = linear_model((0.3, 3.0)), implicit(1, 4.0)
    density = PriorInNoise(model.backbone, model.energy)
    sizes, source = torch.full((2,), 4.0), draws(9)
    settled = langevin.run(model.noise(1_000, source), density, implicit(400, 0.01), source)
    for _ in range(80):
        accepted = acceptance_by_layer(settled, density, chain, sizes.tolist(), source)
        sizes = adapted(sizes, accepted, Adaptation(), 4.0)
    assert 0.6 < accepted[0] < 0.9
    assert 0.6 < accepted[1] < 0.9


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"discretisation": "crank-nicolson"}, "set the chain's space to 'noise'"),
        (
            {"discretisation": "crank-nicolson", "space": "noise", "start": "ancestral", "drift": "released"},
            "its drift to 'exact'",
        ),
        ({"sizes": "adapted"}, "set its space to 'noise'"),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, str], sentence: str) -> None:
    """Breaks if a chain took a discretisation whose law does not hold for its density."""
    with pytest.raises(UserError, match=sentence):
        Chain(3, 0.1, **fields)  # pyright: ignore


def test_adapted_sizes_need_energies_that_have_some() -> None:
    """Breaks if a chain silently took one size for all."""
    model = linear_model()
    chain = Chain(2, 0.5, start="ancestral", space="noise", sizes="adapted")
    with pytest.raises(UserError, match="trained without adapted step sizes"):
        model.sample_prior(3, chain, draws(1))


@pytest.mark.parametrize("fields", [{"acceptance": 1.0}, {"factor": 1.0}, {"every": 0}, {"least": 0.0}])
def test_an_adaptation_that_leads_nowhere_is_refused(fields: dict[str, float]) -> None:
    """Breaks if sizes could not move, or follow an acceptance that is never reached."""
    with pytest.raises(UserError, match=r"accept|adaptation"):
        Adaptation(**fields)  # pyright: ignore
