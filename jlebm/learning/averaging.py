"""The moving average of weights, updated in few launches and without a copy from the host."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

FOREACH: Any = torch  # whose types leave the operations on lists out


class MovingAverage(AveragedModel):
    """Exponential moving average, bit for bit that of torch's `AveragedModel` with `get_ema_multi_avg_fn`.

    Torch copies its counter from the host to the device for each type of weights at each update, which waits for all
    work of the device, and averages integer buffers one by one.
    """

    def __init__(self, model: nn.Module, decay: float, use_buffers: bool):
        super().__init__(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=use_buffers)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Average the weights with those of `model`; the first update copies them."""
        ours, theirs = list(self.module.parameters()), list(model.parameters())
        kept, given = list(self.module.buffers()), list(model.buffers())
        if self.use_buffers:
            ours, theirs, kept, given = ours + kept, theirs + given, [], []
        if int(self.n_averaged) == 0:  # the counter lies on the CPU
            kept, given = ours + kept, theirs + given
        else:
            for averaged, latest in _by_type(ours, theirs):
                _average(averaged, latest, self.decay)
        for averaged, latest in _by_type(kept, given):
            FOREACH._foreach_copy_(averaged, latest)
        self.n_averaged += 1

    def load_state_dict(self, *arguments: Any, **more: Any) -> Any:
        """Load a state; the counter stays on the CPU, where it is read."""
        loaded = super().load_state_dict(*arguments, **more)
        self.n_averaged = self.n_averaged.cpu()
        return loaded


def _by_type(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> list[tuple[list[Tensor], list[Tensor]]]:
    groups: dict[tuple[torch.dtype, torch.device], tuple[list[Tensor], list[Tensor]]] = {}
    for averaged, latest in zip(ours, theirs, strict=True):
        pair = groups.setdefault((averaged.dtype, averaged.device), ([], []))
        pair[0].append(averaged.detach())
        pair[1].append(latest.detach().to(averaged.device))
    return list(groups.values())


def _average(averaged: list[Tensor], latest: list[Tensor], decay: float) -> None:
    if averaged[0].is_floating_point() or averaged[0].is_complex():
        FOREACH._foreach_lerp_(averaged, latest, 1 - decay)
        return
    values = FOREACH._foreach_mul(averaged, decay)
    FOREACH._foreach_add_(values, FOREACH._foreach_mul(latest, 1 - decay))
    FOREACH._foreach_copy_(averaged, values)
