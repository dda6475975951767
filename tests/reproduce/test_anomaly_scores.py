"""Scores of anomaly detection on a linear-Gaussian model, whose densities are known."""

import math

import numpy as np
import pytest
import torch

from jlebm.hierarchy import PartialPosterior, scores_above
from jlebm.images import to_float
from jlebm.langevin import Chain
from jlebm.model import JointModel
from jlebm.randomness import PerImageNoise
from reproduce.measuring.anomaly_scores import Scorer, names_of, scores, standardised
from reproduce.results.anomaly_names import STANDARDISED
from tests.linear import linear_model
from tests.test_hierarchy import encoded

TEST, TRAIN = (np.random.default_rng(seed).integers(0, 256, (9, 1, 1, 4), dtype=np.uint8) for seed in (4, 5))
SCORER = Scorer(draws=2, lower=Chain(3, 0.1, start="ancestral", space="noise"))


def found(model: JointModel, scorer: Scorer = SCORER) -> dict[str, np.ndarray]:
    names = names_of(2, energies=True)
    return scores(model, scorer, names, TEST, range(9), TRAIN)


def test_every_score_is_its_formula() -> None:
    """Breaks if a score has another sign, another term or another normalisation than its name says.

    p(x|z) = N(A z1, 0.25 I), p(z1|z2) = N(W z2 + b, s^2), E quadratic: each by hand, at the posterior's own draws.
    """
    model = encoded()
    backbone, draws = model.backbone, [[], [], []]
    noise = PerImageNoise("posterior", range(9))
    x = to_float(torch.tensor(TEST)).double()
    for _ in range(2):
        z2, z1 = backbone.posterior(x, noise).latents
        error = (x.flatten(1) - z1 @ backbone.loading.T).square().sum(1)
        draws[0].append(error / (2 * 0.25) + 4 / 2 * math.log(2 * math.pi * 0.25))
        sigma = backbone.log_sigma.exp()
        below = ((z1 - z2 @ backbone.weight.T - backbone.bias) / sigma).square().sum(1) / 2 + sigma.log().sum()
        draws[1].append(z2.square().sum(1) / 2 + below + 5 / 2 * math.log(2 * math.pi))
        pairs = zip((z2, z1), model.energy.networks, strict=True)
        f = [z @ net.shift - net.curvature / 2 * z.square().sum(1) for z, net in pairs]
        draws[2].append(-f[0] - f[1])
    reconstruction, prior, energy = (torch.stack(each).mean(0).detach().numpy() for each in draws)
    ours = found(model)
    np.testing.assert_allclose(ours["R"], reconstruction, rtol=1e-10)
    np.testing.assert_allclose(ours["E"], energy, rtol=1e-10)
    np.testing.assert_allclose(ours["L>0"], reconstruction + prior + energy, rtol=1e-10)
    above = scores_above(model, TEST, range(9), PartialPosterior(1, SCORER.lower), draws=2)
    np.testing.assert_allclose(ours["L>1"], -above, rtol=1e-10)


def test_standardisation_uses_training_images_only() -> None:
    """Breaks if a mean or a deviation of the test images, whose anomalies nobody has counted, goes into a score."""
    model = encoded()
    names = names_of(2, energies=True)
    whole = scores(model, SCORER, names, TEST, range(9), TRAIN)[STANDARDISED]
    for index in range(9):
        alone = scores(model, SCORER, names, TEST, [index], TRAIN)[STANDARDISED]
        np.testing.assert_allclose(alone, whole[[index]], rtol=1e-9)
    other = scores(model, SCORER, names, TEST, range(9), TRAIN[:4])[STANDARDISED]
    assert np.abs(other - whole).min() > 1e-6
    train = scores(model, SCORER, names, TRAIN, range(9), TRAIN)
    parts = standardised(train["R"], train["R"]) + standardised(train["E"], train["E"])
    np.testing.assert_allclose(train[STANDARDISED], parts, rtol=1e-9)
    assert parts.mean() == pytest.approx(0, abs=1e-12)
    assert standardised(train["R"], train["R"]).std() == pytest.approx(1, rel=1e-12)


def test_a_twin_has_no_energies() -> None:
    """Breaks if a model with a Gaussian prior is given a score of energies that it lacks."""
    assert names_of(2, energies=False) == ("L>0", "R", "L>1")
    assert names_of(1, energies=True) == ("L>0", "E", "R", "zR+zE")


def test_a_posterior_chain_scores_a_model_without_an_encoder() -> None:
    """Breaks if the posterior of joint maximum likelihood, a chain from N(0, I), is not the one that scores."""
    model = linear_model()
    few, many = (found(model, Scorer(1, Chain(steps, 0.02), SCORER.lower))["L>0"] for steps in (1, 60))
    assert many.mean() < few.mean()  # the chain goes where the joint density is high


def test_a_row_says_what_its_score_is() -> None:
    """Breaks if two scores are told alike."""
    said = {SCORER.describe(name, 10) for name in names_of(3, energies=True)}
    assert len(said) == 6
