"""The protocol of a learning scheme: from a batch of images to a loss and logged figures."""

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
    """The loss of one update, and the figures to log."""

    def loss(self) -> Float[Tensor, ""]:
        """Return the loss, with its autograd graph to the parameters."""
        ...

    def figures(self) -> dict[str, Tensor]:
        """Return the figures to log, by name, as detached scalars; called only for logged updates."""
        ...


@runtime_checkable
class Scheme(Protocol):
    """A learning scheme: frozen configuration, no state between updates."""

    def updates(
        self,
        model: Any,
        x: Float[Tensor, "batch channels height width"],
        labels: Int64[Tensor, " batch"] | None,
        noise: Noise,
        step: int,
    ) -> Iterator[tuple[Update, Sequence[nn.Parameter] | None]]:
        """Yield the updates of training step number `step`, each with the parameters that it moves.

        Most schemes have one update (`OneUpdate`). An alternating scheme computes each after applying the one before.

        Args:
            model: the model to train: a `JointModel`, or whatever the scheme expects.
            x: images in [-1, 1].
            labels: their classes; None if the dataset has none.
            noise: the source of every draw.
            step: training steps done before, for schedules.

        Yields:
            Each update with the parameters that receive its gradient; None for all.
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
    """Return the weight of the KL at update number `step`: linear up to `full` at the last of `steps`."""
    return full * min(1.0, (step + 1) / max(steps, 1))


@dataclass(frozen=True)
class ContrastiveUpdate:
    """A loss computed from samples z+ of the posterior and z- of the prior, both detached."""

    model: JointModel
    losses: Losses
    posterior: Latents
    prior: Latents
    kl: Float[Tensor, "layers batch"] | None = None
    """KL(q | p0) of each layer, top first; None if it is unknown."""
    kl_weight: float = 1.0

    def loss(self) -> Float[Tensor, ""]:
        """See `Update`."""
        return self.losses.total(self.kl_weight)

    def figures(self) -> dict[str, Tensor]:
        """Return losses, energies, the largest latent and the KL of each layer; the KL shows posterior collapse."""
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
    """A loss and its terms."""

    terms: ELBOTerms
    objective: Float[Tensor, ""]
    """The objective: -E[log p(x|z)], weighted KLs and penalties, a mean over the batch in nats per image."""
    weight: float
    """Full weight of the KL, after the warm-up."""

    def loss(self) -> Float[Tensor, ""]:
        """See `Update`."""
        return self.objective

    def figures(self) -> dict[str, Tensor]:
        """Return the objective, minus the ELBO and its terms, and each group's KL, which shows posterior collapse."""
        terms = self.terms
        values = {
            "loss": self.objective,
            "negative_elbo": (terms.kl.sum(0) - terms.log_likelihood).mean(),
            "reconstruction": -terms.log_likelihood.mean(),
            "kl_weight": self.objective.new_tensor(self.weight),
        }
        names = layer_names(len(terms.latents))
        for name, kl in zip(names if len(terms.kl) == len(names) else ("all",), terms.kl, strict=True):
            values[f"kl/{name}"] = kl.mean()
        for name, z in zip(names, terms.latents, strict=True):
            values[f"range_posterior/{name}"] = z.abs().max()
        return {name: value.detach() for name, value in values.items()}
