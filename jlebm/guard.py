"""Stops a run whose energies run away, with a sentence instead of a wasted night."""

import math

import torch
from torch import nn

from jlebm.errors import UserError

ENERGY_LIMIT = 1e6  # nats; a healthy energy of the two-layer model stays below 1e3
RANGE_LIMIT = 1e3  # standard deviations of the top layer that a latent may be away from zero


class Diverged(UserError):
    """Training cannot go on; the last checkpoint is from before."""

    exit_code = 3


def check(step: int, figures: dict[str, float]) -> None:
    """Look at the figures of one update (`learning.base.Update.figures`).

    Raises:
        Diverged: one is not finite or beyond its limit; names the layer, the step, the last figures, what to try.
    """
    for name, value in figures.items():
        quantity, _, layer = name.partition("/")
        if not math.isfinite(value):
            problem = "is not finite"
        elif quantity.startswith("energy_") and abs(value) > ENERGY_LIMIT:
            problem = f"is beyond {ENERGY_LIMIT:g}"
        elif quantity.startswith("range_") and value > RANGE_LIMIT:
            problem = f"is beyond {RANGE_LIMIT:g}"
        else:
            continue
        where = f"of layer {layer} " if layer else ""
        seen = ", ".join(f"{key} {number:.4g}" for key, number in figures.items() if key != name)
        raise Diverged(
            f"training diverged at step {step}: {quantity} {where}= {value:.4g} {problem} ({seen}); "
            f"try {_remedy(quantity)}; the last checkpoint is from before and stays"
        )


def check_weights(step: int, model: nn.Module) -> None:
    """Look at every weight before a checkpoint replaces the one before it.

    Raises:
        Diverged: one is not finite; names the parameter and the step.
    """
    for name, value in model.named_parameters():
        if not bool(torch.isfinite(value).all()):
            raise Diverged(
                f"training diverged at step {step}: the weights {name} are not finite; try {_remedy(name)}; "
                "the last checkpoint is from before and stays"
            )


def _remedy(quantity: str) -> str:
    if quantity.startswith("range_"):
        return "a smaller step size epsilon of that chain"
    if quantity.startswith("energy_"):
        return "a smaller optimizer.energy_lr, a positive optimizer.energy_l2, or more prior_chain.steps"
    return "smaller learning rates, or a smaller epsilon of the chains where there are any"
