"""The gradient of log p(x|z) written out is autograd's to the bit, and is taken only where it holds."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn

from jlebm.backbones import layers
from jlebm.backbones.conv import ConvBackbone, ConvConfig
from jlebm.densities import Posterior
from jlebm.distributions import Normal
from jlebm.energies import mlp_energy
from jlebm.engines.decoder_gradient import DecoderLikelihood
from jlebm.engines.gradients import Autograd, PosteriorField, field_of
from jlebm.latents import Latents

CONFIG = ConvConfig((3, 16, 16), latent_dims=(5, 7), channels=(12, 8, 4), conditional_hidden=(6,))


def backbone(config: ConvConfig = CONFIG) -> ConvBackbone:
    torch.manual_seed(0)
    return ConvBackbone(config)


def position(of: ConvBackbone, batch: int = 6) -> Latents:
    generator = torch.Generator().manual_seed(1)
    like = next(of.parameters())
    return tuple(torch.randn(batch, size, generator=generator).to(like) for size in of.latent_dims)


def posterior(of: ConvBackbone, batch: int = 6) -> Posterior:
    x = torch.rand(batch, *of.config.image_shape, generator=torch.Generator().manual_seed(2)) * 2 - 1
    energy = mlp_energy(of.latent_dims, [(6,)] * len(of.latent_dims))
    return Posterior(of, energy.to(next(of.parameters())), x.to(next(of.parameters())))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "config",
    [CONFIG, ConvConfig((1, 4, 4), (3,), channels=(5,)), dataclasses.replace(CONFIG, likelihood_sigma=0.7)],
    ids=["three", "one-layer", "sigma"],
)
def test_value_and_gradient_have_autograds_bits(
    config: ConvConfig, layout: torch.memory_format, dtype: torch.dtype
) -> None:
    """In every layer of latents; breaks if an operation is another than autograd's, or reads what a ReLU overwrote.

    The weights keep their values and get no gradient, and a gradient that was returned is not written to again.
    """
    one = backbone(config).to(dtype)
    one = one.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    density, z = posterior(one), position(one)
    field, by_autograd = DecoderLikelihood.of(one, density.x), Autograd(density.log_likelihood)
    assert field is not None
    before = [parameter.clone() for parameter in one.parameters()]
    value, gradient = field.value_and_gradient(z)
    expected, theirs = by_autograd.value_and_gradient(z)
    other = field.gradient(tuple(2 * layer for layer in z))
    assert torch.equal(value, expected)
    assert all(torch.equal(a, b) for a, b in zip(gradient, theirs, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(field.gradient(z), theirs, strict=True))
    assert not torch.equal(other[-1], gradient[-1])
    assert all(torch.equal(a, b) for a, b in zip(before, one.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in one.parameters())


def test_through_a_product_it_is_autograds_to_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autograd keeps the convolution; breaks if a wide layer's product loses its bias or gets another's gradient."""
    monkeypatch.setattr(layers, "MANY_WEIGHTS", 12 * 8 * 16)
    one = backbone().double()
    density, z = posterior(one), position(one)
    field = DecoderLikelihood.of(one, density.x)
    assert field is not None
    found = field.value_and_gradient(z)
    torch.testing.assert_close(found, Autograd(density.log_likelihood).value_and_gradient(z), rtol=1e-12, atol=1e-12)
    monkeypatch.setattr(layers, "MANY_WEIGHTS", 2**62)
    assert not torch.equal(found[1][-1], field.gradient(z)[-1])  # it was a product


def test_the_posteriors_field_takes_it() -> None:
    """Breaks if posterior chains of the paper's generator go through autograd."""
    field = field_of(posterior(backbone()))
    assert isinstance(field, PosteriorField)
    assert isinstance(field.likelihood, DecoderLikelihood)


class Dimmed(ConvBackbone):
    """A backbone with a p(x|z) of its own."""

    def decode(self, z: Latents) -> Normal:
        """Return half the mean."""
        mean, sigma = super().decode(z)
        return Normal(mean / 2, sigma)


def hooked(one: ConvBackbone) -> ConvBackbone:
    one.generator[3].register_forward_hook(lambda module, inputs, output: 2 * output)
    return one


def replaced(one: ConvBackbone) -> ConvBackbone:
    one.generator[4] = nn.ELU()
    return one


def steeper(one: ConvBackbone) -> ConvBackbone:
    one.generator[2] = nn.LeakyReLU(0.3, inplace=True)
    return one


def normalised(one: ConvBackbone) -> ConvBackbone:
    nn.utils.parametrizations.weight_norm(one.generator[3])
    return one


@pytest.mark.parametrize(
    "changed",
    [
        hooked,
        replaced,
        steeper,
        normalised,
        lambda one: Dimmed(one.config),
        lambda one: ConvBackbone(dataclasses.replace(one.config, precision="bf16")),
    ],
    ids=["hook", "activation", "slope", "weight-norm", "own-decode", "bf16"],
)
def test_anything_else_goes_through_autograd(changed: Callable[[ConvBackbone], ConvBackbone]) -> None:
    """A generator that only looks like the paper's gets the gradient of what it computes."""
    field = field_of(posterior(changed(backbone())))
    assert isinstance(field.likelihood if isinstance(field, PosteriorField) else field, Autograd)
