"""What a learning scheme is: from a batch of images to a loss and to the figures worth watching."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int64
from torch import Tensor, nn

from jlebm.backbones.protocol import ELBOTerms
from jlebm.latents import Latents, layer_names
from jlebm.model import JointModel
from jlebm.objectives import Losses
from jlebm.randomness import Noise


@runtime_checkable
class Update(Protocol):
    """What one update of a scheme is made from."""

    def loss(self) -> Float[Tensor, ""]:
        """Return what is differentiated, with its graph to the parameters."""
        ...

    def figures(self) -> dict[str, Tensor]:
        """Return what is recorded, by name, as detached scalars; computed for the few updates that are recorded."""
        ...


@runtime_checkable
class Scheme(Protocol):
    """A way of learning; frozen configuration, no state between updates."""

    def updates(
        self,
        model: Any,
        x: Float[Tensor, "batch channels height width"],
        labels: Int64[Tensor, " batch"] | None,
        noise: Noise,
        step: int,
    ) -> Iterator[tuple[Update, Sequence[nn.Parameter] | None]]:
        """Yield what training step number `step` is made of, each update with the parameters that it moves.

        Most schemes have one (`OneUpdate`). One that learns in turns computes each from what the one before left.

        Args:
            model: what is trained: a `JointModel`, or what else the scheme says.
            x: images in [-1, 1].
            labels: their classes, where the dataset has them.
            noise: the source of every draw.
            step: training steps made before, for what changes over a training.

        Yields:
            An update, and the parameters that its gradient goes to; None for all.
        """
        ...


class OneUpdate:
    """A scheme whose training step is one update of all parameters."""

    def update(
        self, model: Any, x: Float[Tensor, "batch channels height width"], noise: Noise, step: int = 0
    ) -> Update:
        """Draw the samples that update number `step` needs and return its loss; arguments as in `Scheme`."""
        raise NotImplementedError

    def updates(
        self,
        model: Any,
        x: Float[Tensor, "batch channels height width"],
        labels: Int64[Tensor, " batch"] | None,
        noise: Noise,
        step: int,
    ) -> Iterator[tuple[Update, Sequence[nn.Parameter] | None]]:
        """See `Scheme`."""
        yield self.update(model, x, noise, step), None


def warmed_up(step: int, steps: int, full: float = 1.0) -> float:
    """Return the weight of the KL at update number `step`: it rises by equal parts to `full` at the last of `steps`."""
    return full * min(1.0, (step + 1) / max(steps, 1))


@dataclass(frozen=True)
class ContrastiveUpdate:
    """A loss of samples z+ of the posterior and z- of the prior, both detached."""

    model: JointModel
    losses: Losses
    posterior: Latents
    prior: Latents
    kl: Float[Tensor, "layers batch"] | None = None
    """KL of q from p0 in each layer, top first, where it is known."""
    kl_weight: float = 1.0

    def loss(self) -> Float[Tensor, ""]:
        """See `Update`."""
        return self.losses.total(self.kl_weight)

    def figures(self) -> dict[str, Tensor]:
        """Return losses, energies and the largest latent of each layer, and its KL: a collapsed one is seen."""
        model = self.model
        positive, negative = model.energies(self.posterior), model.energies(self.prior)
        values = {
            "loss": self.loss(),
            "reconstruction": self.losses.reconstruction,
            "conditional": self.losses.conditional,
        }
        for index, name in enumerate(model.layer_names):
            values[f"energy_posterior/{name}"] = positive[:, index].mean()
            values[f"energy_prior/{name}"] = negative[:, index].mean()
            values[f"range_posterior/{name}"] = self.posterior[index].abs().max()
            values[f"range_prior/{name}"] = self.prior[index].abs().max()
            if self.kl is not None:
                values[f"kl/{name}"] = self.kl[index].mean()
        return {name: value.detach() for name, value in values.items()}


@dataclass(frozen=True)
class ELBOUpdate:
    """A loss and what it is made of."""

    terms: ELBOTerms
    objective: Float[Tensor, ""]
    """What is minimised: -E[log p(x|z)], the weighted KLs and the penalties, a mean over the batch in nats an image."""
    weight: float
    """Of the KL, the full one after the warm-up."""

    def loss(self) -> Float[Tensor, ""]:
        """See `Update`."""
        return self.objective

    def figures(self) -> dict[str, Tensor]:
        """Return the objective, minus the ELBO and its parts, and the KL of each group: a collapsed one is seen."""
        terms = self.terms
        values = {
            "loss": self.objective,
            "negative_elbo": (terms.kl.sum(0) - terms.log_likelihood).mean(),
            "reconstruction": -terms.log_likelihood.mean(),
            "kl_weight": self.objective.new_tensor(self.weight),
        }
        for name, kl, z in zip(layer_names(len(terms.latents)), terms.kl, terms.latents, strict=True):
            values[f"kl/{name}"] = kl.mean()
            values[f"range_posterior/{name}"] = z.abs().max()
        return {name: value.detach() for name, value in values.items()}
