"""StyleGAN2: demodulation, the lazy penalty and the average, each against its definition."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, softplus

from jlebm.errors import UserError
from jlebm.randomness import SharedNoise, generator
from reproduce.systems.modulated import ModulatedConv, blurred, doubled
from reproduce.systems.stylegan2 import StyleGAN2, StyleGAN2Config

SMALL = StyleGAN2Config(
    (1, 8, 8), latent_dim=5, generator_channels=(4, 3), discriminator_channels=(3, 4), r1_weight=2.0
)
DRAWS = torch.Generator().manual_seed(9)


def small(**changes: object) -> StyleGAN2:
    torch.manual_seed(1)
    return StyleGAN2(dataclasses.replace(SMALL, **changes))


@pytest.mark.parametrize("demodulated", [True, False])
def test_demodulation_is_explicit_scaling_of_the_weights(demodulated: bool) -> None:
    """w''_oikl = s_i w_oikl / sqrt(sum_ikl (s_i w_oikl)^2 + 1e-8) for each image by itself (their Eqs. 1 and 3)."""
    torch.manual_seed(2)
    layer = ModulatedConv(4, 6, 3, latent_dim=5, demodulated=demodulated)
    x, w = torch.randn(3, 4, 7, 7, generator=DRAWS), torch.randn(3, 5, generator=DRAWS)
    out = layer(x, w)
    for image, style, found in zip(x, layer.style(w), out, strict=True):
        weight = style[:, None, None] * layer.weight()
        if demodulated:
            weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        torch.testing.assert_close(found, conv2d(image[None], weight, padding=1)[0])
    if demodulated:  # inputs of variance one give outputs of variance one, whatever the styles are
        white = torch.randn(1, 4, 64, 64, generator=DRAWS)
        assert float(layer(white, 30 * w[:1]).detach().std()) == pytest.approx(1, rel=0.05)


def test_lazy_penalty_has_the_eager_ones_expectation() -> None:
    """Over an interval of steps, the penalties' mean is r1_weight / 2 E|grad D|^2, and so is their gradient's."""
    system = small()
    x = torch.randn(4, 1, 8, 8, generator=DRAWS)
    weights = list(system.discriminator.parameters())
    noise = SharedNoise(generator("training noise", 1))
    lazy, due = torch.zeros(()), []
    for step in range(3 * SMALL.r1_every):
        turns = list(system.turns(x, None, noise, step))
        assert [turn.part for turn in turns[:2]] == ["generator", "discriminator"]
        for turn in turns[2:]:
            assert turn.part == "discriminator"
            lazy = lazy + turn.loss / (3 * SMALL.r1_every)
            due.append(step)
    assert due == [0, 16, 32]
    eager = system.r1(x)
    torch.testing.assert_close(lazy, eager)
    gradients = [torch.autograd.grad(each, weights, allow_unused=True) for each in (lazy, eager)]
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            torch.testing.assert_close(ours, theirs)


def test_penalty_is_half_the_squared_gradient_at_data() -> None:
    """Of a linear logit it is r1_weight / 2 |w|^2, whatever the images and their number are."""

    class Plane(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(1, 8, 8, generator=DRAWS))

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.weight).flatten(1).sum(1)

    system = small()
    system.discriminator = Plane()
    weight = system.discriminator.weight
    for count in (1, 5):
        torch.testing.assert_close(system.r1(torch.randn(count, 1, 8, 8)), 0.5 * 2.0 * weight.square().sum())


def test_losses_are_logistic_and_do_not_saturate() -> None:
    """-log D(G(z)) for the generator; -log D(x) - log(1 - D(G(z))) for the discriminator."""

    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 3 * x.mean((1, 2, 3))

    system = small(r1_weight=0.0)
    system.discriminator = Mean()
    x = torch.randn(4, 1, 8, 8, generator=DRAWS)
    first, second, _ = system.turns(x, None, SharedNoise(generator("training noise", 1)), 0)
    noise = SharedNoise(generator("training noise", 1))
    for turn, data in ((first, None), (second, x)):
        logits = system.discriminator(system.draw(4, noise))
        if data is None:
            expected = softplus(-logits).mean()
        else:
            expected = softplus(-system.discriminator(data)).mean() + softplus(logits).mean()
        torch.testing.assert_close(turn.loss, expected)


def test_resampling_is_by_the_papers_filter() -> None:
    """Up: zeros between the pixels, then [1, 3, 3, 1] of sum 4; down: the same of sum 1, then every second."""
    x = torch.randn(2, 3, 6, 6, generator=DRAWS)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = torch.outer(taps, taps).expand(3, 1, 4, 4)
    up = conv_transpose2d(x, 4 * kernel, stride=2, padding=1, groups=3)
    torch.testing.assert_close(doubled(x)[..., 1:-1, 1:-1], up[..., 1:-1, 1:-1])  # beyond the edge the paper has zeros
    down = conv2d(x, kernel, stride=2, padding=1, groups=3)
    torch.testing.assert_close(blurred(x)[..., 1::2, 1::2], down)
    torch.testing.assert_close(blurred(torch.ones(1, 1, 8, 8))[..., 2:-2, 2:-2], torch.ones(1, 1, 5, 5))


def test_discriminator_sees_that_a_batch_does_not_vary() -> None:
    """Without the batch's variation, a generator of one image could not be told from one of many."""
    network = small().discriminator
    x = torch.randn(4, 1, 8, 8, generator=DRAWS)
    alone = torch.cat([network(image[None].expand(4, -1, -1, -1))[:1] for image in x])
    assert (network(x) - alone).abs().min() > 1e-4


def test_noise_moves_the_image_as_strongly_as_was_learned() -> None:
    """Noise that is added twice, or at a resolution alone, changes which strengths the image depends on."""
    network = small().generator
    z = torch.randn(2, 5, generator=DRAWS)
    noise = [[torch.randn(2, 1, side, side, generator=DRAWS) for side in network.noise_sides] for _ in range(2)]
    assert network.noise_sides == [4, 8, 8]
    assert torch.equal(network(z, *noise[0]), network(z, *noise[1])), "strengths start at 0"
    for index, layer in enumerate(network.layers):
        with torch.no_grad():
            layer.strength.fill_(1.0)
        other = list(noise[0])
        other[index] = noise[1][index]
        assert (network(z, *noise[0]) - network(z, *other)).abs().amax((1, 2, 3)).min() > 1e-3
        with torch.no_grad():
            layer.strength.fill_(0.0)


def test_sizes_that_do_not_fit_are_refused() -> None:
    """Bad input is one sentence before anything is built."""
    for changes, message in (
        ({"image_shape": (3, 20, 20)}, "divisible"),
        ({"r1_every": 0}, "r1_every"),
        ({"mapping_rate": 0.0}, "mapping_rate"),
    ):
        with pytest.raises(UserError, match=message):
            StyleGAN2Config(**changes)
