"""Scores of anomaly detection by name; a higher score means that an image is more of an anomaly."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8

from jlebm.choices import GENERATOR, Scheme
from jlebm.hierarchy import PartialPosterior, posterior_terms, scores_above
from jlebm.langevin import Chain
from jlebm.model import JointModel
from reproduce.measuring.sample_sets import posterior_indices
from reproduce.results.anomaly_names import ENERGIES, LITERAL, RECONSTRUCTION, STANDARDISED

STANDARD = 10_000  # evenly spaced training images, over which scores are standardised


@dataclass(frozen=True)
class Scorer:
    """How the posterior of an image is drawn, and the layers below a kept one."""

    draws: int
    """Posterior samples per image; a score is their mean."""
    posterior: Chain | None = None
    """Chain of p(z|x) from its start; None draws from the inference network."""
    lower: Chain | None = None
    """Chain of the EBM prior of the layers below those that are kept; None draws from the Gaussian prior."""
    noise: Scheme = GENERATOR
    """Scheme of the noise of the posterior samples and of the layers below them."""

    def latents(self, k: int = 0) -> PartialPosterior:
        """Return how the layers above k are drawn from the posterior, and those below from the prior."""
        return PartialPosterior(k, self.lower if k else None, self.posterior, self.noise)

    def describe(self, name: str, standard: int) -> str:
        """Say what a score is, for its row.

        Args:
            name: of the score.
            standard: number of training images. Stored rows name all of them, and are of `STANDARD` at most.
        """
        if name == STANDARDISED:
            what = f"reconstruction error and energies, each standardised on {standard} training images, added"
        else:
            what = {LITERAL: "-L>0", ENERGIES: "E(z), the energies alone", RECONSTRUCTION: "-log p(x|z)"}.get(
                name, f"-{name}, the layers below it from the prior"
            )
        return f"score: {what}, mean of {self.draws} posterior samples"


def names_of(layers: int, energies: bool) -> tuple[str, ...]:
    """Return the scores that a model of so many layers has; without energies those of its Gaussian prior."""
    own = (LITERAL, ENERGIES, RECONSTRUCTION, STANDARDISED) if energies else (LITERAL, RECONSTRUCTION)
    return (*own, *(f"L>{k}" for k in range(1, layers)))


def scores(
    model: JointModel,
    scorer: Scorer,
    names: Sequence[str],
    test: UInt8[np.ndarray, "count channels height width"],
    chosen: Sequence[int],
    train: UInt8[np.ndarray, "count channels height width"],
) -> dict[str, Float64[np.ndarray, " chosen"]]:
    """Return the named scores of the chosen test images.

    `STANDARDISED` takes means and deviations from training images alone: no score uses the test set, whose share of
    anomalies would be unknown.

    Args:
        model: the trained model.
        scorer: how latents are drawn.
        names: some of `names_of`, for the model's layers and energies.
        test: images of both kinds.
        chosen: indices of the test images to use.
        train: images that the model learned from.
    """
    terms = posterior_terms(model, test, chosen, scorer.latents(), scorer.draws)
    found = {LITERAL: -terms.log_joint, ENERGIES: terms.energy, RECONSTRUCTION: -terms.log_likelihood}
    if STANDARDISED in names:
        some = posterior_indices(len(train), min(STANDARD, len(train)))
        usual = posterior_terms(model, train, some, scorer.latents(), scorer.draws)
        found[STANDARDISED] = standardised(-terms.log_likelihood, -usual.log_likelihood) + standardised(
            terms.energy, usual.energy
        )
    for k in range(1, len(model.backbone.latent_shapes)):
        if (name := f"L>{k}") in names:
            found[name] = -scores_above(model, test, chosen, scorer.latents(k), scorer.draws)
    return {name: found[name] for name in names}


def standardised(
    values: Float64[np.ndarray, " images"], usual: Float64[np.ndarray, " training"]
) -> Float64[np.ndarray, " images"]:
    """Standardise values by the mean and the standard deviation of the usual ones."""
    return (values - usual.mean()) / usual.std()
