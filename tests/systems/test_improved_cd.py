"""Improved contrastive divergence: the gradient through the sampler's last step and the entropy's, by differences."""

import copy
import dataclasses
import math

import pytest
import torch

from jlebm.errors import UserError
from jlebm.randomness import SharedNoise, generator
from reproduce.systems.improved_cd import ImprovedCD, ImprovedCDConfig, augmented, entropy
from reproduce.systems.turns import TurnUpdate
from tests.systems.small import built, tiny

SMALL = ImprovedCDConfig((1, 8, 8), channels=(4, 6), scales=2, step_size=2.0, step_noise=0.01, buffer=8, chain_steps=3)


def system() -> ImprovedCD:
    return built(dataclasses.replace(tiny("improved-cd"), model=SMALL)).double()


def draws(*shape: int, seed: int = 1) -> torch.Tensor:
    return 0.3 * torch.randn(shape, generator=generator("training noise", seed), dtype=torch.float64)


def test_gradient_through_the_last_step() -> None:
    """d/dw of E_held(x - step grad E_w(x) + noise), the outer energy's own weights held, by central differences."""
    made = system()
    x, xi = 0.5 * draws(4, 1, 8, 8), draws(4, 1, 8, 8, seed=2)
    ends, energy = made.through_last_step(x, xi)
    assert ends.abs().max() < 1, "a pixel at the border would have no gradient"
    energy.backward()
    held = copy.deepcopy(made)
    directions = [draws(*weight.shape, seed=3 + i) for i, weight in enumerate(made.network.parameters())]
    gradients = [weight.grad for weight in made.network.parameters()]
    exact = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True) if g is not None)
    assert abs(exact) > 1e-4

    def moved(by: float) -> float:
        shifted = copy.deepcopy(held)
        with torch.no_grad():
            for weight, direction in zip(shifted.network.parameters(), directions, strict=True):
                weight += by * direction
        return float(held.network(shifted.step(x, xi)).mean().detach())

    assert exact == pytest.approx((moved(1e-5) - moved(-1e-5)) / 2e-5, rel=1e-6)


def test_gradient_of_the_entropy() -> None:
    """The derivative of the log distance to the nearest neighbour, by central differences; each one to its own."""
    x, others = draws(5, 1, 4, 4).requires_grad_(), draws(7, 1, 4, 4, seed=2)
    entropy(x, others).backward()
    direction = draws(5, 1, 4, 4, seed=3)
    with torch.no_grad():
        difference = (entropy(x + 1e-5 * direction, others) - entropy(x - 1e-5 * direction, others)) / 2e-5
    assert x.grad is not None
    assert float((x.grad * direction).sum()) == pytest.approx(float(difference), rel=1e-6)


def test_entropy_is_that_of_a_scale() -> None:
    """Twice as far apart is log 2 more, and only the nearest counts."""
    x, others = draws(5, 1, 4, 4), draws(7, 1, 4, 4, seed=2)
    assert float(entropy(2 * x, 2 * others) - entropy(x, others)) == pytest.approx(math.log(2), rel=1e-9)
    nearest = (x[:, None] - others[None]).flatten(2).norm(dim=2).min(1).values
    assert float(entropy(x, others)) == pytest.approx(float(nearest.log().mean()), rel=1e-9)
    assert torch.isfinite(entropy(x, x)), "a sample that stands in the buffer itself"


def test_loss_is_its_parts() -> None:
    """With both weights at 0 it is the plain contrastive loss; each part then comes with its sign."""
    losses = {}
    for through, apart in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)):
        made = system()
        made.config = dataclasses.replace(SMALL, through_chain=through, entropy=apart, energy_l2=0.0)
        made.keep(draws(3, 1, 8, 8, seed=5))
        (turn,) = made.turns(draws(4, 1, 8, 8), None, SharedNoise(generator("training noise", 1)), 0)
        losses[through, apart] = {name: float(value) for name, value in TurnUpdate(turn).figures().items()}
    plain = losses[0.0, 0.0]
    assert plain["loss"] == pytest.approx(plain["energy_data"] - plain["energy_samples"], rel=1e-9)
    assert losses[1.0, 0.0]["loss"] == pytest.approx(plain["loss"] + plain["energy_samples"], rel=1e-9)
    assert losses[0.0, 1.0]["loss"] == pytest.approx(plain["loss"] - plain["entropy"], rel=1e-9)


def test_energy_of_several_scales() -> None:
    """The second network sees averages of 2 x 2 pixels: what is the same after them has the same energy there."""
    made = system()
    x = draws(2, 1, 8, 8)
    stripes = 0.1 * torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(4)[None, None, None]
    first, _ = made.network.scales
    difference = made.network(x + stripes) - made.network(x)
    torch.testing.assert_close(difference, (first(x + stripes) - first(x))[:, 0])


def test_augmentation_stays_an_image() -> None:
    """Without a size it mirrors at most; with one it moves every image, within [-1, 1]."""
    noise = SharedNoise(generator("training noise", 1))
    x = draws(40, 3, 8, 8).float().clamp(-0.9, 0.9)
    still = augmented(x, 0.0, noise)
    mirrored = (still - x.flip(3)).abs().amax((1, 2, 3)) < 1e-5
    same = (still - x).abs().amax((1, 2, 3)) < 1e-5
    assert (mirrored ^ same).all()
    assert 5 < int(mirrored.sum()) < 35
    moved = augmented(x, 0.1, noise)
    assert moved.abs().max() <= 1
    assert ((moved - x).abs().amax((1, 2, 3)) > 1e-3).all()


def test_what_cannot_be_is_refused() -> None:
    """Bad input is one sentence before anything is built."""
    for changes in ({"entropy": -1.0}, {"neighbours": 0}, {"largest_shift": 1.0}):
        with pytest.raises(UserError):
            dataclasses.replace(SMALL, **changes)
