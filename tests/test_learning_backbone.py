"""Stage one: the ELBO's value and gradient, its warm-up, balancing, flows and bf16, on hierarchies of a few weights."""

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from jlebm.backbones.nvae import NVAE
from jlebm.backbones.nvae.cells import FlowCell, FlowPair, MaskedConv
from jlebm.backbones.nvae.regularisation import RegularisedNVAE
from jlebm.errors import UserError
from jlebm.images import to_float
from jlebm.latents import Latents
from jlebm.learning.backbone import AdamaxConfig, BackboneOnly, ELBOConfig, _sizes, balance
from jlebm.randomness import SharedNoise
from tests.small import COLOURED, HIERARCHY, backbone

ONE_GROUP = dataclasses.replace(HIERARCHY, num_groups_per_scale=1)
X = to_float(torch.from_numpy(COLOURED[:3]))
WARMING = ELBOConfig(warmup_steps=8)


def draws(seed: int = 0) -> SharedNoise:
    return SharedNoise(torch.Generator().manual_seed(seed))


def eps_of(network: NVAE, seed: int = 0) -> Latents:
    """Return the whitened noise that an update with this seed draws."""
    dtype = network.prior_ftr0.dtype
    return draws(seed)(tuple(torch.empty(len(X), *shape, dtype=dtype) for shape in network.latent_shapes))


def in_training(config=HIERARCHY) -> RegularisedNVAE:
    """Return a model in float64 whose batch norms are those of training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return RegularisedNVAE(backbone(config).double().train())


def objective(model: RegularisedNVAE, config: ELBOConfig, step: int = 0) -> Tensor:
    return BackboneOnly(config).update(model, X.double(), draws(), step).loss()


# ---- value and gradient


def test_value_of_one_group_in_closed_form() -> None:
    """Weight x KL(q | N(0, 1.01^2)) - log N(x; decoder), with torch's own Gaussians; at the draw of the given noise."""
    model = in_training(ONE_GROUP)
    network, x = model.backbone, X.double()
    eps = eps_of(network)
    with torch.no_grad():
        ((_, q, drawn, latents),) = network.posterior_steps(x, eps)
        torch.testing.assert_close(drawn, q.mean + q.sigma * eps[0])
        assert torch.equal(latents, drawn)  # no flow
        kl = kl_divergence(Normal(q.mean, q.sigma), Normal(torch.zeros_like(q.mean), 1.01)).sum((1, 2, 3))
        decoder = network.decode((latents,))
        log_likelihood = Normal(decoder.mean, decoder.sigma).log_prob(x).sum((1, 2, 3))  # type: ignore[attr-defined]
        update = BackboneOnly(WARMING).update(model, x, draws(), step=3)
    expected = 3 / 8 * kl.mean() - log_likelihood.mean()
    torch.testing.assert_close(update.loss(), expected, rtol=1e-12, atol=0)
    figures = update.figures()
    torch.testing.assert_close(figures["negative_elbo"], (kl - log_likelihood).mean(), rtol=1e-12, atol=0)
    torch.testing.assert_close(figures["kl/z1"], kl.mean(), rtol=1e-12, atol=0)
    assert float(figures["kl_weight"]) == 3 / 8
    assert kl.min() > 0.1


@pytest.mark.parametrize(
    "name",
    [
        "prior_ftr0",
        "stem.weight",
        "stem.log_weight_norm",
        "pre_process.0._ops.0.bn_act.weight",
        "enc_sampler.0.weight",
        "dec_tower.0.conv.weight",
        "post_process.0._ops.0.conv.2.conv.0.weight",
        "image_conditional.1.bias",
    ],
)
def test_gradient_against_finite_differences(name: str) -> None:
    """Along a random direction of one parameter, in float64 with fixed noise.

    A detached path (the draw, the log-density's own parameters, a batch statistic) breaks it.
    """
    model = in_training(ONE_GROUP)
    parameter = model.backbone.get_parameter(name)
    (gradient,) = torch.autograd.grad(objective(model, WARMING, step=3), parameter)
    direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4), dtype=parameter.dtype)
    slope, h = float((gradient * direction).sum()), 1e-5
    values = []
    with torch.no_grad():
        for sign in (1, -1):
            parameter.add_(sign * h * direction)
            values.append(float(objective(model, WARMING, step=3)))
            parameter.sub_(sign * h * direction)
    assert (values[0] - values[1]) / (2 * h) == pytest.approx(slope, rel=1e-5, abs=1e-5)
    assert abs(slope) > 1e-3, "a gradient of zero would prove nothing"


# ---- warm-up and balancing


def test_the_weight_of_the_kl_rises_to_one() -> None:
    """Linear in the updates made before, from its least value, and 1 ever after."""
    weights = [ELBOConfig(warmup_steps=8, least_weight=0.2).kl_weight(step) for step in (0, 1, 2, 4, 8, 9, 1000)]
    assert weights == [0.2, 0.2, 0.25, 0.5, 1.0, 1.0, 1.0]
    assert [ELBOConfig().kl_weight(step) for step in (0, 1)] == [1e-4, 1.0]


def test_balance_factors() -> None:
    """Mean 1; all ones where KL goes with size; the larger a group's KL, the larger its factor and no other's."""
    sizes = torch.tensor([1.0, 1.0, 4.0, 4.0], dtype=torch.float64)
    torch.testing.assert_close(balance(3.0 * sizes - 1e-2, sizes), torch.ones_like(sizes), rtol=1e-14, atol=0)
    kl = torch.tensor([0.5, 2.0, 0.1, 30.0], dtype=torch.float64)
    factors = balance(kl, sizes)
    assert float(factors.mean()) == pytest.approx(1, rel=1e-14)
    for group in range(4):
        more = kl.clone()
        more[group] += 1
        difference = balance(more, sizes) - factors
        assert difference[group] > 0
        assert (difference[torch.arange(4) != group] < 0).all()
    # Twice the size at the same KL is half the factor, before the mean is taken out.
    wider = balance(kl, sizes * torch.tensor([2.0, 1.0, 1.0, 1.0]))
    torch.testing.assert_close(wider[1:] / wider[0], 2 * factors[1:] / factors[0], rtol=1e-14, atol=0)


def test_sizes_go_with_the_latents_of_a_scale() -> None:
    """Four times as many positions at every doubling, over the number of groups that share them; top first."""
    two = dataclasses.replace(HIERARCHY, num_latent_scales=2)
    assert _sizes(two, torch.zeros(4)).tolist() == [1, 1, 4, 4]
    adaptive = dataclasses.replace(two, num_groups_per_scale=4, ada_groups=True)
    assert adaptive.groups() == (4, 2)
    assert _sizes(adaptive, torch.zeros(6)).tolist() == [1, 1, 2, 2, 2, 2]


def test_balancing_ends_with_the_warm_up() -> None:
    """Weighted by `balance` before the weight is 1, plain ever after; its factors carry no gradient."""
    model, plain = in_training(), dataclasses.replace(WARMING, balanced=False)
    with torch.no_grad():
        terms = model.backbone.elbo_terms(X.double(), eps_of(model.backbone))
    kl, fit = terms.kl.mean(1), terms.log_likelihood.mean()
    factors = balance(kl, _sizes(HIERARCHY, kl))
    torch.testing.assert_close(objective(model, WARMING, 4), 0.5 * (factors * kl).sum() - fit, rtol=1e-12, atol=0)
    torch.testing.assert_close(objective(model, plain, 4), 0.5 * kl.sum() - fit, rtol=1e-12, atol=0)
    assert (factors - 1).abs().max() > 0.01
    for step in (8, 9):
        assert torch.equal(objective(model, WARMING, step), objective(model, plain, step))
        torch.testing.assert_close(objective(model, WARMING, step), kl.sum() - fit, rtol=1e-12, atol=0)

    weights = [model.backbone.stem.weight]
    balanced = torch.autograd.grad(objective(model, WARMING, 4), weights)
    live = model.backbone.elbo_terms(X.double(), eps_of(model.backbone))
    by_hand = torch.autograd.grad(0.5 * (factors * live.kl.mean(1)).sum() - live.log_likelihood.mean(), weights)
    torch.testing.assert_close(balanced, by_hand, rtol=1e-9, atol=1e-11)


def test_the_penalty_is_added_with_its_weight() -> None:
    """Spectral norms and batch norm scales, after the power method has gone on by one call."""
    model = in_training()
    with torch.no_grad():
        plain = objective(model, WARMING)
        penalised = objective(model, dataclasses.replace(WARMING, spectral=0.3))
        for _ in range(3):
            penalty = model.spectral_norms() + model.batch_norm_scales()
    # The estimates of the norms still rise a little from call to call.
    assert float(penalised - plain) == pytest.approx(0.3 * float(penalty), rel=0.02)


# ---- flows


@torch.no_grad()
def test_with_flows_the_kl_is_a_ratio_at_the_draw() -> None:
    """Summed over groups it is log q(z|x) - log p0(z), q before the flows and p after them; else the closed form."""
    network = backbone(dataclasses.replace(HIERARCHY, num_nf=1)).double()
    assert len(network.nf_cells) == 2
    x, eps = X.double(), eps_of(network)
    terms = network.elbo_terms(x, eps)
    sample = network.posterior(x, lambda like: eps)
    for ours, theirs in zip(terms.latents, sample.latents, strict=True):
        assert torch.equal(ours, theirs)
    ratio = sample.log_prob - network.prior_log_prob(sample.latents)
    torch.testing.assert_close(terms.kl.sum(0), ratio, rtol=1e-11, atol=1e-9)
    for (step, q, drawn, latents), kl in zip(network.posterior_steps(x, eps), terms.kl, strict=True):
        assert (latents - drawn).abs().max() > 0.01
        p = Normal(step.prior.mean, step.prior.sigma)
        by_hand = (Normal(q.mean, q.sigma).log_prob(drawn) - p.log_prob(latents)).sum((1, 2, 3))
        torch.testing.assert_close(kl, by_hand, rtol=1e-11, atol=1e-9)

    plain = backbone().double()
    terms = plain.elbo_terms(x, eps)
    for (step, q, _, _), kl in zip(plain.posterior_steps(x, eps), terms.kl, strict=True):
        closed = kl_divergence(Normal(q.mean, q.sigma), Normal(step.prior.mean, step.prior.sigma)).sum((1, 2, 3))
        torch.testing.assert_close(kl, closed, rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("kind", [FlowPair, lambda channels: FlowCell(channels, mirror=True)])
def test_a_flow_keeps_the_volume(kind) -> None:
    """Its Jacobian, by autograd, has determinant 1 far from the identity: a mask that sees too much breaks it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        flow = kind(2).double().requires_grad_(False)
    for module in flow.modules():
        if isinstance(module, MaskedConv):  # as it is initialised it hardly moves anything
            module.log_weight_norm.add_(1.0)
    z = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda flat: flow(flat.reshape(z.shape)).flatten(), z.flatten())
    sign, log_det = torch.linalg.slogdet(jacobian)
    assert float(sign) == 1
    assert float(log_det) == pytest.approx(0, abs=1e-8)
    assert (jacobian - torch.eye(32, dtype=torch.float64)).abs().max() > 0.1


# ---- bf16


def test_bf16_is_of_the_layers_alone() -> None:
    """Latents, densities and gradients are float32 and finite, near those of float32 and not the same."""
    updates = {}
    for precision in ("float32", "bf16"):
        model = RegularisedNVAE(backbone().train())
        update = BackboneOnly(ELBOConfig(warmup_steps=8, precision=precision)).update(model, X, draws(), step=8)
        update.loss().backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert len(gradients) > 20
        for value in (*update.terms.latents, update.terms.kl, update.terms.log_likelihood, update.loss(), *gradients):
            assert value.dtype == torch.float32
            assert torch.isfinite(value).all()
        updates[precision] = update
    full, half = updates["float32"], updates["bf16"]
    for name in ("kl", "log_likelihood"):
        ours, theirs = getattr(half.terms, name), getattr(full.terms, name)
        assert not torch.equal(ours, theirs)
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05)
    for ours, theirs in zip(half.terms.latents, full.terms.latents, strict=True):
        assert (ours - theirs).abs().mean() < 0.05


# ---- what cannot be meant


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ELBOConfig(warmup_steps=0), "warmup_steps"),
        (lambda: ELBOConfig(least_weight=0.0), "least_weight"),
        (lambda: ELBOConfig(spectral=-0.1), "spectral"),
        (lambda: AdamaxConfig(lr=1e-3, least_lr=1e-2), "least_lr"),
        (lambda: AdamaxConfig(ema_decay=1.0), "ema_decay"),
        (lambda: AdamaxConfig(weight_decay=-1.0), "weight_decay"),
        (lambda: AdamaxConfig(largest_gradient=0.0), "largest_gradient"),
        (lambda: dataclasses.replace(HIERARCHY, num_postprocess_blocks=2), "num_postprocess_blocks must be equal"),
        (lambda: dataclasses.replace(HIERARCHY, num_preprocess_cells=0), "num_preprocess_cells"),
        (lambda: dataclasses.replace(HIERARCHY, image_size=15), "15 pixels cannot be halved 1 times"),
        (lambda: dataclasses.replace(HIERARCHY, num_groups_per_scale=0), "one group per scale"),
    ],
)
def test_settings_that_could_not_learn_are_sentences(make, sentence: str) -> None:
    """Said when the configuration is made, not by a training that stands still or a shape that does not fit."""
    with pytest.raises(UserError, match=sentence):
        make()
