"""Stop a training whose energies diverge, with one sentence instead of a wasted night."""

import math
from collections.abc import Iterator

import torch
from torch import nn

from jlebm.errors import UserError

ENERGY_LIMIT = 1e6  # nats; a healthy energy of the two-layer model stays below 1e3
RANGE_LIMIT = 1e3  # how far from zero a latent may be, in standard deviations of the top layer


class Diverged(UserError):
    """Training diverged and cannot go on; a checkpoint, if any, is from before."""

    exit_code = 3


def check(step: int, figures: dict[str, float], model: nn.Module | None = None, saved: bool = False) -> None:
    """Check the figures of one update (`learning.scheme.Update.figures`).

    Args:
        step: the update's number.
        figures: its figures by name.
        model: the module that learns; if no figure that went wrong belongs to a layer, its first weights that are not
            finite are named.
        saved: whether there is a checkpoint.

    Raises:
        Diverged: a figure is not finite or beyond its limit; names the layer, the step, the last figures and a remedy.
    """
    wrong = {name: problem for name, value in figures.items() if (problem := _problem(name, value))}
    if not wrong:
        return
    # A loss is a sum over layers: name the layer that spoils it, and its latents before their energy.
    name = min(wrong, key=lambda name: ("/" not in name, not (name.startswith("range_") and "not" in wrong[name])))
    quantity, _, layer = name.partition("/")
    where = f"of layer {layer} " if layer else ""
    spoilt = "" if layer or model is None else next(_not_finite(model), "")
    weights = f", as are the weights {spoilt}" if spoilt else ""
    seen = ", ".join(f"{key} {number:.4g}" for key, number in figures.items() if key != name)
    raise Diverged(
        f"training diverged at step {step}: {quantity} {where}= {figures[name]:.4g} {wrong[name]}{weights} ({seen}); "
        f"try {_remedy(quantity)}; {_kept(saved)}"
    )


def _problem(name: str, value: float) -> str:
    if not math.isfinite(value):
        return "is not finite"
    if name.startswith("energy_") and abs(value) > ENERGY_LIMIT:
        return f"is beyond {ENERGY_LIMIT:g}"
    if name.startswith("range_") and value > RANGE_LIMIT:
        return f"is beyond {RANGE_LIMIT:g}"
    return ""


def check_weights(step: int, model: nn.Module, saved: bool = False) -> None:
    """Check that every weight is finite before a checkpoint replaces the previous one.

    Raises:
        Diverged: a weight is not finite; names the parameter and the step.
    """
    for name in _not_finite(model):
        raise Diverged(
            f"training diverged at step {step}: the weights {name} are not finite; try {_remedy(name)}; {_kept(saved)}"
        )


def _not_finite(model: nn.Module) -> Iterator[str]:
    for name, value in model.named_parameters():
        if not bool(torch.isfinite(value).all()):
            yield name


def _kept(saved: bool) -> str:
    return "the last checkpoint is from before and stays" if saved else "no checkpoint had been written yet"


def _remedy(quantity: str) -> str:
    if quantity.startswith("range_"):
        return "a smaller step size epsilon of that chain, or smaller learning rates"
    if quantity.startswith("energy_"):
        return "a smaller optimizer.energy_lr, a positive optimizer.energy_l2, or more prior_chain.steps"
    return "smaller learning rates, or a smaller epsilon of the chains, if there are any"
