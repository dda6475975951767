"""The two-layer generator: its density against its sampler, its sizes against the published ones."""

import dataclasses

import pytest
import torch
from torch import nn

from jlebm.backbones import layers
from jlebm.backbones.conv import ConvBackbone, ConvConfig
from jlebm.backbones.layers import Doubling, FromPoint
from jlebm.backbones.protocol import Backbone, NoEncoder
from jlebm.energies import mlp_energy
from jlebm.errors import UserError
from jlebm.latents import Latents, standard_normal_log_prob
from jlebm.randomness import SharedNoise

SMALL = ConvConfig(
    image_shape=(1, 8, 8), latent_dims=(2, 3, 4), channels=(6, 5), conditional_hidden=(7,), inference_network=True
)


@pytest.fixture
def backbone() -> ConvBackbone:
    torch.manual_seed(3)
    return ConvBackbone(SMALL).double()


def noise(batch: int, seed: int = 0) -> Latents:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, d, generator=generator, dtype=torch.float64) for d in SMALL.latent_dims)


def test_push_and_prior_log_prob_agree_by_change_of_variables(backbone: ConvBackbone) -> None:
    """Log p0(T(eps)) = log N(eps) - log |det dT/deps|: a sigma that is read differently by the two breaks it."""

    def flat_push(eps: torch.Tensor) -> torch.Tensor:
        z = backbone.push(tuple(part[None] for part in eps.split(SMALL.latent_dims)))
        return torch.cat([layer[0] for layer in z])

    for seed in range(3):
        eps = noise(1, seed)
        jacobian = torch.autograd.functional.jacobian(flat_push, torch.cat([layer[0] for layer in eps]))
        expected = standard_normal_log_prob(eps)[0] - torch.linalg.slogdet(jacobian)[1]
        torch.testing.assert_close(backbone.prior_log_prob(backbone.push(eps))[0], expected, rtol=1e-12, atol=1e-12)


def test_posterior_log_prob_is_the_density_of_its_draws(backbone: ConvBackbone) -> None:
    """Log q(z|x) by change of variables through the reparametrisation, noise to latents."""
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    eps = noise(1)

    def draw(flat: torch.Tensor) -> torch.Tensor:
        parts = tuple(part[None] for part in flat.split(SMALL.latent_dims))
        return torch.cat([layer[0] for layer in backbone.posterior(x, lambda like: parts).latents])

    jacobian = torch.autograd.functional.jacobian(draw, torch.cat([layer[0] for layer in eps]))
    expected = standard_normal_log_prob(eps)[0] - torch.linalg.slogdet(jacobian)[1]
    found = backbone.posterior(x, lambda like: eps).log_prob[0]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_published_sizes() -> None:
    """18.88 M parameters in the generator, 0.19 M in p(z1|z2), 0.106 M and 0.020 M in the energies.

    Published: docs/facts, "Training settings".
    """

    def count(module: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    backbone = ConvBackbone(ConvConfig())
    assert count(backbone.generator) == pytest.approx(18.88e6, abs=5e3)
    assert count(backbone.conditionals) == pytest.approx(0.19e6, abs=5e3)
    top, bottom = mlp_energy((100, 128), ((100, 100), (200, 200, 200))).networks
    assert count(bottom) == pytest.approx(0.106e6, abs=5e2)
    assert count(top) == pytest.approx(0.020e6, abs=5e2)
    assert isinstance(backbone, Backbone)


def test_images_have_the_datas_shape_and_range(backbone: ConvBackbone) -> None:
    """The decoder's mean is an image in [-1, 1], with the configured sigma."""
    likelihood = backbone.decode(backbone.push(noise(5)))
    assert likelihood.mean.shape == (5, 1, 8, 8)
    assert likelihood.mean.abs().max() < 1
    zero = torch.zeros(5, 1, 8, 8, dtype=torch.float64)
    normal = torch.distributions.Normal(likelihood.mean, 0.3)
    torch.testing.assert_close(likelihood.log_prob(zero), normal.log_prob(zero).sum((1, 2, 3)))


def test_temperature_zero_is_the_chain_of_means(backbone: ConvBackbone) -> None:
    """At temperature 0 the draw does not depend on the noise; at 1 it does."""
    cold = [backbone.push(noise(2, seed), temperature=0.0) for seed in (0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(*cold, strict=True))
    assert not torch.equal(backbone.push(noise(2, 0))[2], backbone.push(noise(2, 1))[2])


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_push_below_keeps_what_it_is_given(backbone: ConvBackbone, kept: int) -> None:
    """Given the top layers of a draw and the noise of the others it is that draw: a layer counted twice breaks it."""
    eps = noise(4)
    whole = backbone.push(eps)
    again = backbone.push_below(whole[:kept], eps[kept:])
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))


def test_top_sigma_is_the_models_or_the_released_one() -> None:
    """The paper's top layer has sigma 1; a named option gives the released 1.01, and nothing else changes it."""
    eps = noise(1)
    for sigma in (1.0, 1.01):
        z = ConvBackbone(dataclasses.replace(SMALL, top_sigma=sigma)).double().push(eps)
        torch.testing.assert_close(z[0], sigma * eps[0])


def test_without_an_inference_network_there_is_no_posterior() -> None:
    """Asking for q(z|x) of a backbone without one says so instead of returning the prior."""
    backbone = ConvBackbone(dataclasses.replace(SMALL, inference_network=False))
    with pytest.raises(NoEncoder):
        backbone.posterior(torch.zeros(1, 1, 8, 8), SharedNoise(torch.Generator()))


@pytest.mark.parametrize(
    "change", [{"image_shape": (3, 32, 30)}, {"image_shape": (3, 9, 9)}, {"likelihood_sigma": 0.0}, {"top_sigma": -1.0}]
)
def test_impossible_sizes_are_refused(change: dict) -> None:
    """Sizes that make no generator are bad input, said in a sentence."""
    with pytest.raises(UserError):
        dataclasses.replace(SMALL, **change)


def test_batch_normal_log_prob_needs_no_loop(backbone: ConvBackbone) -> None:
    """Each element's log-density is its own: a reduction over the batch would couple them."""
    z = backbone.push(noise(4))
    whole = backbone.prior_log_prob(z)
    alone = torch.cat([backbone.prior_log_prob(tuple(layer[i : i + 1] for layer in z)) for i in range(4)])
    torch.testing.assert_close(whole, alone, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
def test_a_transposed_convolution_of_a_point_is_a_matrix_product(layout: torch.memory_format, bias: bool) -> None:
    """Output and all gradients are torch's own; a wrong order of kernel and channels breaks it."""
    torch.manual_seed(0)
    ours = FromPoint(3, 5, 4, bias=bias).double().to(memory_format=layout)
    theirs = nn.ConvTranspose2d(3, 5, 4, bias=bias).double()
    theirs.load_state_dict(ours.state_dict())
    z, weights = torch.randn(2, 3, 1, 1, dtype=torch.float64), torch.randn(2, 5, 4, 4, dtype=torch.float64)
    found = []
    for module in (ours, theirs):
        leaf = z.clone().requires_grad_()
        image = module(leaf)
        found.append((image, *torch.autograd.grad((image * weights).sum(), (leaf, *module.parameters()))))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
def test_a_wide_layer_as_a_product_is_its_transposed_convolution(
    layout: torch.memory_format, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs and the gradient in the inputs; breaks if a tap goes to a wrong pixel, or a part of a batch is lost."""
    monkeypatch.setattr(layers, "MANY_WEIGHTS", 1)
    torch.manual_seed(0)
    layer = Doubling(5, 3).double().to(memory_format=layout)
    if not bias:
        layer.bias = None
    x = torch.randn(layers.AT_ONCE + 3, 5, 4, 6, dtype=torch.float64).to(memory_format=layout)
    leaf = x.clone().requires_grad_()
    expected = nn.functional.conv_transpose2d(leaf, layer.weight, layer.bias, stride=2, padding=1)
    outer = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad(expected, leaf, outer)
    with torch.no_grad():
        assert layer.is_a_product(x)
        torch.testing.assert_close(layer(x), expected.detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(layer.through(outer), gradient, rtol=1e-12, atol=1e-12)


def test_only_wide_layers_on_small_maps_are_products() -> None:
    """The first doubling at the paper's sizes, without autograd; every other layer keeps the convolution's bits."""
    with torch.device("meta"):
        wide, narrow = (
            [layer for layer in ConvBackbone(config).generator if isinstance(layer, Doubling)]
            for config in (ConvConfig(), SMALL)
        )
    maps = [torch.empty(1, layer.in_channels, 8 << index, 8 << index) for index, layer in enumerate(wide)]
    with torch.no_grad():
        assert [layer.is_a_product(x) for layer, x in zip(wide, maps, strict=True)] == [True, False]
        assert not wide[0].is_a_product(maps[0].to("meta"))
        assert not wide[0].is_a_product(maps[0].bfloat16())
        assert not any(layer.is_a_product(torch.empty(1, layer.in_channels, 4, 4)) for layer in narrow)
    assert not wide[0].is_a_product(maps[0])
