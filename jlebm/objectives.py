"""Losses of the learning schemes: means over the batch, in nats per image, whose gradients are the equations they name.

With z+ from the posterior and z- from the EBM prior, the log-likelihood's gradient (docs/facts, "Learning gradients")
is that of

    E[log p(x|z+)] + (E[log p0(z+)] - E[log p0(z-)]) - (E[E(z+)] - E[E(z-)]).

The middle pair is two-sided because Z depends on the Gaussian hierarchy too: its second half vanishes only if the
energy is zero.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

from jaxtyping import Float
from torch import Tensor

from jlebm.backbones.protocol import PosteriorSample, log_likelihood
from jlebm.latents import Latents, map_latents
from jlebm.model import JointModel

PriorSamples: TypeAlias = tuple[Float[Tensor, "prior_batch ..."], ...]
"""Latents z-, of which there may be another number than of images."""
ConditionalGradient = Literal["exact", "posterior"]
"""Gradient of the Gaussian conditionals' parameters: `exact` is the middle pair; `posterior` is its first half alone,
as in a VAE. The energies have their whole gradient in both.

The second half pushes p0 away from the prior's samples. It is the gradient of log Z if these follow the EBM prior;
short chains from p0 do not, once the energies are steep. Then p0 drifts away from its chains' starting points, the
chains follow, and energies and conditionals diverge (measured on CIFAR-10 and MNIST; results are in docs/results)."""


class Losses(NamedTuple):
    """The terms of a loss; `total()` is differentiated."""

    reconstruction: Float[Tensor, ""]
    """-E[log p(x|z+)]."""
    conditional: Float[Tensor, ""]
    """E[log p0(z-)] - E[log p0(z+)]."""
    energy: Float[Tensor, " layers"]
    """E[E_i(z+)] - E[E_i(z-)] of each layer, top first."""
    entropy: Float[Tensor, ""]
    """E[log q(z+|x)] of the inference network; zero for a chain's samples. If KL(q | p0) has a closed form, this is
    that KL, which then includes the second half of `conditional`."""
    penalty: Float[Tensor, ""]
    """Penalty on the energies' values, lambda E[E_i(z+)^2 + E_i(z-)^2]."""

    def total(self, kl_weight: float = 1.0) -> Float[Tensor, ""]:
        """Return the sum of all terms; those of KL(q(z|x) | p(z)) with the EBM prior are multiplied by `kl_weight`."""
        kl = (self.conditional, self.energy.sum(), self.entropy)
        return sum((kl_weight * part for part in kl), self.reconstruction) + self.penalty


def maximum_likelihood_loss(
    model: JointModel,
    x: Float[Tensor, "batch channels height width"],
    posterior: Latents,
    prior: PriorSamples,
    energy_l2: float = 0.0,
    conditional_gradient: ConditionalGradient = "exact",
) -> Losses:
    """Return the loss whose gradient is minus the log-likelihood's, from samples z+ of p(z|x) and z- of p(z).

    Args:
        model: generator and energies; gradients reach both, and samples only if they carry a graph.
        x: images in [-1, 1].
        posterior: z+, one row per image.
        prior: z-, any number of rows.
        energy_l2: weight of the squared energies, which keeps their scale from drifting; 0 in the paper.
        conditional_gradient: "posterior" changes no value, only the gradient of p0's parameters. Without energies it is
            the log-likelihood's too, with less noise, since the mean of p0's score over p0 is zero.
    """
    away = _away(model, prior, conditional_gradient)
    return contrastive_loss(model.energy_at, posterior, prior, energy_l2)._replace(
        reconstruction=-log_likelihood(model.backbone, posterior, x).mean(),
        conditional=away - model.backbone.prior_log_prob(posterior).mean(),
    )


def _away(model: JointModel, prior: PriorSamples, conditional_gradient: ConditionalGradient) -> Float[Tensor, ""]:
    """Return E[log p0(z-)], from which p0's parameters learn only if the gradient is exact."""
    away = model.backbone.prior_log_prob(prior).mean()
    return away.detach() if conditional_gradient == "posterior" else away


def contrastive_loss(
    energy: Callable[[Latents], Float[Tensor, "batch layers"]],
    posterior: Latents,
    prior: PriorSamples,
    energy_l2: float = 0.0,
) -> Losses:
    """Return the energies' contrastive loss E[E(z+)] - E[E(z-)]: the whole loss on a trained backbone.

    Args:
        energy: returns the energy of each layer at latents, such as `JointModel.energy_at`.
        posterior: z+; may carry the graph of an inference network.
        prior: z-, any number of rows.
        energy_l2: as in `maximum_likelihood_loss`.
    """
    positive, negative = energy(posterior), energy(prior)
    zero = positive.new_zeros(())
    squares = zero
    if energy_l2:  # at detached samples: the penalty trains the energies alone, not the inference network
        fixed = energy(map_latents(Tensor.detach, posterior))
        squares = fixed.square().sum(1).mean() + negative.square().sum(1).mean()
    return Losses(zero, zero, positive.mean(0) - negative.mean(0), zero, energy_l2 * squares)


def variational_loss(
    model: JointModel,
    x: Float[Tensor, "batch channels height width"],
    posterior: PosteriorSample,
    prior: PriorSamples,
    energy_l2: float = 0.0,
    conditional_gradient: ConditionalGradient = "exact",
) -> Losses:
    """Return minus the ELBO with the EBM prior, up to log Z, whose gradient the samples z- estimate.

    It minimises KL(p_data(x) q(z|x) | p(x, z)) over the inference network, the generator and the energies (docs/facts,
    "Variational learning"). `posterior` carries the graph of its reparametrisation; `prior` is z-. If `posterior` has
    KL(q | p0) in closed form, that replaces log q - log p0 at the draw, which has the same expectation and more noise.
    `conditional_gradient` changes no value, only the gradient of p0's parameters.
    """
    z = posterior.latents
    losses = contrastive_loss(model.energy_at, z, prior, energy_l2)
    reconstruction = -log_likelihood(model.backbone, z, x).mean()
    away = _away(model, prior, conditional_gradient)
    if posterior.kl is None:
        conditional, entropy = away - model.backbone.prior_log_prob(z).mean(), posterior.log_prob.mean()
    else:
        conditional, entropy = away, posterior.kl.sum(0).mean()
    return losses._replace(reconstruction=reconstruction, conditional=conditional, entropy=entropy)
