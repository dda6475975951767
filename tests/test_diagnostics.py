"""Diagnostics of chains against processes whose effective sample size, drift and movement are known."""

import json
import math
import sys

import numpy as np
import pytest
import torch
from jaxtyping import Float

from jlebm import diagnostics
from jlebm.diagnostics import Diagnosis, LayerDiagnosis, Record, diagnose
from jlebm.errors import UserError
from jlebm.langevin import Chain, Space
from jlebm.latents import Latents
from jlebm.model import JointModel
from jlebm.randomness import SharedNoise
from tests.linear import linear_model

NEVER_MIND = Chain(1, 1.0)


def latents(seed: int, count: int = 100) -> Latents:
    return (torch.randn(count, 50, generator=torch.Generator().manual_seed(seed), dtype=torch.float64),)


def of_energy(along: Float[np.ndarray, "steps_and_start chains"]) -> LayerDiagnosis:
    """Diagnose one layer by its energies, between independent latents."""
    count = along.shape[1]
    (layer,) = diagnose(along[:, :, None], ["z1"], latents(1, count), latents(2, count), NEVER_MIND).layers
    return layer


def autoregressive(rho: float, steps: int, chains: int) -> Float[np.ndarray, "steps chains"]:
    """Stationary x_t = rho x_{t-1} + sqrt(1 - rho^2) xi_t, of variance 1."""
    random = np.random.default_rng(0)
    x = random.standard_normal((steps, chains))
    for t in range(1, steps):
        x[t] = rho * x[t - 1] + math.sqrt(1 - rho**2) * x[t]
    return x


# ---- mixing


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_effective_sample_size_of_an_autoregression(rho: float) -> None:
    """It is N (1 - rho) / (1 + rho) of the N energies after burn-in, and R-hat is 1: N itself for independent draws.

    Chains and steps that change places break it, and energies of the burn-in that are counted.
    """
    layer = of_energy(autoregressive(rho, 4000, 100))
    assert layer.effective_samples == pytest.approx(2000 * 100 * (1 - rho) / (1 + rho), rel=0.1)
    assert layer.rhat == pytest.approx(1, abs=0.01)
    assert layer.not_measured is None


def test_burn_in_is_left_out() -> None:
    """A first half that is far away changes nothing but the step at which the chain settles."""
    plain = autoregressive(0.5, 101, 30)
    shifted = plain + 1000.0 * (np.arange(101) < 37)[:, None]
    before, after = of_energy(plain), of_energy(shifted)
    assert (before.settled, after.settled) == (0, 37)
    assert before.rhat == after.rhat
    assert before.effective_samples == after.effective_samples
    assert before.drift == pytest.approx(after.drift)


def test_chains_that_stay_apart() -> None:
    """Chains around means of their own have an R-hat far above 1 and about one effective draw each, or fewer."""
    apart = autoregressive(0.0, 400, 10) + 10.0 * np.arange(10)
    layer = of_energy(apart)
    assert layer.rhat is not None
    assert layer.effective_samples is not None
    assert layer.rhat > 2
    assert layer.effective_samples < 20


def test_without_arviz_the_rest_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ArviZ is missing the line says what to install; drift and movement need nothing."""
    monkeypatch.setitem(sys.modules, "arviz_stats.base.array", None)
    x = autoregressive(0.5, 100, 10)
    one = diagnose(x[:, :, None], ["z1"], latents(1, 10), latents(2, 10), NEVER_MIND)
    (layer,) = one.layers
    assert (layer.effective_samples, layer.rhat) == (None, None)
    assert layer.drift is not None
    assert layer.moved
    assert "jlebm[diagnostics]" in one.sentences()[0]


@pytest.mark.parametrize("steps", [0, 1, 2, 7, 14])
def test_chains_too_short_for_some_of_it(steps: int) -> None:
    """A chain of no step has a displacement, one of three energies a drift, neither has an R-hat; all is JSON."""
    x = autoregressive(0.0, steps + 1, 10)
    one = diagnose(x[:, :, None], ["z1"], latents(1, 10), latents(2, 10), Chain(steps, 0.1))
    (layer,) = one.layers
    assert (layer.drift is None) == (steps < 2)
    assert (layer.rhat is None) == (steps < 14)
    assert (layer.not_measured is None) == (steps >= 14)
    assert json.loads(json.dumps(one.to_json(), allow_nan=False)) == one.to_json()


def test_energies_that_stand_still_have_no_rhat() -> None:
    """Chains whose energies never change, or jump between the halves, would divide by no variance within chains."""
    still = np.broadcast_to(np.random.default_rng(0).standard_normal(10), (41, 10))
    jump = still + 3.0 * (np.arange(41) >= 30)[:, None]
    for along in (still, jump):
        layer = of_energy(along)
        assert (layer.effective_samples, layer.rhat) == (None, None)
        assert layer.not_measured is not None
        assert "stays the same" in layer.not_measured
    same = of_energy(np.zeros((41, 10)))
    assert (same.drift, same.drift_error, same.settled) == (None, None, None)


# ---- drift and settling


def test_drift_of_a_trend() -> None:
    """A line of known slope is found within its standard error, whose size is that of independent chains' slopes.

    Without noise it is exact: the rise over the second half in standard deviations over chains, and no error. For
    white noise a slope's variance is 12 / (n^3 - n); the drift is the slope times n - 1. Two hundred repetitions.
    """
    slope, kept, chains = 0.004, 51, 20
    random = np.random.default_rng(1)
    offsets = 3 * random.standard_normal(chains)
    exact = of_energy(offsets + slope * np.arange(2 * kept)[:, None])
    assert exact.drift == pytest.approx(slope * (kept - 1) / offsets.std(ddof=1), rel=1e-10)
    assert exact.drift_error == pytest.approx(0, abs=1e-10)
    layers = []
    for _ in range(200):
        noise = random.standard_normal((2 * kept, chains))
        layers.append(of_energy(noise + slope * np.arange(2 * kept)[:, None]))
    drifts = np.array([layer.drift for layer in layers])
    error = (kept - 1) * math.sqrt(12 / (kept**3 - kept) / chains)
    assert drifts.mean() == pytest.approx(slope * (kept - 1), abs=4 * error / math.sqrt(200))
    assert drifts.std() == pytest.approx(error, rel=0.2)
    assert np.mean([layer.drift_error for layer in layers]) == pytest.approx(error, rel=0.1)


def test_the_error_of_a_drift_knows_that_steps_depend_on_each_other() -> None:
    """Where no energy drifts, slowly mixing chains still seem to: by as much as the error says."""
    x = autoregressive(0.95, 4000, 2500).reshape(4000, 50, 50)
    layers = [of_energy(x[3898:, group]) for group in range(50)]
    ratios = np.array([layer.drift for layer in layers]) / np.array([layer.drift_error for layer in layers])
    assert ratios.std() == pytest.approx(1, abs=4 / math.sqrt(2 * 50))


def test_when_a_chain_settles() -> None:
    """An exponential approach is within the band once 5 exp(-t / 10) is, but for the noise of a mean over 2,500 chains.

    A fall after burn-in by more than the band has not settled, be it steady, and so nowhere farther from the mean than
    that, or at once; nor has a bump, which is no drift.
    """
    time = np.arange(201)
    noise = autoregressive(0.0, 201, 2500)
    settling = of_energy(noise + 5 * np.exp(-time / 10)[:, None])
    earliest, latest = (10 * math.log(5 / (diagnostics.SETTLED + error)) for error in (3 / 50, -3 / 50))
    assert settling.settled is not None
    assert earliest < settling.settled < latest
    falling = of_energy(noise - 0.0032 * time[:, None])
    assert falling.drift == pytest.approx(-0.32, abs=0.05)
    assert falling.settled is None
    assert of_energy(noise - 5.0 * (time > 150)[:, None]).settled is None
    bump = of_energy(noise + np.exp(-0.5 * ((time - 150) / 5.0) ** 2)[:, None])
    assert bump.drift == pytest.approx(0, abs=0.1)
    assert bump.settled is None


def test_few_and_slow_chains_are_not_said_to_drift() -> None:
    """Stationary chains are said to have settled, though the mean of a few of them wanders by more than the band."""
    x = autoregressive(0.9, 4000, 400)
    told = [
        of_energy(x[first : first + 81, group : group + 8])
        for first in range(0, 3900, 300)
        for group in range(0, 400, 40)
    ]
    assert sum(layer.settled is None for layer in told) < 0.05 * len(told)


# ---- movement


def between(start: Latents, end: Latents, chain: Chain = NEVER_MIND) -> Diagnosis:
    return diagnose(autoregressive(0.5, 41, len(start[0]))[:, :, None], ["z1"], start, end, chain)


def test_displacement_is_in_the_starts_own_unit() -> None:
    """Independent draws are sqrt(2) standard deviations apart, whatever the scale and centre of the layer."""
    a, b = latents(1), latents(2)
    for scale, shift in ((1.0, 0.0), (0.01, 3.0), (1.0, 10 * torch.arange(50.0))):  # dimensions may differ in centre
        one = between(*(tuple(scale * z + shift for z in end) for end in (a, b)), Chain(8, 0.01))
        (layer,) = one.layers
        assert layer.displacement == pytest.approx(math.sqrt(2), rel=0.03)
        assert layer.noise_alone == pytest.approx(math.sqrt(0.02 * 40) / scale, rel=0.03)
        assert layer.moved
        assert layer.stuck == 0
        assert "has not moved" not in one.sentences()[0]


@pytest.mark.parametrize(("share", "moved"), [(0.09, False), (0.11, True)])
def test_moved_means_a_correlation_below(share: float, moved: bool) -> None:
    """Of unchanged spread, end and start correlate by 1 - MOVED^2 / 2 at the threshold."""
    (a,), (b,) = latents(1, 2000), latents(2, 2000)
    correlation = 1 - share**2 / 2
    end = correlation * a + math.sqrt(1 - correlation**2) * b
    (layer,) = between((a,), (end,)).layers
    assert layer.displacement == pytest.approx(share, rel=0.02)
    assert layer.moved is moved


def test_a_chain_that_has_not_moved_is_said_to_have_not_moved() -> None:
    """A two-stage chain goes as far as its noise, 0.04, and is where it began; so is a constant one."""
    (start,) = latents(1)
    steps = 40
    chain = Chain.from_two_stage_paper(steps, 4e-5)
    walk = start + math.sqrt(4e-5 * steps) * latents(2)[0]
    two_stage = between((start,), (walk,), chain)
    assert "z1 has not moved: 0.04 standard deviations of its start (noise alone: 0.04)" in two_stage.sentences()[0]
    assert two_stage.layers[0].stuck == 0
    constant = diagnose(np.ones((41, 100, 1)), ["z1"], (start,), (start,), chain)
    assert "z1 has not moved: 0 standard deviations" in constant.sentences()[0]
    assert "100 % of the chains not at all" in constant.sentences()[0]
    for one in (two_stage, constant):
        assert "settled" not in one.sentences()[0]
        assert one.to_json()["layers"][0]["moved"] is False


def test_one_point_or_one_chain_cannot_be_diagnosed() -> None:
    """What there is nothing to compare with is bad input, and so is an energy that is not finite."""
    x, (start,) = autoregressive(0.0, 21, 100)[:, :, None], latents(1)
    with pytest.raises(UserError, match="one point of z1"):
        diagnose(x, ["z1"], (torch.ones_like(start),), (start,), NEVER_MIND)
    with pytest.raises(UserError, match="at least two"):
        diagnose(x[:, :1], ["z1"], (start[:1],), (start[:1],), NEVER_MIND)
    x[7, 3] = math.nan
    with pytest.raises(UserError, match="energy of z1 is not finite at step 7"):
        diagnose(x, ["z1"], (start,), (start,), NEVER_MIND)


# ---- of a model's own chains


def watched(chain: Chain, model: JointModel) -> tuple[Record, Diagnosis]:
    """Run chains of the linear-Gaussian prior with quadratic energies."""
    start = model.start(200, chain, SharedNoise(torch.Generator().manual_seed(1)))
    record = Record(model.energies, start)
    model.sample_prior(200, chain, SharedNoise(torch.Generator().manual_seed(1)), record)
    return record, record.diagnosis(model.layer_names, chain)


def test_a_record_of_a_models_chains() -> None:
    """The energies are those before and after every step, the ends those of the chains, and nothing else is drawn."""
    model, chain = linear_model(), Chain(30, 0.05)
    record, one = watched(chain, model)
    assert record.energy().shape == (31, 200, 2)
    end = model.sample_prior(200, chain, SharedNoise(torch.Generator().manual_seed(1)))
    assert all(torch.equal(a, b) for a, b in zip(record.end, end, strict=True))
    np.testing.assert_array_equal(record.energy()[0], model.energies(record.start).numpy())
    np.testing.assert_array_equal(record.energy()[-1], model.energies(end).numpy())
    assert one.acceptance is None
    assert [layer.name for layer in one.layers] == ["z2", "z1"]
    assert len(one.sentences()) == 2


def test_acceptance_is_told_where_there_is_one() -> None:
    """It is the share of moves that were made; chains that reject everything are told as stuck."""
    model = linear_model()
    _, one = watched(Chain(30, 0.05, metropolis=True), model)
    assert one.acceptance is not None
    assert 0.5 < one.acceptance < 1
    assert one.sentences()[-1] == f"{100 * one.acceptance:.1f} % of the proposals were accepted"
    record, huge = watched(Chain(3, 2.0, metropolis=True), model)
    stayed = torch.stack([(a == b).all(1) for a, b in zip(record.start, record.end, strict=True)]).all(0)
    assert 0 < float(stayed.double().mean()) == pytest.approx(huge.layers[0].stuck)
    assert "% of the chains not at all" in huge.sentences()[0]


@pytest.mark.slow
def test_a_chain_at_equilibrium_is_found_there() -> None:
    """Ancestral chains without energies have settled from step 0 on; they mix in whitened noise, and slower in latents.

    There every dimension relaxes at the rate epsilon, here a conditional's wide ones as slowly as they are wide. Short
    chains of tiny steps have settled as well, and have not moved.
    """
    model = linear_model()
    with torch.no_grad():
        for network in model.energy.networks:
            network.shift.zero_()
            network.curvature.fill_(1e-9)  # p0 but for 1e-9; what is watched is then |z|^2
    spaces: tuple[Space, ...] = ("latents", "noise")
    rhats = {}
    for space in spaces:
        _, one = watched(Chain(300, 0.2, start="ancestral", space=space, metropolis=True), model)
        assert all(layer.settled == 0 and layer.moved for layer in one.layers)
        rhats[space] = [layer.rhat or math.nan for layer in one.layers]
        _, short = watched(Chain(40, 1e-5, start="ancestral", space=space), model)
        assert not any(layer.moved for layer in short.layers)
        assert all(layer.rhat is not None and layer.rhat > 2 for layer in short.layers)
    assert max(rhats["noise"]) < 1.05
    assert rhats["latents"][0] < 1.05
    assert rhats["latents"][1] > 1.2
