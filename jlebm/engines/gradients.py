"""Gradients of log-densities: by autograd for any density, in closed form if the density allows it.

The density alone decides, not the caller, and both ways give the same chain.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from jlebm.densities import LogDensity, Posterior, PriorInLatents
from jlebm.engines.closed_form import MLPPrior
from jlebm.engines.decoder_gradient import DecoderLikelihood
from jlebm.errors import UserError
from jlebm.latents import Latents, map_latents


@runtime_checkable
class Field(Protocol):
    """The gradient field that a chain follows, with the weights at construction."""

    def gradient(self, position: Latents) -> Latents:
        """Return the gradient of the log-density in every layer; detached."""
        ...

    def value_and_gradient(self, position: Latents) -> tuple[Float[Tensor, " batch"], Latents]:
        """Return the log-density of each element of the batch and the gradient; both detached."""
        ...


def field_of(log_density: LogDensity) -> Field:
    """Return the fastest field of a density: closed form for an EBM prior of perceptrons, else autograd."""
    if isinstance(log_density, PriorInLatents | Posterior):
        prior = MLPPrior.of(log_density.backbone, log_density.energy)
        if prior is not None and type(log_density) is PriorInLatents:
            return prior
        if prior is not None and type(log_density) is Posterior:
            return PosteriorField(prior, log_density)
    return Autograd(log_density)


def without_autograd(field: Field) -> AbstractContextManager[object]:
    """Return the mode for steps along a field: none of autograd's bookkeeping, if the field itself needs none.

    What is made in it cannot enter a graph of autograd; a copy made outside can.
    """
    return torch.inference_mode() if isinstance(field, MLPPrior) else nullcontext()


def outside_inference_mode() -> AbstractContextManager[object]:
    """Return a context in which a chain can follow gradients, if the caller is in `torch.inference_mode` too."""
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()


@dataclass(frozen=True)
class Autograd:
    """The field of any log-density, by autograd."""

    log_density: LogDensity

    def gradient(self, position: Latents) -> Latents:
        """See `Field`."""
        return self.value_and_gradient(position)[1]

    def value_and_gradient(self, position: Latents) -> tuple[Float[Tensor, " batch"], Latents]:
        """See `Field`.

        Raises:
            UserError: it is called under `torch.inference_mode`.
        """
        if torch.is_inference_mode_enabled():
            raise UserError("a chain follows gradients, which torch.inference_mode forbids; use torch.no_grad")
        with torch.enable_grad():
            leaves = map_latents(lambda layer: layer.detach().requires_grad_(), position)
            value = self.log_density(leaves)
            gradient = torch.autograd.grad(value.sum(), leaves, materialize_grads=True)
        return value.detach(), gradient


class PosteriorField:
    """The posterior's field: the prior in closed form, plus log p(x|z) so or by autograd through the decoder."""

    def __init__(self, prior: MLPPrior, posterior: Posterior):
        likelihood = DecoderLikelihood.of(posterior.backbone, posterior.x)
        self.prior: Field = prior
        self.likelihood: Field = Autograd(posterior.log_likelihood) if likelihood is None else likelihood

    def gradient(self, position: Latents) -> Latents:
        """See `Field`."""
        return map_latents(torch.add, self.prior.gradient(position), self.likelihood.gradient(position))

    def value_and_gradient(self, position: Latents) -> tuple[Float[Tensor, " batch"], Latents]:
        """See `Field`."""
        prior, prior_gradient = self.prior.value_and_gradient(position)
        likelihood, gradient = self.likelihood.value_and_gradient(position)
        return prior + likelihood, map_latents(torch.add, prior_gradient, gradient)
