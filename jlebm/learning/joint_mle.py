"""Joint maximum likelihood: both expectations of the gradient by short Langevin chains.

Source: docs/facts, "Learning gradients" and "Langevin step sizes".
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from jlebm.langevin import Chain
from jlebm.learning.scheme import ContrastiveUpdate, OneUpdate
from jlebm.model import JointModel
from jlebm.objectives import maximum_likelihood_loss
from jlebm.randomness import Noise


@dataclass(frozen=True)
class JointMLE(OneUpdate):
    """Draw posterior and prior samples by short chains, restarted at every update."""

    prior_chain: Chain
    posterior_chain: Chain
    energy_l2: float = 0.0

    def update(
        self, model: JointModel, x: Float[Tensor, "batch channels height width"], noise: Noise, step: int = 0
    ) -> ContrastiveUpdate:
        """Run the prior's chains, then the posterior's, and return the maximum-likelihood loss at their ends."""
        prior = model.sample_prior(len(x), self.prior_chain, noise)
        posterior = model.sample_posterior(x, self.posterior_chain, noise)
        losses = maximum_likelihood_loss(model, x, posterior, prior, self.energy_l2)
        return ContrastiveUpdate(model, losses, posterior, prior)
