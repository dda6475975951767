"""The kernel's laws, exact: on a Gaussian the chain is linear in its start and its noise, so its law can be read."""

import math

import pytest
import torch
from torch import Tensor

from jlebm import langevin, moves
from jlebm.densities import PriorInLatents
from jlebm.engines.gradients import Autograd
from jlebm.errors import UserError
from jlebm.images import NotFinite
from jlebm.langevin import Chain, StepInfo, Trace
from jlebm.latents import Latents, standard_normal_log_prob
from jlebm.randomness import PerImageNoise, SharedNoise
from tests.linear import Quadratic, linear_model, split


def coefficients(log_density, chain: Chain, offset: float = 0.0) -> tuple[float, float, Tensor]:
    """Run a one-dimensional linear chain on unit inputs; return its constant, and the weights of start and noises."""
    count = chain.steps + 2  # one run with all inputs zero, then one for each unit input
    inputs = torch.zeros(count, chain.steps + 1, dtype=torch.float64)
    inputs[1:] = torch.eye(chain.steps + 1, dtype=torch.float64)
    draws = iter(inputs.T[1:])
    ends = langevin.run((inputs[:, :1],), log_density, chain, lambda like: (next(draws)[:, None],))[0][:, 0]
    weights = ends[1:] - ends[0]
    return float(ends[0]), float(weights[0]), weights[1:]


@pytest.mark.parametrize("epsilon", [0.001, 0.08, 0.5, 1.3])
@pytest.mark.parametrize("steps", [1, 2, 60])
def test_finite_step_variance_on_a_standard_normal(epsilon: float, steps: int) -> None:
    """From variance v0 it is r^n v0 + (1 - r^n) / (1 - epsilon / 2), r = (1 - epsilon)^2.

    A wrong noise scale, sign or factor of two in the drift breaks it at every step size.
    """
    constant, start, noise = coefficients(standard_normal_log_prob, Chain(steps, epsilon))
    r = (1 - epsilon) ** 2
    for v0 in (0.0, 1.0, 9.0):
        law = r**steps * v0 + (1 - r**steps) / (1 - epsilon / 2)
        assert start**2 * v0 + float(noise.square().sum()) == pytest.approx(law, rel=1e-12)
    assert constant == 0


@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.0])
def test_temperature_scales_the_noise_alone(temperature: float) -> None:
    """Temperature 0 is gradient ascent, and the drift is the same at every temperature."""
    _, start, noise = coefficients(standard_normal_log_prob, Chain(10, 0.1, temperature))
    _, same, full = coefficients(standard_normal_log_prob, Chain(10, 0.1))
    assert start == pytest.approx(same, rel=1e-14)
    torch.testing.assert_close(noise, temperature * full)


def test_quadratic_energy_gives_its_tilted_gaussian() -> None:
    """E(z) = a z^2 / 2 - c z on N(0, 1) is N(c / (1 + a), 1 / (1 + a)).

    A flipped sign of the energy moves the mean to the other side. The unadjusted chain's mean is exact, its variance
    is larger by the factor 1 / (1 - epsilon (1 + a) / 2).
    """
    a, c, epsilon = 0.5, 1.2, 0.05

    def log_density(z: Latents) -> Tensor:
        energy = 0.5 * a * z[0].square().sum(1) - c * z[0].sum(1)
        return standard_normal_log_prob(z) - energy

    mean, _, noise = coefficients(log_density, Chain(400, epsilon))
    assert mean == pytest.approx(c / (1 + a), rel=1e-9)
    assert float(noise.square().sum()) == pytest.approx(1 / (1 + a) / (1 - epsilon * (1 + a) / 2), rel=1e-9)


@pytest.mark.slow
def test_tilted_hierarchy_in_closed_form() -> None:
    """On a linear-Gaussian hierarchy with quadratic energies a cold chain settles at the exact mean of the prior."""
    model = linear_model()
    density = PriorInLatents(model.backbone, model.energy)
    exact = Quadratic(lambda z: density(split(z))[0])
    mean = torch.linalg.solve(exact.precision, exact.linear).detach()
    chain = Chain(4000, 0.02, temperature=0.0)
    end = langevin.run(
        (torch.zeros(1, 2).double(), torch.zeros(1, 3).double()),
        density,
        chain,
        lambda like: tuple(torch.zeros_like(z) for z in like),
    )
    torch.testing.assert_close(torch.cat(end, 1)[0], mean, rtol=1e-9, atol=1e-9)


def test_gradient_against_finite_differences() -> None:
    """The drift is the gradient of the log-density that was asked for, in every layer."""
    model = linear_model()
    density = PriorInLatents(model.backbone, model.energy)
    generator = torch.Generator().manual_seed(1)
    z = tuple(torch.randn(4, *shape, generator=generator, dtype=torch.float64) for shape in ((2,), (3,)))
    _, gradient = Autograd(density).value_and_gradient(z)
    h = 1e-6
    for layer in range(2):
        for unit in range(z[layer].shape[1]):
            shift = torch.zeros_like(z[layer])
            shift[:, unit] = h
            up = density(tuple(v + shift if i == layer else v for i, v in enumerate(z)))
            down = density(tuple(v - shift if i == layer else v for i, v in enumerate(z)))
            torch.testing.assert_close(gradient[layer][:, unit], ((up - down) / (2 * h)).detach(), rtol=1e-7, atol=1e-8)


def test_the_papers_two_notations() -> None:
    """S is the noise's deviation, h its variance; drifts are s^2/2 and h/2 (docs/facts, "Langevin step sizes")."""
    assert Chain.from_joint_paper(60, 0.4).epsilon == pytest.approx(0.08)
    assert Chain.from_two_stage_paper(20, 4e-5).epsilon == pytest.approx(2e-5)
    for s in (0.4, 0.1):
        assert math.sqrt(2 * Chain.from_joint_paper(1, s).epsilon) == pytest.approx(s)
    for h in (4e-5, 1e-5):
        assert math.sqrt(2 * Chain.from_two_stage_paper(1, h).epsilon) == pytest.approx(math.sqrt(h))


def test_observer_sees_every_step_and_changes_nothing() -> None:
    """A trace has one entry a step, of the position before the move; watching a chain does not move it."""
    chain, trace = Chain(5, 0.1), Trace()
    start = (torch.full((3, 2), 2.0, dtype=torch.float64),)

    def noise(like: Latents) -> Latents:
        return tuple(torch.ones_like(z) for z in like)

    watched = langevin.run(start, standard_normal_log_prob, chain, noise, trace)
    assert torch.equal(watched[0], langevin.run(start, standard_normal_log_prob, chain, noise)[0])
    assert trace.log_density().shape == (5, 3)
    torch.testing.assert_close(trace.log_density()[0], standard_normal_log_prob(start))
    torch.testing.assert_close(trace.gradient_norm()[0], start[0].norm(dim=1))


def test_no_steps_is_the_start() -> None:
    """Zero steps return the start itself, detached."""
    start = (torch.ones(2, 2, requires_grad=True),)
    end = langevin.run(start, standard_normal_log_prob, Chain(0, 0.1), lambda like: like)
    assert torch.equal(end[0], start[0])
    assert not end[0].requires_grad


@pytest.mark.parametrize(
    "make",
    [
        lambda: Chain(10, 0.0),
        lambda: Chain(10, -0.1),
        lambda: Chain(10, math.nan),
        lambda: Chain(10, math.inf),
        lambda: Chain(-1, 0.1),
        lambda: Chain(1, 0.1, temperature=-1.0),
        lambda: Chain(1, 0.1, temperature=math.nan),
        lambda: Chain(1, 0.1, temperature=0.9, metropolis=True),
        lambda: Chain.from_joint_paper(10, -0.4),
        lambda: Chain.from_joint_paper(10, 0.0),
    ],
)
def test_impossible_chains_are_refused(make) -> None:
    """A step size that is not positive, a negative length or temperature, a cold corrected chain: a sentence each."""
    with pytest.raises(UserError, match="must"):
        make()


# ---- the Metropolis correction


def quartic(z: Latents) -> Tensor:
    """Two wells at -1 and 1: far from Gaussian, with a gradient in closed form, 2 z (1 - z^2)."""
    return -0.5 * (z[0].square() - 1).square().sum(1)


def draws(seed: int) -> SharedNoise:
    return SharedNoise(torch.Generator().manual_seed(seed))


def test_detailed_balance() -> None:
    """p(x) q(y|x) a(x, y) = p(y) q(x|y) a(y, x), with q written out as a normal density.

    A wrong sign, a forgotten term or factor of two in the acceptance breaks it; all pairs of points on a grid.
    """
    grid = torch.linspace(-2, 2, 9, dtype=torch.float64)
    x, y = (each[:, None] for each in torch.cartesian_prod(grid, grid).T)
    for epsilon in (0.01, 0.1, 0.7):

        def flow(x: Tensor, y: Tensor, epsilon: float = epsilon) -> Tensor:
            here, there = (2 * z * (1 - z.square()) for z in (x, y))
            q = torch.distributions.Normal(x + epsilon * here, (2 * epsilon) ** 0.5).log_prob(y)[:, 0].exp()
            xi = (y - x - epsilon * here) / (2 * epsilon) ** 0.5
            gain = quartic((y,)) - quartic((x,))
            log_ratio = moves.log_acceptance(gain, (here,), (there,), (xi,), (epsilon,))
            return quartic((x,)).exp() * q * log_ratio.clamp(max=0).exp()

        torch.testing.assert_close(flow(x, y), flow(y, x), rtol=1e-12, atol=0)
        assert (flow(x, y) > 0).sum() > len(x) / 2


def test_corrected_variance_is_the_densitys_own() -> None:
    """On Gaussians the unadjusted chain's variance is 1 / (1 - epsilon / 2) times too large, the corrected one's exact.

    Two layers of different scales, from a start that is twice too wide; an acceptance over the layers apart, or with
    another density than the proposal's, breaks it. The tolerance is four standard errors of a variance.
    """
    count, epsilon, precision = 20_000, 0.5, 2.0

    def log_density(z: Latents) -> Tensor:
        return -0.5 * (z[0].square().sum(1) + precision * z[1].square().sum(1))

    start = tuple(2 * z for z in draws(1)((torch.empty(count, 1).double(), torch.empty(count, 2).double())))
    exact = torch.tensor([1.0, 1 / precision, 1 / precision], dtype=torch.float64)
    inflated = exact / (1 - 0.5 * epsilon / exact)
    for metropolis, law in ((False, inflated), (True, exact)):
        trace = Trace()
        chain = Chain(25, epsilon, metropolis=metropolis)
        end = torch.cat(langevin.run(start, log_density, chain, draws(2), trace), 1)
        assert ((end.square().mean(0) / law - 1).abs() < 4 * math.sqrt(2 / count)).all()
    rates = torch.stack([info.accepted for info in trace.infos if info.accepted is not None]).double().mean(1)
    assert len(rates) == 25
    assert 0.5 < rates[-1] < 0.95, "the law says little where nearly all is accepted"


def test_what_has_density_zero_is_never_entered() -> None:
    """On exp(-z), z > 0, a corrected chain stays positive and has mean and variance 1; an unadjusted one leaves."""
    count = 20_000

    def exponential(z: Latents) -> Tensor:
        return torch.where(z[0] > 0, -z[0], -math.inf).sum(1)

    start = (-torch.special.log_ndtr(draws(3)((torch.empty(count, 1).double(),))[0]),)
    end = langevin.run(start, exponential, Chain(20, 0.3, metropolis=True), draws(4))[0]
    assert end.min() > 0
    assert abs(end.mean() - 1) < 4 / math.sqrt(count)
    assert abs(end.var() - 1) < 4 * math.sqrt(8 / count)  # the fourth central moment of Exp(1) is 9
    assert langevin.run(start, exponential, Chain(20, 0.3), draws(4))[0].min() < 0


@pytest.mark.parametrize("leapfrog", [1, 4])
def test_a_corrected_chain_does_not_begin_where_the_density_is_lost(leapfrog: int) -> None:
    """Breaks if weights of NaN, at which every proposal is rejected, gave the chain's start as its samples."""
    model = linear_model()
    model.energy.networks[1].shift.data[0] = math.nan
    chain = Chain(
        4, 0.3, 1.0, "ancestral", "noise", metropolis=True, discretisation="crank-nicolson", leapfrog=leapfrog
    )
    with pytest.raises(NotFinite, match="not a number at the start of 5 of 5 chains"):
        model.sample_prior(5, chain, draws(1))


def test_small_steps_are_all_accepted() -> None:
    """The acceptance's logarithm is of the order epsilon^(3/2): eight times smaller for a quarter of the step.

    A ratio that leaves out one of its three terms is of the order epsilon^(1/2) or epsilon.
    """
    x, xi = (torch.linspace(-1.5, 1.5, 50, dtype=torch.float64)[:, None].roll(shift, 0) for shift in (0, 17))
    field = Autograd(quartic)
    value, gradient = field.value_and_gradient((x,))

    def size(epsilon: float) -> Tensor:
        there, proposed = field.value_and_gradient(
            moves.move((x,), gradient, [Chain(1, epsilon).stride(epsilon)], (xi,))
        )
        return moves.log_acceptance(there - value, gradient, proposed, (xi,), (epsilon,)).square().mean().sqrt()

    assert float(size(4e-6) / size(1e-6)) == pytest.approx(8, rel=0.01)
    trace = Trace()
    langevin.run((x,), quartic, Chain(20, 1e-6, metropolis=True), draws(5), trace)
    assert all(info.accepted is not None and bool(info.accepted.all()) for info in trace.infos)


def test_a_rejected_element_stays_to_the_bit() -> None:
    """Each element moves by itself: those that were accepted to the plain step's position, the others not at all."""
    start = (torch.linspace(-2, 2, 64, dtype=torch.float64)[:, None],)
    chain, trace = Chain(1, 0.4, metropolis=True), Trace()
    end = langevin.run(start, quartic, chain, draws(6), trace)[0]
    plain = langevin.run(start, quartic, Chain(1, 0.4), draws(6))[0]
    accepted = trace.infos[0].accepted
    assert accepted is not None
    assert 10 < int(accepted.sum()) < 54
    assert torch.equal(end[accepted], plain[accepted])
    assert torch.equal(end[~accepted], start[0][~accepted])


def test_a_corrected_chain_evaluates_once_a_step() -> None:
    """The value and the gradient of where it stands are carried over, along rejections too."""
    calls: list[int] = []

    def counted(z: Latents) -> Tensor:
        calls.append(len(z[0]))
        return quartic(z)

    start = (torch.linspace(-2, 2, 64, dtype=torch.float64)[:, None],)
    trace, visited = Trace(), [start]

    def watch(index: int, position: Latents, info: StepInfo) -> None:
        trace(index, position, info)
        visited.append(position)

    langevin.run(start, counted, Chain(7, 0.4, metropolis=True), draws(7), watch)
    assert calls == [64] * 8
    left = [quartic(position) for position in visited[:-1]]
    torch.testing.assert_close(trace.log_density(), torch.stack(left), rtol=0, atol=0)
    norms = [Autograd(quartic).value_and_gradient(position)[1][0].norm(dim=1) for position in visited[:-1]]
    torch.testing.assert_close(trace.gradient_norm(), torch.stack(norms), rtol=1e-14, atol=0)


def test_a_corrected_chain_depends_on_its_own_seed_alone() -> None:
    """Image i has the same chain in any batch, and a plain chain draws what it always drew: one xi a step."""
    shapes: list[tuple[int, ...]] = []

    def run(seeds: list[int], metropolis: bool) -> Tensor:
        source = PerImageNoise("sample", seeds)

        def noise(like: Latents) -> Latents:
            shapes.append(tuple(like[0].shape))
            return source(like)

        start = (torch.full((len(seeds), 2), 0.5, dtype=torch.float64),)
        return langevin.run(start, quartic, Chain(3, 0.4, metropolis=metropolis), noise)[0]

    assert torch.equal(run([4, 7, 9], True)[1:2], run([7], True))
    assert shapes == [(3, 2), (3, 1)] * 3 + [(1, 2), (1, 1)] * 3
    shapes.clear()
    run([4, 7, 9], False)
    assert shapes == [(3, 2)] * 3


def test_a_row_of_results_tells_a_corrected_chain() -> None:
    """Two rows of the two kinds of chain do not look alike."""
    assert Chain(3, 0.1).describe() == "3 steps, epsilon 0.1, from standard-normal"
    assert "Metropolis" in Chain(3, 0.1, metropolis=True).describe()
