"""The moving average is torch's own, bit for bit."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from jlebm.learning.averaging import MovingAverage
from tests.small import experiment


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3).double())


def moved(model: nn.Module, step: int) -> None:
    """Change every weight and every buffer, the batch norm's counter by one."""
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                value.add_(torch.randn(value.shape, generator=generator, dtype=value.dtype))
            else:
                value.add_(3)


@pytest.mark.parametrize("buffers", [True, False])
def test_it_is_torchs_average(buffers: bool) -> None:
    """At every update, buffers and integers included; stored and loaded, it goes on as it would."""
    model = network()
    ours = MovingAverage(model, 0.9, buffers)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=buffers)
    for step in range(12):
        moved(model, step)
        for average in (ours, theirs):
            average.update_parameters(model)
        if step == 6:
            stored = copy.deepcopy(ours.state_dict())
            ours = MovingAverage(network(), 0.9, buffers)
            ours.load_state_dict(stored)
        found, right = ours.state_dict(), theirs.state_dict()
        assert found.keys() == right.keys()
        for name, value in right.items():
            assert found[name].dtype == value.dtype
            assert torch.equal(found[name], value), name


def test_the_counter_is_read_without_a_device() -> None:
    """It stays on the CPU, where reading it waits for nothing."""
    ours = MovingAverage(network(), 0.9, True)
    assert ours.n_averaged.device.type == "cpu"


def test_the_average_of_what_learns_has_its_buffers() -> None:
    """Breaks if weights of an average were sampled with the last step's statistics, or its chains' last step sizes."""
    learned = nn.BatchNorm2d(2)
    average = experiment().average(learned)  # at a decay of 0.9
    assert average is not None
    for value in (1.0, 2.0):
        learned.running_mean = torch.full((2,), value)
        average.update_parameters(learned)
    torch.testing.assert_close(average.module.running_mean, torch.full((2,), 1.1))
