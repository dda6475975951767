"""What a learning scheme is: from a batch of images to a loss and to the figures worth watching."""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from jlebm.latents import Latents
from jlebm.model import JointModel
from jlebm.objectives import Losses
from jlebm.randomness import Noise


class Update(NamedTuple):
    """A loss and the samples that it came from, detached, for the guard and the events."""

    losses: Losses
    posterior: Latents
    prior: Latents


@runtime_checkable
class Scheme(Protocol):
    """A way of learning; frozen configuration, no state between updates."""

    def update(self, model: JointModel, x: Float[Tensor, "batch channels height width"], noise: Noise) -> Update:
        """Draw the samples that one update needs and return its loss with a graph to the parameters."""
        ...


def figures(model: JointModel, update: Update) -> dict[str, float]:
    """Return what is recorded of an update, by name: losses, energies and the largest latent of each layer."""
    positive, negative = model.energies(update.posterior), model.energies(update.prior)
    values: dict[str, Tensor] = {
        "loss": update.losses.total(),
        "reconstruction": update.losses.reconstruction,
        "conditional": update.losses.conditional,
    }
    for index, name in enumerate(model.layer_names):
        values[f"energy_posterior/{name}"] = positive[:, index].mean()
        values[f"energy_prior/{name}"] = negative[:, index].mean()
        values[f"range_posterior/{name}"] = update.posterior[index].abs().max()
        values[f"range_prior/{name}"] = update.prior[index].abs().max()
    # One transfer for all of them: on a GPU each .item() would wait for the whole queue.
    numbers = torch.stack([value.detach().double() for value in values.values()]).tolist()
    return dict(zip(values, numbers, strict=True))
