"""The gradients of learning against closed forms, on a hierarchy where all expectations are exact."""

import pytest
import torch
from torch import Tensor

from jlebm.backbones.protocol import PosteriorSample
from jlebm.densities import Posterior, PriorInLatents
from jlebm.energies import no_energy
from jlebm.model import JointModel
from jlebm.objectives import Losses, contrastive_loss, maximum_likelihood_loss, variational_loss
from tests.linear import Quadratic, linear_model, split

X = torch.tensor([[[[0.3, -0.8, 1.1, 0.2]]]], dtype=torch.float64)


def gradients(value: Tensor, model: JointModel) -> dict[str, Tensor]:
    """Differentiate by every parameter; zeros where one does not matter."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))


@pytest.fixture
def exact() -> tuple[JointModel, dict[str, Tensor], Losses]:
    """The model, the gradient of its exact log-likelihood, and the loss at exact quadrature points."""
    model = linear_model()
    prior = Quadratic(lambda z: PriorInLatents(model.backbone, model.energy)(split(z))[0])
    posterior = Quadratic(lambda z: Posterior(model.backbone, model.energy, X)(split(z))[0])
    log_likelihood = posterior.log_integral() - prior.log_integral()
    points = posterior.cubature()
    x = X.expand(len(points[0]), -1, -1, -1)
    losses = maximum_likelihood_loss(model, x, points, prior.cubature())
    return model, gradients(log_likelihood, model), losses


def test_gradient_is_that_of_the_log_likelihood(exact: tuple[JointModel, dict[str, Tensor], Losses]) -> None:
    """Any wrong sign, a missing expectation or a mean in place of a sum in any of the gradient's terms shows."""
    model, truth, losses = exact
    for name, gradient in gradients(losses.total(), model).items():
        torch.testing.assert_close(-gradient, truth[name], rtol=1e-9, atol=1e-11, msg=name)
    assert all(value.abs().max() > 1e-3 for value in truth.values()), "a gradient of zero would prove nothing"


def test_the_conditional_needs_its_prior_side(exact: tuple[JointModel, dict[str, Tensor], Losses]) -> None:
    """Without E[grad log p0(z-)] the conditional's gradient is wrong: Z depends on the Gaussian hierarchy too."""
    model, truth, _ = exact
    posterior = Quadratic(lambda z: Posterior(model.backbone, model.energy, X)(split(z))[0])
    one_sided = -model.backbone.prior_log_prob(posterior.cubature()).mean()
    for name, gradient in gradients(one_sided, model).items():
        if name.split(".")[-1] in ("weight", "bias", "log_sigma"):
            assert (truth[name] + gradient).abs().max() > 0.05, name


def test_zero_energy_makes_the_prior_side_vanish() -> None:
    """With f = 0 the second expectation is that of a score under its own density: zero."""
    model = linear_model((0.0, 0.0))
    for network in model.energy.networks:
        torch.nn.init.zeros_(network.shift)
    prior = Quadratic(lambda z: PriorInLatents(model.backbone, model.energy)(split(z))[0])
    term = model.backbone.prior_log_prob(prior.cubature()).mean()
    for name in ("weight", "bias", "log_sigma"):
        (gradient,) = torch.autograd.grad(term, getattr(model.backbone, name), retain_graph=True)
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


def test_without_energies_the_posteriors_half_is_the_whole_gradient() -> None:
    """Minus the exact gradient of log p(x), whatever prior samples are given: what posterior chains alone need.

    Breaks if a prior sample's score still reaches p0, or if the posterior's half has another sign or weight.
    """
    model = JointModel(linear_model().backbone, no_energy(2))
    posterior = Quadratic(lambda z: Posterior(model.backbone, model.energy, X)(split(z))[0])
    points = posterior.cubature()
    anywhere = tuple(layer + 3 for layer in points)
    x = X.expand(len(points[0]), -1, -1, -1)
    losses = maximum_likelihood_loss(model, x, points, anywhere, conditional_gradient="posterior")
    truth = gradients(posterior.log_integral(), model)
    for name, gradient in gradients(losses.total(), model).items():
        torch.testing.assert_close(-gradient, truth[name], rtol=1e-9, atol=1e-11, msg=name)
    assert all(value.abs().max() > 1e-3 for value in truth.values()), "a gradient of zero would prove nothing"
    exact = maximum_likelihood_loss(model, x, points, anywhere)
    torch.testing.assert_close(losses, exact)
    assert not torch.allclose(gradients(exact.total(), model)["backbone.bias"], -truth["backbone.bias"])


def test_variational_gradient_is_that_of_the_bound() -> None:
    """With q = N(m, S) the ELBO is exact by quadrature, and its maximum over q is the log-likelihood."""
    model = linear_model()
    prior = Quadratic(lambda z: PriorInLatents(model.backbone, model.energy)(split(z))[0])
    posterior = Quadratic(lambda z: Posterior(model.backbone, model.energy, X)(split(z))[0])
    q_mean = torch.linalg.solve(posterior.precision, posterior.linear).detach().requires_grad_()
    q_root = torch.linalg.cholesky(torch.linalg.inv(posterior.precision)).detach().requires_grad_()

    def loss() -> Tensor:
        steps = torch.cat([torch.eye(5, dtype=torch.float64), -torch.eye(5, dtype=torch.float64)]) * 5**0.5
        z = q_mean + steps @ q_root.T
        log_q = torch.distributions.MultivariateNormal(q_mean, scale_tril=q_root).log_prob(z)
        sample = PosteriorSample((z[:, :2], z[:, 2:]), log_q)
        return variational_loss(model, X.expand(10, -1, -1, -1), sample, prior.cubature()).total()

    log_z = prior.log_integral()
    # At the true posterior the bound is tight: value, gradient in the parameters, zero gradient in q.
    negative = PriorInLatents(model.backbone, model.energy)(prior.cubature()).mean()
    torch.testing.assert_close(-(loss() - negative) - log_z, posterior.log_integral() - log_z, rtol=1e-10, atol=1e-10)
    truth = gradients(posterior.log_integral() - log_z, model)
    for name, gradient in gradients(loss(), model).items():
        torch.testing.assert_close(-gradient, truth[name], rtol=1e-8, atol=1e-10, msg=name)
    for gradient in torch.autograd.grad(loss(), (q_mean, q_root)):
        torch.testing.assert_close(
            torch.tril(torch.atleast_2d(gradient)), torch.zeros_like(torch.atleast_2d(gradient)), rtol=0, atol=1e-9
        )


def test_a_kl_in_closed_form_changes_no_gradient() -> None:
    """KL(q | p0) known exactly, in place of log q - log p0 at the draws: the same bound in the model and in q.

    By quadrature both are exact. A p0 that is left in `conditional`, and so counted twice, breaks it.
    """
    model = linear_model()
    prior = Quadratic(lambda z: PriorInLatents(model.backbone, model.energy)(split(z))[0])
    q_mean = torch.linspace(-0.5, 0.7, 5, dtype=torch.float64).requires_grad_()
    q_root = torch.diag(torch.linspace(0.3, 0.9, 5, dtype=torch.float64)).requires_grad_()
    steps = torch.cat([torch.eye(5, dtype=torch.float64), -torch.eye(5, dtype=torch.float64)]) * 5**0.5
    z = q_mean + steps @ q_root.T
    q = torch.distributions.MultivariateNormal(q_mean, scale_tril=q_root)
    base = Quadratic(lambda z: model.backbone.prior_log_prob(split(z))[0])
    p0 = torch.distributions.MultivariateNormal(torch.linalg.solve(base.precision, base.linear), None, base.precision)
    kl = torch.distributions.kl_divergence(q, p0)
    sample = PosteriorSample((z[:, :2], z[:, 2:]), q.log_prob(z))
    x = X.expand(10, -1, -1, -1)
    parameters = (*model.parameters(), q_mean, q_root)
    found = []
    for one in (sample, sample._replace(kl=kl.expand(1, 10))):
        loss = variational_loss(model, x, one, prior.cubature(), 0.1).total()
        found.append((loss, *torch.autograd.grad(loss, parameters, retain_graph=True)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def test_the_posteriors_half_is_that_of_a_vae() -> None:
    """Without the prior's half p0's parameters have the gradient of a model without energies; no other one changes.

    A value that changes with it, or an energy's gradient that is stopped too, breaks this.
    """
    model = linear_model()
    generator = torch.Generator().manual_seed(5)
    z, prior = (
        tuple(torch.randn(4, width, dtype=torch.float64, generator=generator) for width in (2, 3)) for _ in range(2)
    )
    sample, x = PosteriorSample(z, torch.zeros(4, dtype=torch.float64)), X.expand(4, -1, -1, -1)
    exact, one_sided = (variational_loss(model, x, sample, prior, 0.1, which) for which in ("exact", "posterior"))
    torch.testing.assert_close(one_sided, exact)
    whole, half = gradients(exact.total(), model), gradients(one_sided.total(), model)
    vae = gradients(exact.reconstruction - model.backbone.prior_log_prob(z).mean(), model)
    away = gradients(exact.conditional, model)
    moved = {name for name in whole if not torch.equal(whole[name], half[name])}
    assert moved == {name for name, gradient in away.items() if gradient.any()} != set()
    for name in moved:
        torch.testing.assert_close(half[name], vae[name])


def test_penalty_is_the_mean_of_squared_energies() -> None:
    """The penalty counts both sides and nothing else; at weight 0 it is exactly absent."""
    model = linear_model()
    z = (torch.ones(3, 2, dtype=torch.float64), torch.full((3, 3), 0.5, dtype=torch.float64))
    x = X.expand(3, -1, -1, -1)
    squares = model.energy(z).square().sum(1).mean()
    torch.testing.assert_close(maximum_likelihood_loss(model, x, z, z, 0.25).penalty, 0.5 * squares)
    assert maximum_likelihood_loss(model, x, z, z).penalty == 0


def test_penalty_never_trains_the_inference_network() -> None:
    """It is a wish about the energies: through reparametrised samples it would move q(z|x) away from its bound."""
    model = linear_model()
    z = (torch.ones(3, 2, dtype=torch.float64), torch.full((3, 3), 0.5, dtype=torch.float64))
    moving = tuple(layer.clone().requires_grad_() for layer in z)
    sample = PosteriorSample(moving, torch.zeros(3, dtype=torch.float64))
    penalty = variational_loss(model, X.expand(3, -1, -1, -1), sample, z, 0.25).penalty
    assert penalty > 0
    for gradient in torch.autograd.grad(penalty, moving, materialize_grads=True):
        assert not gradient.any()


def pairs() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return four samples for each side."""
    generator = torch.Generator().manual_seed(3)
    return tuple(  # type: ignore[return-value]
        tuple(torch.randn(4, d, generator=generator, dtype=torch.float64) for d in (2, 3)) for _ in range(2)
    )


def test_the_contrastive_loss_is_the_energies_part_of_the_likelihoods() -> None:
    """The same energies and penalty, nothing else, and the same gradient in every weight of the energies."""
    model = linear_model()
    posterior, prior = pairs()
    part = contrastive_loss(model.energy, posterior, prior, 0.25)
    whole = maximum_likelihood_loss(model, X.expand(4, -1, -1, -1), posterior, prior, 0.25)
    torch.testing.assert_close(part.energy, whole.energy, rtol=0, atol=0)
    torch.testing.assert_close(part.penalty, whole.penalty, rtol=0, atol=0)
    assert (float(part.reconstruction), float(part.conditional), float(part.entropy)) == (0, 0, 0)
    ours, theirs = gradients(part.total(), model), gradients(whole.total(), model)
    for name, gradient in ours.items():
        if name.startswith("energy."):
            torch.testing.assert_close(gradient, theirs[name], rtol=1e-13, atol=0)
            assert gradient.abs().max() > 1e-3
        else:
            assert not gradient.any(), name


def test_prior_samples_may_be_of_any_number() -> None:
    """Breaks if an expectation over the prior were a sum over as many samples as there are images: it is a mean."""
    model = linear_model()
    posterior, prior = pairs()
    twice = tuple(torch.cat([layer, layer]) for layer in prior)
    x = X.expand(4, -1, -1, -1)
    torch.testing.assert_close(
        maximum_likelihood_loss(model, x, posterior, twice, 0.25),
        maximum_likelihood_loss(model, x, posterior, prior, 0.25),
    )


def test_gradient_of_the_contrastive_loss_by_hand() -> None:
    """E = c |z|^2 / 2 - s . z: in s the mean of z- minus that of z+, in c half the squares of z+ minus those of z-."""
    model = linear_model()
    posterior, prior = pairs()
    found = gradients(contrastive_loss(model.energy, posterior, prior).total(), model)
    for index, (positive, negative) in enumerate(zip(posterior, prior, strict=True)):
        shift, curvature = (found[f"energy.networks.{index}.{name}"] for name in ("shift", "curvature"))
        torch.testing.assert_close(shift, negative.mean(0) - positive.mean(0), rtol=1e-12, atol=1e-14)
        half = 0.5 * (positive.square().sum(1).mean() - negative.square().sum(1).mean())
        torch.testing.assert_close(curvature, half, rtol=1e-12, atol=1e-14)
