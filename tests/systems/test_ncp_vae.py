"""What makes a reweighted prior right: the classifier's logit is the log ratio, and both samplers draw from r p / Z."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from jlebm.errors import UserError
from jlebm.langevin import Chain
from jlebm.latents import Latents
from jlebm.randomness import SharedNoise
from reproduce.systems import presets_of
from reproduce.systems.ncp_vae import NCPVAE, Classifier, ClassifierConfig, NCPSampler, contrast, resampled
from tests import small

EXACT = Chain(30, 0.25, start="ancestral", space="noise", metropolis=True)


class Tilt(nn.Module):
    """A classifier whose log ratio is known: a e - b e^2 / 2 of one latent e, a being a function of the state."""

    b = 0.8

    def context(self, state: Tensor) -> Tensor:
        """Return a, of shape (batch, 1, 1, 1)."""
        return 1.5 * torch.tanh(2 * state[:, :1, :1, :1])

    def forward(self, eps: Tensor, context: Tensor) -> Tensor:
        """Return the log ratio."""
        e = eps[:, 0, 0, 0]
        return context[:, 0, 0, 0] * e - 0.5 * self.b * e.square()


def tilted(method: str, chain: Chain = EXACT, proposals: int = 100) -> NCPVAE:
    """Return a system of two groups whose classifiers are `Tilt`s."""
    sampler = NCPSampler(method, proposals, chain)
    system = NCPVAE(ClassifierConfig(2, 0), sampler, small.backbone())
    system.network = nn.ModuleList([Tilt(), Tilt()])
    return system.eval()


def whitened(system: NCPVAE, z: Latents) -> tuple[list[Tensor], list[Tensor]]:
    """Return eps and a of every group of these latents."""
    steps = list(system.backbone.top_down(len(z[0]), lambda step: z[step.group]))
    eps = [(latents - step.prior.mean) / step.prior.sigma for step, latents in steps]
    return eps, [Tilt().context(step.state)[:, 0, 0, 0] for step, _ in steps]


def furthest(first: Tensor, second: Tensor) -> float:
    """Return the largest distance of two samples' distribution functions (Kolmogorov and Smirnov)."""
    points = torch.cat([first, second])
    shares = [torch.searchsorted(each.sort()[0], points, right=True) / len(each) for each in (first, second)]
    return float((shares[0] - shares[1]).abs().max())


@pytest.mark.slow
def test_the_logit_converges_to_the_log_ratio() -> None:
    """Of N(0.9 c, 0.7^2) against N(0, 1), given c: a wrong sign, a missing factor or an unseen context breaks this."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    classifier = Classifier(1, 1, ClassifierConfig(channels=16, blocks=1))
    optimizer = torch.optim.Adam(classifier.parameters(), 5e-3)

    def pair(count: int) -> tuple[Tensor, Tensor, Tensor]:
        c, of_q, of_p = torch.randn(3, count, 1, 1, 1, generator=generator)
        return c, 0.9 * c + 0.7 * of_q, of_p

    def error() -> float:
        c, of_q, of_p = pair(4000)
        z, c = torch.cat([of_q, of_p]), torch.cat([c, c])
        known = 0.5 * z.square() - 0.5 * ((z - 0.9 * c) / 0.7).square() - math.log(0.7)
        inside = (z.abs() < 2) & (c.abs() < 1.5)  # where both have samples
        with torch.no_grad():
            logit = classifier(z, classifier.context(c)).reshape(z.shape)
        return float((logit - known)[inside].square().mean().sqrt() / known[inside].std())

    before = error()
    for step in range(500):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / 500)
        c, of_q, of_p = pair(512)
        context = classifier.context(c)
        optimizer.zero_grad()
        contrast(classifier(of_q, context), classifier(of_p, context)).backward()
        optimizer.step()
    assert before > 0.9
    assert error() < 0.2


def test_the_loss_is_least_at_the_log_ratio() -> None:
    """At logit = log q - log p the gradient of q log D + p log(1 - D) is zero; swapped samples break this."""
    q, p = torch.tensor([0.7, 0.3], dtype=torch.float64), torch.tensor([0.2, 0.8], dtype=torch.float64)
    logit = (q.log() - p.log()).requires_grad_()
    # Samples in proportion to the two densities.
    of_q, of_p = logit[[0] * 7 + [1] * 3], logit[[0] * 2 + [1] * 8]
    (gradient,) = torch.autograd.grad(contrast(of_q, of_p), logit)
    torch.testing.assert_close(gradient, torch.zeros(2).double(), atol=1e-15, rtol=0)


@torch.no_grad()
def test_resampling_and_langevin_agree_in_distribution() -> None:
    """Each group's tilted latent is N(a / (1 + b), 1 / (1 + b)) given those above, the others N(0, 1), by both.

    A choice by r in the wrong direction, a chain without the Gaussian's part, or a context that the proposals of
    another image see breaks one of the two.
    """
    count, tilts = 1500, {}
    for seed, method in enumerate(("resampling", "langevin")):
        system = tilted(method)
        z = system.latents(count, SharedNoise(torch.Generator().manual_seed(seed)))
        eps, shifts = whitened(system, z)
        assert shifts[1].std() > 0.05, "the second group's law depends on the first group"
        law = [(e[:, 0, 0, 0] - a / (1 + Tilt.b)) * math.sqrt(1 + Tilt.b) for e, a in zip(eps, shifts, strict=True)]
        for standard in law:
            assert standard.mean().abs() < 0.1
            assert abs(float(standard.std()) - 1) < 0.07
        for e in eps:
            rest = e.flatten(1)[:, 1:]
            assert rest.mean().abs() < 0.01
            assert abs(float(rest.std()) - 1) < 0.01
        tilts[method] = law + [e[:, 0, 0, 0] for e in eps]
    for first, second in zip(tilts["resampling"], tilts["langevin"], strict=True):
        assert furthest(first, second) < 1.63 * math.sqrt(2 / count)  # one per cent of equal samples are further


@torch.no_grad()
def test_one_proposal_is_the_gaussian_prior() -> None:
    """A choice among one that is not that one, or noise that is not whitened as the backbone's is, breaks this."""
    system = tilted("resampling", proposals=1)
    generator = torch.Generator().manual_seed(0)
    seen: list[Tensor] = []

    def noise(like: Latents) -> Latents:
        drawn = SharedNoise(generator)(like)
        seen.append(drawn[0][:, 0])
        return drawn

    z = system.latents(3, noise)
    for ours, plain in zip(z, system.backbone.push(tuple(seen)), strict=True):
        torch.testing.assert_close(ours, plain)


def test_resampling_in_parts_is_resampling() -> None:
    """The choice among 50, made in three parts, follows the ratio as a choice among all at once does.

    Proposals are told apart by their sign: with a ratio of 9 for the positive ones nine in ten are taken.
    """
    like = torch.empty(4000, 1)
    noise = SharedNoise(torch.Generator().manual_seed(0))
    eps = resampled(lambda e: torch.where(e[:, 0] > 0, math.log(9.0), 0.0), like, 50, noise)
    # The expectation of 9 k / (9 k + 50 - k), k positive among 50, is 0.897.
    assert float((eps > 0).float().mean()) == pytest.approx(0.897, abs=0.015)


def test_what_it_cannot_stand_on_is_refused() -> None:
    """A missing backbone, and a chain whose drift is not that of the density, are named."""
    one = presets_of("ncp-vae")["tiny"]
    with pytest.raises(UserError, match="trained NVAE"):
        one.build(None)
    with pytest.raises(UserError, match="space to 'noise'"):
        NCPSampler(chain=dataclasses.replace(EXACT, drift="released"))
