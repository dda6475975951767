"""What makes an energy upon whitened noise right: its base keeps N(0, I), and the released base is off by log|dT|."""

import dataclasses
from itertools import accumulate

import pytest
import torch
from torch import Tensor

from jlebm import langevin
from jlebm.backbones.nvae import NVAE
from jlebm.engines.gradients import Autograd
from jlebm.errors import UserError
from jlebm.langevin import Chain
from jlebm.latents import Latents, flatten, standard_normal_log_prob
from jlebm.randomness import SharedNoise
from reproduce.systems import presets_of
from reproduce.systems.vaebm import VAEBM, EnergyInNoise, PixelEnergy, PixelEnergyConfig, VAEBMConfig
from tests import small

# Two groups of 1 x 4 x 4 and images of 3 x 8 x 8: 224 dimensions.
CONFIG = dataclasses.replace(small.HIERARCHY, image_size=8, num_latent_per_group=1)


def network() -> NVAE:
    """Return a frozen backbone in float64 whose sigmas depend on the groups above."""
    return small.backbone(CONFIG).double().requires_grad_(False)


def drawn(count: int, seed: int = 0, *, with_pixels: bool = True) -> Latents:
    """Return N(0, I) in every group, and in the pixels."""
    shapes = [(1, 4, 4), (1, 4, 4)] + [(3, 8, 8)] * with_pixels
    empty = tuple(torch.empty(count, *shape, dtype=torch.float64) for shape in shapes)
    return SharedNoise(torch.Generator().manual_seed(seed))(empty)


def no_energy(x: Tensor) -> Tensor:
    """Return zero for each image, with a graph."""
    return 0 * x.sum((1, 2, 3))


def split(flat: Tensor) -> Latents:
    """Return a flat position's groups and pixels."""
    ends = list(accumulate((16, 16, 192)))
    parts = [flat[:, end - size : end] for end, size in zip(ends, (16, 16, 192), strict=True)]
    return tuple(part.reshape(-1, *shape) for part, shape in zip(parts, ((1, 4, 4), (1, 4, 4), (3, 8, 8)), strict=True))


@pytest.mark.parametrize("with_pixels", [True, False])
def test_zero_energy_leaves_the_standard_normal_invariant(with_pixels: bool) -> None:
    """Its chain is that of N(0, I) itself, step by step, by the exact base and not by the released one.

    A term of the decoder's or the hierarchy's sigmas in the exact drift breaks this.
    """
    start, chain = drawn(3, with_pixels=with_pixels), Chain.from_two_stage_paper(5, 0.1)
    ends = {}
    for drift in ("exact", "released"):
        density = EnergyInNoise(network(), no_energy, drift)
        ends[drift] = langevin.run(start, density, chain, SharedNoise(torch.Generator().manual_seed(1)))
    plain = langevin.run(start, standard_normal_log_prob, chain, SharedNoise(torch.Generator().manual_seed(1)))
    torch.testing.assert_close(ends["exact"], plain)
    assert (flatten(ends["released"]) - flatten(plain)).abs().max() > 1e-3


def test_the_released_base_lacks_the_log_jacobian() -> None:
    """It is log p(z) + log p(x|z) = log N(eps) - log|d(z, x)/d(eps)|, the determinant being autograd's.

    A sigma that is left out of either term, or noise that meets the wrong group, breaks this.
    """
    start = flatten(drawn(1))
    dimensions = start.shape[1]
    flat = start.repeat(dimensions, 1).requires_grad_()  # row i is differentiated for output i
    density = EnergyInNoise(network(), no_energy, "released")
    x, z, _ = density.images(split(flat))
    outputs = flatten((*z, x))
    (jacobian,) = torch.autograd.grad(outputs.diagonal().sum(), flat)
    position = split(start)
    exact = EnergyInNoise(network(), no_energy, "exact")
    off = density(position) - exact(position)
    torch.testing.assert_close(off, -torch.linalg.slogdet(jacobian)[1][None])


def test_the_chain_goes_down_in_the_energy() -> None:
    """With E(x) = c . x the drift of eps_x is -eps_x - sigma c: a flipped sign, or a lost sigma, breaks it."""
    position = drawn(2)
    c = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(5)).double()
    density = EnergyInNoise(network(), lambda x: (c * x).sum((1, 2, 3)))
    decoded = density.images(position)[2]
    gradient = Autograd(density).gradient(position)
    torch.testing.assert_close(gradient[-1], -position[-1] - decoded.sigma * c)


def test_the_loss_moves_the_energy_apart() -> None:
    """The loss is E(data) - E(model) at the chains' ends: one step along it raises the model's energy over the data's.

    Swapped signs break this, and so does a gradient that goes through the chain.
    """
    config = VAEBMConfig(
        PixelEnergyConfig((6,), 1),
        spectral=0.0,
        train_chain=Chain.from_two_stage_paper(2, 0.01),
        chain=Chain.from_two_stage_paper(2, 0.01),
    )
    torch.manual_seed(0)
    system = VAEBM(config, network()).double()
    x = torch.rand(4, 3, 8, 8).double() * 2 - 1

    def noise() -> SharedNoise:
        return SharedNoise(torch.Generator().manual_seed(2))

    negative = system.chained(4, config.train_chain, noise())
    assert not negative.requires_grad
    (turn,) = system.turns(x, None, noise(), 0)
    torch.testing.assert_close(turn.loss, system.network(x).mean() - system.network(negative).mean())
    gradients = torch.autograd.grad(turn.loss, list(system.network.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(system.network.parameters(), gradients, strict=True):
            parameter.sub_(1e-4 * gradient)
        after = system.network(x).mean() - system.network(negative).mean()
    assert after < turn.loss


def test_spectral_norms_are_the_largest_singular_values() -> None:
    """The power method, kept from call to call, ends at the singular values; an u of the wrong side breaks this."""
    torch.manual_seed(0)
    energy = PixelEnergy(3, PixelEnergyConfig((5, 7), 2)).double()
    for _ in range(300):
        total = energy.spectral_norms()
    weights = [each for name, each in energy.named_parameters() if name.endswith("weight")]
    known = sum(torch.linalg.matrix_norm(weight.detach().flatten(1), 2) for weight in weights)
    torch.testing.assert_close(total.detach(), known, rtol=1e-5, atol=0)
    (gradient,) = torch.autograd.grad(total, weights[0])
    u, _, v = torch.linalg.svd(weights[0].detach().flatten(1))
    torch.testing.assert_close(gradient.flatten(1), torch.outer(u[:, 0], v[0]), rtol=1e-3, atol=1e-3)


def test_what_it_cannot_stand_on_is_refused() -> None:
    """No backbone, a decoder whose pixels cannot be whitened, and a chain in latents are named."""
    one = presets_of("vaebm")["tiny"]
    with pytest.raises(UserError, match="trained NVAE"):
        one.build(None)
    with pytest.raises(UserError, match="num_mixture_dec must be 1"):
        one.build(small.backbone(dataclasses.replace(CONFIG, num_mixture_dec=2)))
    with pytest.raises(UserError, match="space to 'noise'"):
        VAEBMConfig(chain=Chain(1, 0.1))
