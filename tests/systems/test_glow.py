"""What makes a flow a density: it is a bijection, its log-determinant is that of its Jacobian, its integral is one."""

import math

import pytest
import torch
from torch import Tensor, nn

from jlebm.errors import UserError
from jlebm.latents import Latents, flatten
from jlebm.randomness import SharedNoise
from reproduce.systems.flow import ActNorm, Flow, FlowStep
from reproduce.systems.glow import Glow, GlowConfig
from reproduce.systems.levels import from_levels, to_levels


def shaken(module: nn.Module, size: float, seed: int = 0) -> nn.Module:
    """Add noise to every weight: couplings begin as the identity, and every map is to do something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return module


def flow(shape: tuple[int, int, int], levels: int, steps: int, hidden: int, size: float) -> Flow:
    """Return a flow whose every weight is random."""
    torch.manual_seed(0)
    made = shaken(Flow(shape, levels, steps, hidden), size)
    assert isinstance(made, Flow)
    return made


@torch.no_grad()
def test_the_flow_is_inverted_in_float32() -> None:
    """From x to eps to x, to 1e-5, at images; a step that is undone in the wrong order breaks this."""
    made = flow((3, 16, 16), levels=3, steps=4, hidden=16, size=0.05)
    x = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(1)) - 0.5
    eps, _ = made(x)
    assert [tuple(each.shape[1:]) for each in eps] == list(made.shapes)
    assert (flatten(eps) - x.flatten(1)).abs().max() > 0.1
    torch.testing.assert_close(made.inverse(eps), x, atol=1e-5, rtol=0)


@torch.no_grad()
def test_noise_comes_back_through_its_images() -> None:
    """From eps to x to eps: an inverse that is one at the images of training alone breaks this.

    In float64. These random weights draw images a hundred times further out than any data, where the flow stretches
    the rounding of float32 to 3e-3; with weights as small as 0.02, whose images stay within 6, that holds to 1e-5 too.
    """
    for size, dtype, atol in ((0.05, torch.float64, 1e-10), (0.02, torch.float32, 1e-5)):
        made = flow((3, 16, 16), levels=3, steps=4, hidden=16, size=size).to(dtype)
        like = tuple(torch.empty(8, *shape, dtype=dtype) for shape in made.shapes)
        eps = SharedNoise(torch.Generator().manual_seed(2))(like)
        torch.testing.assert_close(flatten(made(made.inverse(eps))[0]), flatten(eps), atol=atol, rtol=0)


def test_the_log_determinant_is_that_of_the_jacobian() -> None:
    """Of all levels at once, at three images; a map whose scale is left out of the sum breaks this."""
    made = flow((1, 4, 4), levels=2, steps=2, hidden=6, size=0.3).double()
    for seed in range(3):
        x = torch.randn(1, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        rows = x.repeat(16, 1).requires_grad_()  # row i is differentiated for output i
        eps, log_det = made(rows.reshape(16, 1, 4, 4))
        (jacobian,) = torch.autograd.grad(flatten(eps).diagonal().sum(), rows)
        assert log_det[0].abs() > 0.1
        torch.testing.assert_close(log_det[0], torch.linalg.slogdet(jacobian)[1])


@torch.no_grad()
def test_the_density_integrates_to_one() -> None:
    """In two dimensions, over a grid that holds what the flow draws; a sign or factor of the log-determinant breaks it.

    Steps are of 1 x 1 positions, where a point of the plane is an image of two channels.
    """
    torch.manual_seed(0)
    steps = [shaken(FlowStep(2, 8), 0.2, seed) for seed in range(4)]
    drawn = torch.randn(2000, 2, 1, 1)
    for step in reversed(steps):
        drawn = step.inverse(drawn)
    end = 1.5 * float(drawn.abs().max())
    ticks = torch.linspace(-end, end, 601)
    z = torch.cartesian_prod(ticks, ticks)[:, :, None, None]
    total = torch.zeros(len(z))
    for step in steps:
        z, log_det = step(z)
        total += log_det
    density = (total - 0.5 * z.square().sum((1, 2, 3)) - math.log(2 * math.pi)).exp().double()
    assert density.std() > 0
    assert float(density.sum() * (ticks[1] - ticks[0]).double() ** 2) == pytest.approx(1, abs=2e-3)


def test_bits_per_dimension_in_closed_form() -> None:
    """Before it has learned, the flow is a rotation: y has a standard normal density, and bits follow from it.

    Bits of another base, or levels of another width than 2^-bits, break this.
    """
    for bits in (8, 5):
        torch.manual_seed(0)
        system = Glow(GlowConfig((3, 8, 8), levels=2, steps=2, hidden=4, bits=bits, flip=False))
        x = torch.randint(0, 256, (6, 3, 8, 8), generator=torch.Generator().manual_seed(1)) / 127.5 - 1
        levels = ((x + 1) * 127.5).round() // 2 ** (8 - bits)
        u = torch.special.ndtr(torch.randn(x.shape, generator=torch.Generator().manual_seed(2)))
        y = (levels + u) / 2**bits - 0.5
        nats = 0.5 * y.square() + 0.5 * math.log(2 * math.pi) + bits * math.log(2)
        (turn,) = system.turns(x, None, SharedNoise(torch.Generator().manual_seed(2)), 1)
        torch.testing.assert_close(turn.loss, nats.mean() / math.log(2), rtol=1e-5, atol=0)
        torch.testing.assert_close(turn.figures["bits_per_dim"], turn.loss.detach())


@torch.no_grad()
def test_the_first_images_normalise_every_step() -> None:
    """After the first step's images each affine map gives mean 0 and variance 1, those of the later levels too."""
    made = flow((3, 8, 8), levels=2, steps=3, hidden=6, size=0.2)
    x = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 3 + 1
    seen: list[Tensor] = []
    made.initialise(x)
    for module in made.modules():
        if isinstance(module, ActNorm):
            module.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs[0]))
    made(x)
    assert len(seen) == 6
    for each in seen:
        torch.testing.assert_close(each.mean((0, 2, 3)), torch.zeros(each.shape[1]), atol=1e-4, rtol=0)
        torch.testing.assert_close(each.std((0, 2, 3), correction=0), torch.ones(each.shape[1]), atol=1e-4, rtol=0)


def test_levels_are_those_of_uint8() -> None:
    """All 256 come back at 8 bits; black and white stay at any; a level that is rounded away breaks this."""
    x = torch.arange(256) / 127.5 - 1
    torch.testing.assert_close(from_levels(to_levels(x, 8), 8), x)
    for bits in range(1, 9):
        levels = to_levels(x, bits)
        assert levels.unique().tolist() == list(range(2**bits))
        assert from_levels(levels, bits)[[0, -1]].tolist() == [-1.0, 1.0]


def test_a_colder_sample_is_nearer_to_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """At temperature 0 all images are one, and noise reaches them scaled by the temperature."""
    torch.manual_seed(0)
    system = Glow(GlowConfig((3, 8, 8), levels=2, steps=1, hidden=4, temperature=0.0))
    one, other = system.sample([1, 2])
    assert torch.equal(one, other)
    seen: list[Latents] = []
    inverse = system.network.inverse
    monkeypatch.setattr(system.network, "inverse", lambda eps: seen.append(eps) or inverse(eps))
    for temperature in (0.5, 1.0):
        system.config = GlowConfig((3, 8, 8), levels=2, steps=1, hidden=4, temperature=temperature)
        system.sample([1])
    torch.testing.assert_close(2 * flatten(seen[0]), flatten(seen[1]))


def test_images_that_cannot_be_halved_are_refused() -> None:
    """The message names the key."""
    with pytest.raises(UserError, match=r"model\.levels"):
        GlowConfig((3, 12, 12))
