"""A ladder with both priors: the warm-up, resuming to the bit, and what is seen of each layer."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from jlebm.backbones.conv import ConvBackbone
from jlebm.backbones.ladder import LadderConfig
from jlebm.errors import UserError
from jlebm.experiment import LearningName
from jlebm.learning.gaussian import Gaussian
from jlebm.learning.scheme import warmed_up
from jlebm.model import JointModel
from jlebm.randomness import SharedNoise
from jlebm.training import TrainState
from tests.small import IMAGES, experiment, fit_one, ladder_experiment

BINARY = np.where(np.random.default_rng(2).random((20, 1, 28, 28)) < 0.3, 255, 0).astype(np.uint8)
X = torch.tensor(IMAGES[:6], dtype=torch.float64) / 127.5 - 1


def draws(seed: int = 0) -> SharedNoise:
    return SharedNoise(torch.Generator().manual_seed(seed))


def built(learning: LearningName = "variational") -> JointModel:
    torch.manual_seed(1)
    return ladder_experiment(learning).build().double()


def assert_same_weights(a: TrainState, b: TrainState) -> None:
    assert a.step == b.step
    for kind in ("model", "ema"):
        ours, theirs = a.state_dict()[kind], b.state_dict()[kind]
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.slow
@pytest.mark.parametrize("learning", ["variational", "gaussian"])
def test_half_and_half_is_the_whole_bitwise(tmp_path: Path, learning: LearningName) -> None:
    """Twenty steps equal nine, a checkpoint and eleven: a warm-up that starts anew when resumed shows."""
    one = ladder_experiment(learning, kl_warmup=16)
    _, whole = fit_one(tmp_path / "whole", one, IMAGES)
    fit_one(tmp_path / "halves", one, IMAGES, stop_after=9)
    run, halves = fit_one(tmp_path / "halves", one, IMAGES)
    assert_same_weights(whole, halves)
    assert [event["step"] for event in run.events()] == [1, 11]
    for event in run.events():
        assert {"kl/z3", "kl/z2", "kl/z1"} <= event.keys()


@pytest.mark.parametrize("learning", ["variational", "gaussian"])
def test_every_network_learns(tmp_path: Path, learning: LearningName) -> None:
    """Decoder, conditionals, bottom-up path and energies all move; the Gaussian twin has no energies."""
    torch.manual_seed(1)
    _, state = fit_one(tmp_path, ladder_experiment(learning), IMAGES)
    _, earlier = fit_one(tmp_path / "early", ladder_experiment(learning), IMAGES, stop_after=1)
    for (name, old), new in zip(earlier.model.named_parameters(), state.model.parameters(), strict=True):
        assert not torch.equal(old, new), name
    rooms = {name.split(".")[1] for name, _ in state.model.named_parameters() if name.startswith("backbone.")}
    assert rooms == {"decoder", "conditionals", "bottom_up"}
    assert any(name.startswith("energy.") for name, _ in state.model.named_parameters()) == (learning != "gaussian")


def test_binary_images_of_28_pixels(tmp_path: Path) -> None:
    """MNIST's size with Bernoulli pixels: a loss that is finite and falls, and three layers that are seen."""
    config = LadderConfig((1, 28, 28), (2, 3, 4), (8, 6, 4), (7,), features=16, likelihood="bernoulli")
    one = ladder_experiment(model=config)
    run, _ = fit_one(tmp_path, one, BINARY)
    first, last = run.events()
    assert last["reconstruction"] < first["reconstruction"] < 28 * 28
    assert last["kl/z1"] > 0


def test_the_weight_of_the_kl_rises_to_one() -> None:
    """Positive from the first update, 1 from the last of the warm-up on; without one always 1."""
    assert [warmed_up(step, 4) for step in (0, 1, 2, 3, 4, 1000)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert [warmed_up(step, 0) for step in (0, 1)] == [1.0, 1.0]
    assert [warmed_up(step, 4, 0.1) for step in (0, 3, 4)] == pytest.approx([0.025, 0.1, 0.1])


@pytest.mark.parametrize("learning", ["variational", "gaussian"])
def test_a_weight_of_the_kl_is_another_sigma(learning: LearningName) -> None:
    """Weight w at sigma is w times the ELBO at sqrt(w) sigma, but for the pixels' constant: what the weight means."""
    weight, sigma = 0.25, 0.6
    losses = []
    for w, s in ((weight, sigma), (1.0, weight**0.5 * sigma)):
        plain = ladder_experiment(learning, kl_warmup=0, kl_weight=w)
        one = dataclasses.replace(
            plain,
            model=dataclasses.replace(plain.model, likelihood_sigma=s),
            optimizer=dataclasses.replace(plain.optimizer, energy_l2=0.0),
        )
        torch.manual_seed(1)
        constant = 64 * math.log(s * (2 * math.pi) ** 0.5)
        losses.append(one.scheme().update(one.build().double(), X, draws(), 5).loss().detach() - constant)
    torch.testing.assert_close(losses[0], weight * losses[1])


def test_the_gaussian_twin_learns_by_its_elbo() -> None:
    """-E[log p(x|z)] plus the weighted KL at the draw of q; a weight on the wrong part breaks it."""
    model = built("gaussian")
    sample = model.backbone.posterior(X, draws())
    assert sample.kl is not None
    likelihood = model.backbone.decode(sample.latents).log_prob(X).mean()
    for step, weight in ((1, 0.25), (100, 1.0)):
        update = Gaussian(kl_warmup=8).update(model, X, draws(), step)
        torch.testing.assert_close(update.loss(), weight * sample.kl.sum(0).mean() - likelihood)
        figures = update.figures()
        torch.testing.assert_close(figures["negative_elbo"], (sample.kl.sum(0).mean() - likelihood).detach())
        assert [float(figures[f"kl/z{3 - i}"]) for i in range(3)] == pytest.approx(sample.kl.mean(1).tolist())


def test_the_warm_up_weighs_the_kl_from_the_ebm_prior() -> None:
    """At weight w the loss is reconstruction + w KL(q | EBM prior) + penalty, and the reported KLs are not weighed."""
    model = built()
    whole = ladder_experiment(kl_warmup=0).scheme().update(model, X, draws(), 1)
    part = ladder_experiment(kl_warmup=8).scheme().update(model, X, draws(), 1)
    fixed = whole.losses.reconstruction + whole.losses.penalty
    torch.testing.assert_close(part.loss() - fixed, 0.25 * (whole.loss() - fixed))
    assert float((whole.loss() - fixed).detach().abs()) > 0.1, "a KL of zero would prove nothing"
    assert float(part.figures()["kl/z2"]) == float(whole.figures()["kl/z2"]) > 0


def test_a_backbone_that_does_not_know_its_kl_estimates_it() -> None:
    """Breaks if the twin of such a backbone is trained by another bound than E[log p(x, z) - log q(z|x)]."""
    model = experiment("gaussian").build()
    assert isinstance(model.backbone, ConvBackbone)
    sample = model.backbone.posterior(X.float(), draws())
    likelihood = model.backbone.decode(sample.latents).log_prob(X.float())
    bound = likelihood + model.backbone.prior_log_prob(sample.latents) - sample.log_prob
    update = Gaussian().update(model, X.float(), draws())
    torch.testing.assert_close(update.loss(), -bound.mean())
    kl = sample.log_prob - model.backbone.prior_log_prob(sample.latents)
    torch.testing.assert_close(update.figures()["kl/all"], kl.mean().detach())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"learning": "joint-mle"}, "set learning to variational or gaussian"),
        ({"learning": "gaussian"}, r"set energy_hidden to \[\]"),
        ({"kl_warmup": -1}, "kl_warmup must be a number of updates"),
        ({"kl_weight": 0.0}, "kl_weight must be positive"),
        ({"learning": "gaussian", "energy_hidden": (), "conditional_gradient": "posterior"}, "leave it exact"),
        ({"energy_hidden": ((6,), (6,))}, "names 2 layers, model.latent_dims 3"),
    ],
)
def test_what_does_not_fit_a_ladder_is_a_sentence(change: dict, sentence: str) -> None:
    """Learning, energies and warm-up that a ladder cannot have are refused before anything is built."""
    with pytest.raises(UserError, match=sentence):
        dataclasses.replace(ladder_experiment(), **change)


def test_what_does_not_fit_the_two_layer_model_is_a_sentence() -> None:
    """Its inference network is there where it learns, and maximum likelihood by chains has no KL."""
    without = dataclasses.replace(experiment().model, inference_network=False)
    with pytest.raises(UserError, match="inference_network must be true for learning 'gaussian'"):
        experiment("gaussian", model=without)
    with pytest.raises(UserError, match="0 for joint-mle"):
        experiment(kl_warmup=3)
    with pytest.raises(UserError, match="1 for joint-mle"):
        experiment(kl_weight=0.1)
