"""Independent pixels against the closed form: the sample mean and spread of each pixel."""

from typing import cast

import torch

from jlebm.randomness import SharedNoise
from reproduce.systems.pixels import Pixels, PixelsConfig
from tests.systems.small import built, tiny


def draws() -> SharedNoise:
    return SharedNoise(torch.Generator().manual_seed(0))


def test_the_mean_and_the_spread_of_each_pixel_are_where_the_gradient_is_zero() -> None:
    """At the images' own mean and (biased) deviation the loss has no slope, and elsewhere it has one.

    A density of another scale, a mean over pixels, or one spread for all pixels breaks it.
    """
    system = cast(Pixels, built(tiny("pixels")).double())
    x = draws()((torch.empty(6, *system.shape, dtype=torch.float64),))[0]
    with torch.no_grad():
        system.network.mean.copy_(x.mean(0))
        system.network.log_sigma.copy_(x.std(0, correction=0).log())
    (turn,) = system.turns(x, None, draws(), 0)
    weights = list(system.network.parameters())
    for gradient in torch.autograd.grad(turn.loss, weights):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)
    with torch.no_grad():
        system.network.mean.add_(0.1)
    (turn,) = system.turns(x, None, draws(), 0)
    assert all(gradient.abs().min() > 1e-4 for gradient in torch.autograd.grad(turn.loss, weights))


def test_images_have_that_mean_and_spread() -> None:
    """Over many draws each pixel's mean and deviation are the parameters', and no two pixels go together."""
    system = Pixels(PixelsConfig((1, 1, 2))).double()
    with torch.no_grad():
        system.network.mean.copy_(torch.tensor([[[0.3, -0.2]]]))
        system.network.log_sigma.copy_(torch.tensor([[[0.1, 0.4]]]).log())
        images = system.draw(20_000, draws())[:, 0, 0]
    torch.testing.assert_close(images.mean(0), torch.tensor([0.3, -0.2], dtype=torch.float64), rtol=0, atol=0.01)
    covariance = torch.diag(torch.tensor([0.01, 0.16], dtype=torch.float64))
    torch.testing.assert_close(torch.cov(images.T), covariance, rtol=0, atol=0.005)
