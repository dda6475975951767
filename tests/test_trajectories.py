"""Hamiltonian trajectories in whitened noise, against the laws that make their Metropolis correction right."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from jlebm import langevin, moves, trajectories
from jlebm.densities import PriorInNoise
from jlebm.engines.gradients import Field, field_of
from jlebm.errors import UserError
from jlebm.langevin import StepInfo
from jlebm.latents import Latents, map_latents, standard_normal_log_prob
from jlebm.learning.step_sizes import acceptance_by_layer
from jlebm.trajectories import Point
from tests.linear import linear_model
from tests.test_crank_nicolson import draws, implicit

SIZES = (0.4, 1.5)
ONE = torch.ones(50, dtype=torch.float64)


def begun(energies: tuple[float, float] = (0.9, 2.0)) -> tuple[Field, Point, Latents]:
    """Return the field of two layers with linear energies, 50 positions and momenta in float64."""
    model = linear_model(energies)
    field = field_of(PriorInNoise(model.backbone, model.energy))
    position = model.noise(50, draws(1))
    return field, Point(position, *field.value_and_gradient(position)), model.noise(50, draws(2))


def curved(z: Latents) -> Tensor:
    """Return a log-density on N(0, I) whose energy is neither linear nor quadratic."""
    return standard_normal_log_prob(z) - sum((2 * torch.sin(layer)).sum(1) for layer in z)


def test_one_step_is_the_crank_nicolson_move() -> None:
    """Breaks if a kick or an angle has another factor: position and acceptance are those of the step of this size."""
    field, here, xi = begun()
    end, momentum = trajectories.follow(field, here, xi, SIZES, 1, ONE)
    strides = tuple(implicit(1, 1.0).stride(size) for size in SIZES)
    moved = moves.move(here.position, here.gradient, strides, xi)
    for one, other in zip(end.position, moved, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    ratio = moves.log_acceptance(end.value - here.value, here.gradient, end.gradient, xi, SIZES)
    torch.testing.assert_close(trajectories.log_ratio(here, xi, end, momentum), ratio, rtol=1e-10, atol=1e-10)
    assert trajectories.angle_of(0.4) == pytest.approx(math.acos(1.6 / 2.4), rel=1e-12)


@pytest.mark.parametrize("steps", [2, 7])
def test_a_trajectory_leads_back(steps: int) -> None:
    """Breaks if the integrator is not reversible: from its end with the momentum turned round it ends at its start."""
    momentum, field = begun()[2], field_of(curved)
    position = map_latents(torch.neg, momentum)
    here = Point(position, *field.value_and_gradient(position))
    spread = torch.linspace(0.8, 1.2, 50, dtype=torch.float64)
    end, there = trajectories.follow(field, here, momentum, SIZES, steps, spread)
    assert not torch.allclose(end.position[0], here.position[0])
    back, again = trajectories.follow(field, end, map_latents(torch.neg, there), SIZES, steps, spread)
    for one, other in zip((*back.position, *again), (*here.position, *map_latents(torch.neg, momentum)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_it_keeps_volume() -> None:
    """Breaks if the map of position and momentum stretches, which the ratio would have to count."""
    field, begin = _Differentiable(), torch.tensor([[0.3, -0.7], [1.1, 0.4]], dtype=torch.float64)

    def flow(both: Tensor) -> Tensor:
        position, momentum = (both[0][None],), (both[1][None],)
        here = Point(position, *field.value_and_gradient(position))
        end, v = trajectories.follow(field, here, momentum, (0.8,), 3, ONE[:1])
        return torch.cat([end.position[0], v[0]])

    jacobian = torch.autograd.functional.jacobian(flow, begin).reshape(4, 4)
    assert float(torch.linalg.det(jacobian)) == pytest.approx(1, rel=1e-10)


class _Differentiable:
    """The field of `curved` with a graph."""

    def value_and_gradient(self, position: Latents) -> tuple[Tensor, Latents]:
        value = curved(position)
        return value, torch.autograd.grad(value.sum(), position, create_graph=True)

    def gradient(self, position: Latents) -> Latents:
        return self.value_and_gradient(position)[1]


def test_without_an_energy_every_trajectory_is_accepted() -> None:
    """Breaks if the Gaussian part is not solved exactly: |eps|^2 + |v|^2 stays at every size and length."""
    field = field_of(standard_normal_log_prob)
    position, xi = (draws(5)((torch.empty(50, 3).double(),)) for _ in range(2))
    here = Point(position, *field.value_and_gradient(position))
    for size, steps in ((0.01, 3), (0.7, 20), (30.0, 5)):
        end, v = trajectories.follow(field, here, xi, (size,), steps, ONE)
        torch.testing.assert_close(trajectories.log_ratio(here, xi, end, v), torch.zeros_like(ONE), rtol=0, atol=1e-11)
        turned = steps * trajectories.angle_of(size)
        expected = position[0] * math.cos(turned) + xi[0] * math.sin(turned)
        torch.testing.assert_close(end.position[0], expected, rtol=1e-10, atol=1e-10)


def test_the_error_of_the_energy_is_of_second_order() -> None:
    """Breaks if a half kick is missing: with half the angle and twice the steps the error is a quarter."""
    momentum, field = begun()[2], field_of(curved)
    position = map_latents(torch.neg, momentum)
    here = Point(position, *field.value_and_gradient(position))

    def error(angle: float, steps: int) -> float:
        size = 2 * math.tan(angle / 2) ** 2
        end, v = trajectories.follow(field, here, momentum, (size, size), steps, ONE)
        return float(trajectories.log_ratio(here, momentum, end, v).abs().mean())

    assert error(0.1, 10) / error(0.05, 20) == pytest.approx(4, rel=0.1)


def test_a_chain_of_trajectories_has_the_densitys_own_law() -> None:
    """E(z) = a z^2 / 2 on N(0, 1) is N(0, 1 / (1 + a)); the tolerance is four standard errors of a variance."""
    count, a = 20_000, 3.0

    def log_density(z: Latents) -> Tensor:
        return -0.5 * (1 + a) * z[0].square().sum(1)

    chain = dataclasses.replace(implicit(40, 0.5, metropolis=True), leapfrog=4)
    start = draws(3)((torch.empty(count, 1).double(),))
    trace = langevin.Trace()
    end = langevin.run(start, log_density, chain, draws(4), trace)[0]
    assert abs(float(end.var()) * (1 + a) - 1) < 4 * math.sqrt(2 / count)
    moved = [info.accepted for info in trace.infos if info.accepted is not None]
    assert len(trace.infos) == 40
    assert len(moved) == 10, "one decision a trajectory"
    assert 0.2 < float(torch.stack(moved).double().mean()) < 0.99, "then the correction has nothing to correct"


def test_an_observer_sees_every_step() -> None:
    """Breaks if a figure's steps were counted in trajectories: positions change at each last step alone."""
    seen: list[Tensor] = []

    def see(index: int, position: Latents, info: StepInfo) -> None:
        assert index == len(seen)
        seen.append(position[0].clone())

    chain = dataclasses.replace(implicit(9, 0.5, metropolis=True), leapfrog=3)
    start = draws(3)((torch.empty(64, 2).double(),))
    end = langevin.run(start, standard_normal_log_prob, chain, draws(4), see)[0]
    assert len(seen) == 9
    changes = [not torch.equal(one, other) for one, other in zip([start[0], *seen], seen, strict=False)]
    assert changes == [False, False, True] * 3
    assert torch.equal(seen[-1], end)


def test_an_images_chain_is_its_own() -> None:
    """Breaks if one element's angles depend on another's draw."""
    chain = dataclasses.replace(implicit(8, 0.6, metropolis=True), leapfrog=4)
    start = draws(3)((torch.empty(6, 2).double(),))

    def own(rows: slice) -> Tensor:
        def noise(like: Latents) -> Latents:
            whole = source(tuple(layer.new_empty(6, *layer.shape[1:]) for layer in like))
            return tuple(layer[rows] for layer in whole)

        source = draws(9)
        return langevin.run((start[0][rows],), curved, chain, noise)[0]

    torch.testing.assert_close(own(slice(2, 4)), own(slice(0, 6))[2:4], rtol=0, atol=0)


def test_the_acceptance_of_a_layer_is_that_of_its_trajectory_alone() -> None:
    """Breaks if a probe for step sizes took single steps, or moved a layer that is held."""
    start = tuple(draws(7)((torch.empty(400, 1).double(), torch.empty(400, 1).double())))

    def two(z: Latents) -> Tensor:  # the second layer is ten times as steep
        return standard_normal_log_prob(z) - 2 * torch.sin(z[0]).sum(1) - 2 * torch.sin(10 * z[1]).sum(1)

    chain = dataclasses.replace(implicit(8, 0.3, metropolis=True), leapfrog=4)
    found = acceptance_by_layer(start, two, chain, (0.05, 0.05), draws(8))
    momentum = draws(8)(start)
    for layer in range(2):
        held = start[1 - layer]
        field = field_of(lambda z, layer=layer, held=held: two((z[0], held) if layer == 0 else (held, z[0])))
        here = Point(start[layer : layer + 1], *field.value_and_gradient(start[layer : layer + 1]))
        ones = torch.ones(400, dtype=torch.float64)
        end, v = trajectories.follow(field, here, momentum[layer : layer + 1], (0.05,), 4, ones)
        ratio = trajectories.log_ratio(here, momentum[layer : layer + 1], end, v)
        torch.testing.assert_close(found[layer], ratio.clamp(max=0).exp().mean(), rtol=1e-9, atol=1e-9)
    assert float(found[0]) > 0.97 > float(found[1]) + 0.2
    single = acceptance_by_layer(start, two, dataclasses.replace(chain, leapfrog=1), (0.05, 0.05), draws(8))
    assert abs(float(single[1] - found[1])) > 0.01, "then the law says nothing"


def test_how_far_noise_alone_goes() -> None:
    """Breaks if a diagnosis compared trajectories with single steps."""
    chain = dataclasses.replace(implicit(8, 0.3, metropolis=True), leapfrog=4)
    kept = math.cos(4 * math.acos(1.7 / 2.3)) ** 2
    assert chain.noise_alone(8) ** 2 == pytest.approx((1 - kept) ** 2 + 1 - kept**2, rel=1e-10)
    # One of more than a quarter turn leads to the other side: 2 - 2 cos(angle), almost 4 here.
    assert chain.noise_alone(4) ** 2 == pytest.approx(2 - 2 * math.cos(4 * math.acos(1.7 / 2.3)), rel=1e-10)
    assert "trajectories of 4 steps" in chain.describe()


def test_the_spread_is_uniform_about_one() -> None:
    """Breaks if angles were equal, or could vanish."""
    spread = trajectories.spread_of(torch.linspace(-6, 6, 1001, dtype=torch.float64))
    assert 0.8 <= float(spread.min()) < 0.801
    assert 1.199 < float(spread.max()) <= 1.2
    quantiles = torch.special.ndtri(torch.linspace(0.001, 0.999, 999, dtype=torch.float64))
    expected = torch.linspace(0.8004, 1.1996, 999, dtype=torch.float64)
    torch.testing.assert_close(trajectories.spread_of(quantiles), expected, rtol=0, atol=1e-9)


def test_a_chains_trajectories_have_angles_of_their_own() -> None:
    """Breaks if a chain's trajectories had equal angles: near a half turn all would come back to where they began.

    Without an energy and with a momentum of zero a trajectory ends at its start times the cosine of its angle.
    """
    chain = dataclasses.replace(implicit(4, 0.1, metropolis=True), leapfrog=4)
    start, source = (torch.ones(4_000, 2, dtype=torch.float64),), draws(6)

    def noise(like: Latents) -> Latents:
        return map_latents(torch.zeros_like, like) if like[0].shape[1] == 2 else source(like)

    end = langevin.run(start, standard_normal_log_prob, chain, noise)[0]
    angles = torch.acos(end) / (4 * trajectories.angle_of(0.1))
    assert torch.allclose(angles[:, 0], angles[:, 1])
    assert 0.8 <= float(angles.min()) < 0.81
    assert 1.19 < float(angles.max()) <= 1.2
    assert float(angles[:, 0].std()) == pytest.approx(0.4 / 12**0.5, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"metropolis": False}, "need a Crank-Nicolson discretisation and a Metropolis correction"),
        ({"discretisation": "euler"}, "need a Crank-Nicolson discretisation and a Metropolis correction"),
        ({"steps": 9}, "no whole number of trajectories of 4"),
        ({"leapfrog": 0}, "set leapfrog to 1 or more"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object], sentence: str) -> None:
    """Breaks if a setting were ignored."""
    chain = dataclasses.replace(implicit(8, 0.3, metropolis=True), leapfrog=4)
    with pytest.raises(UserError, match=sentence):
        dataclasses.replace(chain, **changes)  # pyright: ignore
