"""Energies by noise contrast: logistic regression that tells posterior samples from draws of the Gaussian prior.

With equal numbers of both, the best classifier's logit is log q(z) - log p0(z), q being the aggregate posterior, so the
logit -E(z) makes exp(-E) p0 the density of the posterior samples, with Z = 1 (Gutmann and Hyvarinen, 2010, "Noise-
contrastive estimation"; Aneja et al., arXiv 2010.02917, sec. 3.2, for the priors of a VAE). No chain is run, and the
logistic loss is bounded where the two distributions are far apart, so energies cannot run away; where they hardly
overlap, the classifier learns little about the density between them, which chains explore.

On a top-down backbone the ratio is a product over layers, log q(z) - log p0(z) = sum_i log q(z_i|z_{>i}) -
log p0(z_i|z_{>i}), and each factor can be learned by a classifier of its own: of the posterior's layer against one
drawn from p0 below the posterior's upper layers. Each factor's two classes overlap more than those of the whole
(Rhodes et al., 2020, arXiv 2006.12204, split a ratio for that reason), and no layer is left unlearned because another
tells the classes apart.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from jlebm.latents import Latents, map_latents
from jlebm.learning.scheme import OneUpdate
from jlebm.model import JointModel
from jlebm.randomness import Noise


@dataclass(frozen=True)
class NoiseContrastUpdate:
    """The logistic loss, with the energies at both kinds of samples."""

    model: JointModel
    objective: Float[Tensor, ""]
    """Mean binary cross-entropy of the two classes, added over classifiers and weighted, plus the penalty: for a weight
    of 1, 2 log 2 for each classifier where the energies are zero."""
    positive: Float[Tensor, "batch layers"]
    """Energies at posterior samples, top first."""
    negative: Float[Tensor, "batch layers"]
    """Energies at draws of p0; of each layer, where it alone was drawn, if layers have classifiers of their own."""
    by_layer: bool = False
    """Whether each layer has a classifier of its own; `accuracy` is then the mean over them."""

    def loss(self) -> Float[Tensor, ""]:
        """See `Update`."""
        return self.objective

    def figures(self) -> dict[str, Tensor]:
        """Return the loss, the share of samples on the right side, and the mean energies of each layer."""
        above, below = (self.positive, self.negative) if self.by_layer else (self.positive.sum(1), self.negative.sum(1))
        values = {"loss": self.objective, "accuracy": torch.cat([above < 0, below > 0]).float().mean()}
        for index, name in enumerate(self.model.layer_names):
            values[f"energy_posterior/{name}"] = self.positive[:, index].mean()
            values[f"energy_prior/{name}"] = self.negative[:, index].mean()
        return {name: value.detach() for name, value in values.items()}


@dataclass(frozen=True)
class NoiseContrast(OneUpdate):
    """Draw from q(z|x) and from p0, as many of each, and classify them by the energies."""

    energy_l2: float = 0.0
    by_layer: bool = False
    """Whether each layer has a classifier of its own, by the chain rule; else one has the sum of the energies."""
    weight: float = 1.0
    """Weight of the cross-entropy beside the penalty and the loss of chains."""

    def update(
        self, model: JointModel, x: Float[Tensor, "batch channels height width"], noise: Noise, step: int = 0
    ) -> NoiseContrastUpdate:
        """Draw both kinds of samples without a graph and return the energies' logistic loss."""
        with torch.no_grad():
            posterior = model.backbone.posterior(x, noise).latents
        return self.classified(model, map_latents(Tensor.detach, posterior), noise)

    def classified(self, model: JointModel, posterior: Latents, noise: Noise) -> NoiseContrastUpdate:
        """Return the loss at samples z+ of q(z|x), against as many of p0 that are drawn here.

        Raises:
            UserError: layers have classifiers of their own, and the backbone has no path.
        """
        if self.by_layer:
            eps = model.noise(len(posterior[0]), noise)
            positive, negative = model.energy.at_redrawn(model.backbone, posterior, eps)
            losses = [logistic_loss(*pair) for pair in zip(positive.unbind(1), negative.unbind(1), strict=True)]
            objective = torch.stack(losses).sum()
        else:
            prior = model.sample_gaussian(len(posterior[0]), noise)
            positive, negative = model.energy_at(posterior), model.energy_at(prior)
            objective = logistic_loss(positive.sum(1), negative.sum(1))
        objective = self.weight * objective
        if self.energy_l2:
            squares = positive.square().sum(1).mean() + negative.square().sum(1).mean()
            objective = objective + self.energy_l2 * squares
        return NoiseContrastUpdate(model, objective, positive, negative, self.by_layer)


def logistic_loss(positive: Float[Tensor, " batch"], negative: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
    """Return -E[log s(-E(z+))] - E[log s(E(z-))] with the logistic function s: 2 log 2 for zero energies.

    Args:
        positive: energies at samples of the density that is learned.
        negative: energies at samples of the base density.
    """
    return F.softplus(positive).mean() + F.softplus(-negative).mean()
