"""IGEBM: its chain on a quadratic energy, its spectral norms, and a buffer that a resume does not lose."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from jlebm import checkpoints
from jlebm.errors import UserError
from jlebm.randomness import SharedNoise, generator
from reproduce.systems.igebm import IGEBM, IGEBMConfig
from reproduce.systems.turns import TurnUpdate
from tests.systems.small import built, tiny, train

SMALL = IGEBMConfig((1, 8, 8), channels=(4, 6), buffer=6, chain_steps=3)


class Quadratic(nn.Module):
    """E(x) = k |x|^2 / 2."""

    def __init__(self, k: float):
        super().__init__()
        self.k = nn.Parameter(torch.tensor(k))

    def forward(self, x: Tensor) -> Tensor:
        """Return the energies."""
        return self.k / 2 * x.square().sum((1, 2, 3))


def system(network: nn.Module | None = None, **changes: object) -> IGEBM:
    made = built(dataclasses.replace(tiny("igebm"), model=dataclasses.replace(SMALL, **changes)))
    if network is not None:
        made.network = network
    return made


def test_chain_on_a_quadratic_energy() -> None:
    """Each step is x <- (1 - step k) x + noise: a step of another size, sign or noise ends with another variance."""
    made = system(Quadratic(0.5), step_size=0.4, step_noise=0.05, gradient_limit=None)
    x = torch.full((200, 1, 8, 8), 0.8)
    ends = made.chain(x, 60, SharedNoise(generator("chain", 1))).double()
    mean, variance = 0.8, 0.0
    for _ in range(60):
        mean, variance = 0.8 * mean, 0.64 * variance + 0.05**2
    count = ends.numel()
    assert ends.mean() == pytest.approx(mean, abs=4 * (variance / count) ** 0.5)
    assert ends.var() == pytest.approx(variance, rel=4 * (2 / count) ** 0.5)


def test_gradient_is_clipped_and_images_stay_images() -> None:
    """A steep energy moves each pixel by step_size * gradient_limit and no further, and never out of [-1, 1]."""
    made = system(Quadratic(1e3), step_size=10.0, step_noise=0.0, gradient_limit=0.01)
    x = torch.tensor([[-0.95, 0.5], [0.3, 0.95]])[None, None]
    moved = made.step(x, torch.zeros_like(x))
    torch.testing.assert_close(moved, x - 0.1 * x.sign())
    uphill = system(Quadratic(-1e3), step_size=10.0, step_noise=0.0, gradient_limit=0.01)
    assert uphill.step(x, torch.zeros_like(x)).abs().max() == 1


def test_the_loss_lowers_data_and_raises_samples() -> None:
    """The gradient of the contrastive loss is the difference of the mean statistics, data minus samples."""
    made = system(Quadratic(0.3), energy_l2=0.0)
    noise = SharedNoise(generator("training noise", 1))
    x = 0.2 * noise((torch.empty(5, 1, 8, 8),))[0]
    (turn,) = made.turns(x, None, noise, 0)
    turn.loss.backward()
    samples = made.buffer[:5].float() / 127.5 - 1  # as the buffer rounds them

    def statistic(images: Tensor) -> Tensor:
        return images.square().sum((1, 2, 3)).mean() / 2

    expected = statistic(x) - statistic(samples)
    assert float(made.network.k.grad) == pytest.approx(float(expected), abs=0.05)
    assert TurnUpdate(turn).figures()["energy_data"] == pytest.approx(0.3 * float(statistic(x)), rel=1e-5)


def test_every_layer_has_spectral_norm_one(tmp_path: Path) -> None:
    """A layer without its normalisation, or a power iteration that has stopped, has another largest singular value."""
    _, state = train(tmp_path, tiny("igebm", steps=12))
    network = state.model.network.eval()
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) > 5
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2) == pytest.approx(1, abs=0.05)


def test_buffer_survives_a_resume(tmp_path: Path) -> None:
    """A buffer that is not in the checkpoint, or not gone on from, loses the chains of the steps before."""
    one = tiny("igebm")
    run, half = train(tmp_path, one, stop_after=2)
    stored = checkpoints.load(run.checkpoint, one.digest(), 1)["model"]
    assert torch.equal(stored["buffer"], half.model.buffer)
    assert int(stored["written"]) == 2 * 4
    assert stored["buffer"][:8].any(dim=(1, 2, 3)).all()
    assert not stored["buffer"][8:].any()
    _, whole = train(tmp_path, one)
    assert int(whole.model.written) == 4 * 4
    assert torch.equal(whole.model.buffer[:8], half.model.buffer[:8])
    assert torch.equal(whole.ema.module.buffer, whole.model.buffer), "images are not averaged"


def test_oldest_samples_are_replaced() -> None:
    """A ring of six holds the last six samples."""
    made = system()
    for level in range(10):
        made.keep(torch.full((1, 1, 8, 8), level / 127.5 - 1))
    assert made.buffer[:, 0, 0, 0].tolist() == [6, 7, 8, 9, 4, 5]


def test_one_chain_in_twenty_starts_anew() -> None:
    """Restarts are uniform over the whole range, everything else is a sample of the buffer up to rounding."""
    made = system()
    noise = SharedNoise(generator("training noise", 1))
    like = torch.empty(4000, 1, 8, 8)
    anew = made.starts(like, noise)
    assert anew.mean() == pytest.approx(0, abs=0.01)
    assert anew.var() == pytest.approx(1 / 3, rel=0.01)
    made.keep(torch.full((3, 1, 8, 8), 0.5))  # half of the buffer is still empty, and is not started from
    starts = made.starts(like, noise)
    restarted = (starts - 0.5).abs().amax((1, 2, 3)) > 1.1 / 127.5
    assert restarted.float().mean() == pytest.approx(0.05, abs=4 * (0.05 * 0.95 / 4000) ** 0.5)


def test_samples_go_on_from_the_buffer_or_from_noise() -> None:
    """With no step an image is where its chain starts."""
    made = system(sampling_steps=0)
    made.keep(torch.full((3, 1, 8, 8), 0.5))
    assert (made.sample([1, 2]).int() - 191).abs().max() <= 1
    fresh = system(sampling_steps=0, sampled_from="noise")
    fresh.keep(torch.full((3, 1, 8, 8), 0.5))
    assert fresh.sample([1, 2]).float().std() > 60


def test_what_cannot_be_is_refused() -> None:
    """Bad input is one sentence before anything is built."""
    for changes in ({"restarts": 0.0}, {"chain_steps": 0}, {"image_shape": (3, 7, 7)}):
        with pytest.raises(UserError):
            dataclasses.replace(SMALL, **changes)
