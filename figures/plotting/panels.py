"""What a training records, in words and in panels: the two sides of one quantity share a panel, and so show their gap.

A recorded name is a quantity, "kl", or a quantity of one layer, "kl/z2".
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Recorded = Float[np.ndarray, "2 records"]


class Side(NamedTuple):
    """One side of a quantity: the curve's label, in the panel of that title."""

    panel: str
    label: str


SIDES = {
    "energy_posterior": Side("energy E(z)", "posterior"),
    "energy_prior": Side("energy E(z)", "prior"),
    "range_posterior": Side("largest |z|", "posterior"),
    "range_prior": Side("largest |z|", "prior"),
    "energy_data": Side("energy of images", "data"),
    "energy_samples": Side("energy of images", "samples"),
    "energy_model": Side("energy of images", "samples"),
    "logit_data": Side("logit of the discriminator", "data"),
    "logit_samples": Side("logit of the discriminator", "samples"),
    "loss_discriminator": Side("losses", "discriminator"),
    "loss_generator": Side("losses", "generator"),
}
"""The quantities that are one side of another, in the order of their curves."""
GAPS = {"energy E(z)", "energy of images", "logit of the discriminator"}
"""The panels whose two sides learning drives together, so that their difference says how it goes."""
WORDS = {
    "reconstruction": "reconstruction error",
    "negative_elbo": "negative ELBO (nats per image)",
    "kl": "KL from prior to posterior (nats)",
    "kl_weight": "weight of the KL",
    "conditional": "loss of the layers' conditionals",
    "loss": "loss",
    "bits_per_dim": "bits per dimension",
    "accuracy": "accuracy of the classifier",
    "noise_contrast": "loss of noise contrast",
    "entropy": "entropy term",
    "latent": "latent term",
    "spectral_norms": "spectral norms, summed",
}


class Panel(NamedTuple):
    """One panel: its title in words, its curves by label, and whether the gap between the first two is its point."""

    title: str
    curves: dict[str, Recorded]
    gap: bool


def panels(curves: Mapping[str, Recorded]) -> list[Panel]:
    """Return the panels of recorded curves: those of two sides first, each quantity's layers from the top.

    Args:
        curves: by name, training steps above values, as `recorded` returns them.
    """
    found: dict[str, dict[str, dict[str, Recorded]]] = {}
    for name in sorted(curves, key=_order):
        quantity, _, layer = name.partition("/")
        side = SIDES.get(quantity) or Side(WORDS.get(quantity, quantity.replace("_", " ")), "")
        found.setdefault(side.panel, {}).setdefault(layer, {})[side.label] = curves[name]
    return [
        Panel(f"{title}, layer {layer}" if layer else title, both, title in GAPS and len(both) > 1)
        for title, layers in found.items()
        for layer, both in layers.items()
    ]


def _order(name: str) -> tuple[int, int, str]:
    """Return the place of a recorded name: two-sided quantities first, what is of all layers before the top layer."""
    quantity, _, layer = name.partition("/")
    side = list(SIDES).index(quantity) if quantity in SIDES else len(SIDES)
    return side, -int(layer.removeprefix("z")) if layer.removeprefix("z").isdecimal() else -(10**6), quantity
