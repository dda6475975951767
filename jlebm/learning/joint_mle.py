"""Joint maximum likelihood: both expectations of the gradient by short Langevin chains.

Source: docs/facts, "Learning gradients" and "Langevin step sizes".
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from jlebm.errors import UserError
from jlebm.langevin import Chain
from jlebm.learning.scheme import ContrastiveUpdate, OneUpdate
from jlebm.learning.settings import JointSettings, refuse_conditional_gradient, refuse_free_bits
from jlebm.model import JointModel
from jlebm.objectives import maximum_likelihood_loss
from jlebm.randomness import Noise


@dataclass(frozen=True)
class JointMLE(OneUpdate):
    """Draw posterior and prior samples by short chains, restarted at every update.

    Without energies this is alternating back-propagation (Han et al., 2017, arXiv 1606.08571), for any number of
    layers: posterior chains with the Gaussian prior, whose own samples the gradient does not need.
    """

    prior_chain: Chain
    posterior_chain: Chain
    energy_l2: float = 0.0
    gaussian_prior: bool = False
    """Whether there are no energies: the prior is then drawn from without a chain."""

    has_energies = True
    needs_energies = False

    @classmethod
    def of(cls, settings: JointSettings) -> "JointMLE":
        """Return the scheme of a configuration.

        Raises:
            UserError: its model has an inference network, or it sets what belongs to another learning.
        """
        if not hasattr(settings.model, "inference_network"):
            raise UserError("this model learns through its inference network; set learning to variational or gaussian")
        if settings.model.inference_network:
            raise UserError(
                "model.inference_network must be true for variational learning and false for joint-mle; set it to "
                "false, or set learning to variational or gaussian"
            )
        if settings.kl_weight != 1:
            raise UserError(
                f"kl_weight must be positive, and 1 for joint-mle, which has no KL, not {settings.kl_weight}"
            )
        refuse_conditional_gradient("joint-mle", settings)
        refuse_free_bits("joint-mle", settings)
        if settings.kl_warmup:
            raise UserError(
                f"kl_warmup must be a number of updates, 0 for joint-mle, which has no KL, not {settings.kl_warmup}"
            )
        gaussian = settings.energy is None and not settings.energy_hidden
        return cls(settings.prior_chain, settings.posterior_chain, settings.optimizer.energy_l2, gaussian)

    def posterior_sampling_chain(self) -> Chain | None:
        """Return the posterior's chain of training, as there is no inference network."""
        return self.posterior_chain

    def update(
        self, model: JointModel, x: Float[Tensor, "batch channels height width"], noise: Noise, step: int = 0
    ) -> ContrastiveUpdate:
        """Run the prior's chains, then the posterior's, and return the maximum-likelihood loss at their ends."""
        if self.gaussian_prior:
            prior, gradient = model.sample_gaussian(len(x), noise), "posterior"
        else:
            prior, gradient = model.sample_prior(len(x), self.prior_chain, noise), "exact"
        posterior = model.sample_posterior(x, self.posterior_chain, noise)
        losses = maximum_likelihood_loss(model, x, posterior, prior, self.energy_l2, gradient)
        return ContrastiveUpdate(model, losses, posterior, prior)
