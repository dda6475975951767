"""The adversarial EBM: its ascent and its loss where the logit is linear, its starts, and that samples climb alike."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from jlebm.errors import UserError
from jlebm.randomness import SharedNoise, generator
from reproduce.systems.adversarial_ebm import AdversarialEBM, AdversarialEBMConfig, coloured
from tests.systems.small import built, tiny

SHAPE = (3, 8, 8)
SMALL = AdversarialEBMConfig(SHAPE, channels=(4, 8), blocks=1, norm_groups=2, flip=False)


class Linear(nn.Module):
    """f(x) = w . x + b."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(SHAPE, generator=torch.Generator().manual_seed(3)))
        self.bias = nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of shape (batch, 1)."""
        return (x * self.weight).flatten(1).sum(1, keepdim=True) + self.bias


def linear(**changes: object) -> AdversarialEBM:
    system = built(dataclasses.replace(tiny("adversarial-ebm"), model=dataclasses.replace(SMALL, **changes)))
    system.network = Linear()
    return system


@pytest.mark.parametrize("step_size", [0.01, -0.01])
def test_every_step_has_the_same_length_along_the_gradient(step_size: float) -> None:
    """A step that grows with the gradient, or that is summed over the batch, ends elsewhere."""
    system, x = linear(), torch.zeros(3, *SHAPE)
    weight = system.network.weight.detach()
    torch.testing.assert_close(system.ascended(x, 7, step_size), x + 7 * step_size * weight / weight.norm())
    assert system.ascended(x, 0, step_size) is x
    far = (x + 5e4 * step_size * weight / weight.norm()).clamp(-1, 1)
    torch.testing.assert_close(system.ascended(x, 5, 1e4 * step_size), far)


def test_loss_is_of_a_classifier_against_ascended_images() -> None:
    """The binary cross-entropy in closed form: K steps raise a linear logit by K s |w|, of data they lower it."""
    system = linear(steps=4, grow_every=10, step_size=1e-3, data_steps=2, r1_weight=0.5, start_sigma=0.2)
    network, noise = system.network, SharedNoise(generator("training noise", 1))
    x = 0.5 * torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(4)).clamp(-1.8, 1.8)
    starts = coloured(SharedNoise(generator("training noise", 1))((x,))[0], system.config)
    assert starts.abs().max() < 0.99  # nothing is clipped along the way
    (turn,) = system.turns(x, None, noise, 35)
    rise = 1e-3 * network.weight.norm()
    loss = (softplus(-(network(x) - 2 * rise)).mean() + softplus(network(starts) + 3 * rise).mean()) / 2
    penalty = 0.5 * 0.5 * network.weight.square().sum()
    torch.testing.assert_close(turn.loss, loss + penalty)
    # The images that were climbed to are data of the loss: its gradient does not go through the ascent.
    ours = torch.autograd.grad(turn.loss, [network.bias])
    up, down = torch.sigmoid(network(starts) + 3 * rise).mean(), torch.sigmoid(-(network(x) - 2 * rise)).mean()
    torch.testing.assert_close(ours[0], ((up - down) / 2).detach())


def test_ascent_grows_during_training_up_to_its_length() -> None:
    """A classifier that is attacked at full length from the start learns nothing; one that never is, no energy."""
    config = AdversarialEBMConfig(steps=3, grow_every=10)
    assert [config.steps_at(step) for step in (0, 9, 10, 29, 30, 1000)] == [0, 0, 1, 2, 3, 3]


def test_sampling_is_the_same_ascent() -> None:
    """From the same noise, what training calls a sample and what is drawn are one image, and it climbed."""
    one = tiny("adversarial-ebm")
    model = dataclasses.replace(one.model, data_steps=0, flip=False, sampler_steps=3, sampler_step_size=1.0)
    system = built(dataclasses.replace(one, model=model))
    x = torch.zeros(4, *model.image_shape)
    (turn,) = system.turns(x, None, SharedNoise(generator("training noise", 1)), 10**6)
    with torch.no_grad():
        drawn = system.draw(4, SharedNoise(generator("training noise", 1)))
        starts = coloured(SharedNoise(generator("training noise", 1))((x,))[0], model)
        torch.testing.assert_close(turn.figures["energy_samples"], -system.network(drawn).mean())
        assert bool((system.network(drawn) > system.network(starts)).all())
    assert drawn.abs().max() <= 1


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_starts_have_the_spectrum_that_they_say(exponent: float) -> None:
    """A spectrum of another slope, or channels of another correlation, would be other images to start from."""
    config = AdversarialEBMConfig(start_exponent=exponent, start_sigma=0.1, start_correlation=0.8)
    white = torch.randn(400, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    images = coloured(white, config)
    assert float(images.std()) == pytest.approx(0.1, rel=0.03)
    channels = images.transpose(0, 1).flatten(1)
    assert float(torch.corrcoef(channels)[0, 1:].mean()) == pytest.approx(0.8, abs=0.02)
    power = torch.fft.fft2(images).abs().square().mean((0, 1))
    ratio = power[0, 2] / power[0, 8]
    assert float(ratio) == pytest.approx(4 ** (2 * exponent), rel=0.15)


def test_sizes_that_do_not_fit_are_refused() -> None:
    """Bad input is one sentence before anything is built."""
    for changes, message in (
        ({"image_shape": (3, 20, 20)}, "halved"),
        ({"channels": (16, 33)}, "norm_groups"),
        ({"grow_every": 0}, "grow_every"),
        ({"step_size": 0.0}, "step sizes"),
        ({"start_correlation": 1.5}, "start_correlation"),
    ):
        with pytest.raises(UserError, match=message):
            AdversarialEBMConfig(**changes)
