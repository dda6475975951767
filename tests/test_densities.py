"""Which density is which: sign of the energy, the Jacobian in noise space, the likelihood in the posterior."""

import torch

from jlebm.densities import Posterior, PriorInLatents, PriorInNoise
from jlebm.energies import no_energy
from jlebm.engines.gradients import Autograd
from jlebm.latents import Latents, standard_normal_log_prob
from tests.linear import linear_model

MODEL = linear_model()


def draw(batch: int, seed: int = 0) -> Latents:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, d, generator=generator, dtype=torch.float64) for d in (2, 3))


def test_lower_energy_is_more_likely() -> None:
    """p(z) is proportional to exp(-E(z)) p0(z): of two points the log-ratio is that of p0 minus the energies' gap."""
    a, b = draw(1, 1), draw(1, 2)
    density = PriorInLatents(MODEL.backbone, MODEL.energy)
    gap = MODEL.energy(a).sum() - MODEL.energy(b).sum()
    base = MODEL.backbone.prior_log_prob(a) - MODEL.backbone.prior_log_prob(b)
    torch.testing.assert_close(density(a) - density(b), base - gap)


def test_energy_is_minus_the_networks_output() -> None:
    """The networks are the paper's f, higher is more likely; each layer's energy is its own column, top first."""
    z = draw(4)
    for index, network in enumerate(MODEL.energy.networks):
        torch.testing.assert_close(MODEL.energy(z)[:, index], -network(z[index])[:, 0])


def test_zero_energy_leaves_the_standard_normal_in_noise_space() -> None:
    """With E = 0 the exact drift is -eps; the released one is not, unless every sigma is constant."""
    model = linear_model((0.0, 0.0))
    for network in model.energy.networks:
        torch.nn.init.zeros_(network.shift)
    eps = draw(6)
    _, exact = Autograd(PriorInNoise(model.backbone, model.energy)).value_and_gradient(eps)
    for gradient, layer in zip(exact, eps, strict=True):
        torch.testing.assert_close(gradient, -layer)


def test_no_energy_leaves_the_gaussian_hierarchy() -> None:
    """Without energies the EBM prior is p0, in latents and in noise, and there is nothing to learn."""
    energy = no_energy(2)
    z = draw(4)
    torch.testing.assert_close(PriorInLatents(MODEL.backbone, energy)(z), MODEL.backbone.prior_log_prob(z))
    value, gradient = Autograd(PriorInNoise(MODEL.backbone, energy)).value_and_gradient(z)
    torch.testing.assert_close(value, standard_normal_log_prob(z))
    assert all(torch.equal(g, -layer) for g, layer in zip(gradient, z, strict=True))
    assert energy(z).shape == (4, 2)
    assert not list(energy.parameters())


def test_released_drift_lacks_the_jacobian() -> None:
    """The two drifts differ by the gradient of -sum log sigma(z above), and agree where sigma is constant."""
    from jlebm.backbones.conv import ConvBackbone, ConvConfig
    from jlebm.energies import mlp_energy

    torch.manual_seed(0)
    config = ConvConfig(image_shape=(1, 4, 4), latent_dims=(2, 3), channels=(4,), conditional_hidden=(8,))
    backbone, energy = ConvBackbone(config).double(), mlp_energy((2, 3), ((4,), (4,))).double()
    eps = draw(6)
    _, exact = Autograd(PriorInNoise(backbone, energy)).value_and_gradient(eps)
    _, released = Autograd(PriorInNoise(backbone, energy, "released")).value_and_gradient(eps)

    def minus_log_sigma(noise: Latents) -> torch.Tensor:
        return -backbone.conditionals[0](backbone.push(noise)[0]).sigma.log().sum(1)

    _, extra = Autograd(minus_log_sigma).value_and_gradient(eps)
    for e, r, x in zip(exact, released, extra, strict=True):
        torch.testing.assert_close(r, e + x, rtol=1e-10, atol=1e-12)
    assert extra[0].abs().max() > 1e-3

    linear = linear_model()  # its sigma does not depend on the layer above
    same = [
        Autograd(PriorInNoise(linear.backbone, linear.energy, d)).value_and_gradient(eps)[1]
        for d in ("exact", "released")
    ]
    for e, r in zip(*same, strict=True):
        torch.testing.assert_close(e, r)


def test_noise_space_and_latent_space_are_one_density() -> None:
    """Log p(eps) = log p(z) + log |det dT/deps| for the exact form, up to the common constant."""
    values = []
    for seed in (1, 2):
        eps = draw(1, seed)
        log_det = linear_model().backbone.log_sigma.sum()  # T is linear with a triangular Jacobian
        in_noise = PriorInNoise(MODEL.backbone, MODEL.energy)(eps)
        in_latents = PriorInLatents(MODEL.backbone, MODEL.energy)(MODEL.backbone.push(eps))
        values.append(in_noise - in_latents - log_det)
    torch.testing.assert_close(values[0], values[1])
    torch.testing.assert_close(values[0], torch.zeros_like(values[0]), rtol=0, atol=1e-12)


def test_posterior_is_prior_times_likelihood() -> None:
    """Row i belongs to image i, and the likelihood enters once."""
    z, x = draw(3), torch.randn(3, 1, 1, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    likelihood = torch.distributions.Normal(z[1] @ MODEL.backbone.loading.T, 0.5).log_prob(x[:, 0, 0]).sum(1)
    expected = PriorInLatents(MODEL.backbone, MODEL.energy)(z) + likelihood
    torch.testing.assert_close(Posterior(MODEL.backbone, MODEL.energy, x)(z), expected)


def test_standard_normal_log_prob() -> None:
    """Over all layers, with its constant."""
    z = draw(4)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(torch.cat(z, 1)).sum(1)
    torch.testing.assert_close(standard_normal_log_prob(z), expected)
