"""The top-down hierarchy: its densities by change of variables, its posterior, free bits, and energies on its maps."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from jlebm.backbones.protocol import Backbone
from jlebm.backbones.topdown import TopDownBackbone, TopDownConfig
from jlebm.energies import MapEnergy
from jlebm.errors import UserError
from jlebm.experiment import Experiment, OptimizerConfig
from jlebm.langevin import Chain
from jlebm.latents import Latents, standard_normal_log_prob
from jlebm.learning.trainable import TrainingConfig
from jlebm.learning.two_stage import EnergyOptimizer, TwoStageExperiment
from jlebm.randomness import SharedNoise
from jlebm.run import open_run
from jlebm.training import LoopControl, fit
from tests.small import IMAGES

CONFIG = TopDownConfig(
    (1, 8, 8), sides=(1, 2, 4), widths=(6, 5, 4), groups=(1, 2, 1), maps=(3, 2, 1), encoder_blocks=(0, 1, 0),
    decoder_blocks=(0, 0, 1), last_width=3,
)  # fmt: skip
CHAIN = Chain(3, 0.1, start="ancestral", space="noise")


@pytest.fixture(scope="module")
def backbone() -> TopDownBackbone:
    torch.manual_seed(3)
    network = TopDownBackbone(CONFIG).double()
    with torch.no_grad():
        for parameter in network.parameters():  # the first weights of priors are near zero: a law would be trivial
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def noise(count: int, seed: int = 1) -> Latents:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(count, *shape, generator=generator).double() for shape in CONFIG.latent_shapes)


def flat(z: Latents) -> Tensor:
    return torch.cat([layer.flatten(1) for layer in z], 1)


def unflat(z: Tensor) -> Latents:
    sizes = [int(np.prod(shape)) for shape in CONFIG.latent_shapes]
    return tuple(part.view(-1, *shape) for part, shape in zip(z.split(sizes, 1), CONFIG.latent_shapes, strict=True))


def test_shapes(backbone: TopDownBackbone) -> None:
    """Breaks if layers are not counted top first, or the backbone lacks a method of the protocol."""
    assert isinstance(backbone, Backbone)
    assert backbone.latent_shapes == ((3, 1, 1), (2, 2, 2), (2, 2, 2), (1, 4, 4))
    z = backbone.push(noise(5))
    assert tuple(layer.shape[1:] for layer in z) == backbone.latent_shapes
    assert backbone.decode(z).mean.shape == (5, 1, 8, 8)
    whole = TopDownConfig((3, 8, 8), (1, 8), (4, 4), (1, 1), (2, 1), (0, 0), (0, 0))  # the last level is the image's
    assert TopDownBackbone(whole).decode(
        TopDownBackbone(whole).push(tuple(torch.zeros(2, *s) for s in whole.latent_shapes))
    ).mean.shape == (2, 3, 8, 8)


def test_the_density_is_that_of_the_push(backbone: TopDownBackbone) -> None:
    """Log p0(T(eps)) = log N(eps) - log |det dT/d eps|, the determinant by autograd of the whole map.

    Breaks if a layer's sigma, mean or parents differ between drawing and density.
    """
    eps = noise(3)
    density = backbone.prior_log_prob(backbone.push(eps))
    for index in range(3):
        one = flat(tuple(layer[index : index + 1] for layer in eps))
        jacobian = torch.autograd.functional.jacobian(lambda x: flat(backbone.push(unflat(x))), one)[0, :, 0]
        expected = standard_normal_log_prob(unflat(one)) - torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(density[index : index + 1], expected)


def test_given_layers_stay(backbone: TopDownBackbone) -> None:
    """Breaks if kept layers move, or the lower ones do not follow from their noise and the kept ones."""
    eps = noise(4)
    z = backbone.push(eps)
    for kept in range(5):
        again = backbone.push_below(z[:kept], eps[kept:])
        assert all(torch.equal(new, old) for new, old in zip(again[:kept], z[:kept], strict=True))
        for new, old in zip(again, z, strict=True):
            torch.testing.assert_close(new, old)
    cold = backbone.push(eps, 0.0)
    torch.testing.assert_close(cold, backbone.push(tuple(torch.zeros_like(layer) for layer in eps)))


def test_every_layer_reaches_the_image_and_the_layers_below(backbone: TopDownBackbone) -> None:
    """Breaks if a layer is cut off: from the pixels, or as a parent of the layers below it."""
    eps = tuple(layer.requires_grad_() for layer in noise(2))
    z = backbone.push(eps)
    for layer in torch.autograd.grad(backbone.decode(z).mean.square().sum(), eps, retain_graph=True):
        assert float(layer.abs().max()) > 1e-9
    for index in range(3):
        (gradient,) = torch.autograd.grad(z[3].sum(), [eps[index]], retain_graph=True)
        assert float(gradient.abs().max()) > 1e-9


def test_an_image_does_not_depend_on_its_batch(backbone: TopDownBackbone) -> None:
    """Breaks if statistics of a batch enter, as a batch norm's would."""
    eps, x = noise(4), torch.rand(4, 1, 8, 8).double() * 2 - 1
    z = backbone.push(eps)
    alone = backbone.push(tuple(layer[2:3] for layer in eps))
    torch.testing.assert_close(flat(alone), flat(z)[2:3])
    torch.testing.assert_close(backbone.decode(alone).mean, backbone.decode(z).mean[2:3])
    whole = backbone.posterior(x, lambda like: eps)
    part = backbone.posterior(x[2:3], lambda like: tuple(layer[2:3] for layer in eps))
    torch.testing.assert_close(part.log_prob, whole.log_prob[2:3])


def test_the_posteriors_densities(backbone: TopDownBackbone) -> None:
    """E[log q - log p0] is the sum of the layers' KLs, and each KL is positive.

    Breaks if log q is not of the drawn latents, or a KL is of another pair than q and the prior given the same path.
    """
    x = (torch.rand(1, 1, 8, 8).double() * 2 - 1).expand(4_000, -1, -1, -1)
    with torch.no_grad():
        sample = backbone.posterior(x, lambda like: noise(4_000, seed=5))
        difference = sample.log_prob - backbone.prior_log_prob(sample.latents)
    assert sample.kl is not None
    assert bool((sample.kl > 0).all())
    gap = difference - sample.kl.sum(0)
    assert abs(float(gap.mean())) < 5 * float(gap.std()) / 4_000**0.5


# ---- learning


def experiment(**changes) -> Experiment:
    one = Experiment(
        "test/1", "tiny", "noise", learning="gaussian", model=CONFIG, energy_hidden=(), prior_chain=CHAIN,
        optimizer=OptimizerConfig(1e-3, ema_decay=0.9), training=TrainingConfig(10, 5), kl_warmup=4,
    )  # fmt: skip
    return dataclasses.replace(one, **changes)


def test_free_bits_pay_for_what_is_above_them() -> None:
    """The loss counts max(mean KL, free) of each layer, and a layer below its floor has no gradient of its KL."""
    torch.manual_seed(1)
    one = experiment(free_bits=(50.0, 0.0, 50.0, 0.0), kl_warmup=0)
    model = one.build().double()
    x = torch.rand(5, 1, 8, 8).double()
    update = one.scheme().update(model, x, SharedNoise(torch.Generator().manual_seed(2)))
    kl = update.terms.kl.mean(1)
    assert float(kl.detach().max()) < 50
    expected = 100 + kl[1] + kl[3] - update.terms.log_likelihood.mean()
    torch.testing.assert_close(update.loss(), expected)
    plain = experiment(kl_warmup=0).scheme().update(model, x, SharedNoise(torch.Generator().manual_seed(2)))
    torch.testing.assert_close(plain.loss(), kl.sum() - update.terms.log_likelihood.mean())
    # The floor is one of the mean over the batch: images below it are not paid for where the mean is above.
    just_below = tuple((0.99 * kl.detach()).tolist())
    assert (update.terms.kl.detach() < torch.tensor(just_below)[:, None]).any(1).all()
    scheme = experiment(free_bits=just_below, kl_warmup=0).scheme()
    paid = scheme.update(model, x, SharedNoise(torch.Generator().manual_seed(2)))
    torch.testing.assert_close(paid.loss(), plain.loss())
    assert experiment().digest() != one.digest()
    assert "free_bits" not in experiment().to_json()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"free_bits": (1.0,)}, "free_bits must be 4 numbers"),
        ({"free_bits": (1.0, 1.0, 1.0, -1.0)}, "free_bits must be 4 numbers"),
        ({"learning": "joint-mle", "energy": MapEnergy()}, "learns through its inference network"),
        ({"learning": "variational", "energy": MapEnergy(), "free_bits": (1.0,) * 4}, "free_bits belong to learning"),
        ({"learning": "variational", "energy_hidden": ((4,),) * 4}, "layers of vectors"),
    ],
)
def test_what_does_not_fit_is_a_sentence(changes: dict, sentence: str) -> None:
    """Breaks if it is found while training, or as a traceback."""
    with pytest.raises(UserError, match=sentence):
        experiment(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"sides": (1, 3, 4)},
        {"sides": (1, 2, 2)},
        {"image_shape": (1, 12, 12)},
        {"groups": (0, 2, 1)},
        {"maps": (3, 0, 1)},
        {"widths": (6, 5)},
        {"likelihood_sigma": 0.0},
    ],
)
def test_sizes_that_define_no_hierarchy(changes: dict) -> None:
    """Breaks if such sizes are found by torch."""
    with pytest.raises(UserError):
        dataclasses.replace(CONFIG, **changes)


@pytest.mark.slow
def test_it_trains_resumes_and_carries_energies(tmp_path: Path) -> None:
    """Breaks if the hierarchy cannot be the backbone of energies: trained, resumed to the bit, stored, built again."""
    one = experiment(free_bits=(1.0, 1.0, 1.0, 0.0))
    with open_run(tmp_path / "whole", one, 1) as run:
        whole = fit(run, IMAGES, torch.device("cpu"))
    for until in (4, 10):
        with open_run(tmp_path / "parts", one, 1) as run:
            control = LoopControl(stop=lambda step, until=until: step >= until)
            parts = fit(run, IMAGES, torch.device("cpu"), control)
    for name, value in whole.learned.state_dict().items():
        assert torch.equal(value, parts.learned.state_dict()[name]), name
    assert Experiment.from_json(one.to_json()) == one
    frozen = whole.evaluated_model().backbone.eval().requires_grad_(False)
    energies = TwoStageExperiment(
        "test/1", "tiny", "noise", model=CONFIG, backbone="", energy=MapEnergy(4, 6), prior_chain=CHAIN,
        optimizer=EnergyOptimizer(1e-3, beta1=0.9), training=TrainingConfig(6, 5),
    )  # fmt: skip
    with open_run(tmp_path / "energies", energies, 1) as run:
        model = fit(run, IMAGES, torch.device("cpu"), backbone=frozen).evaluated_model()
    again = energies.restored(model.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    joint = experiment(learning="variational", energy=MapEnergy(4, 6), conditional_gradient="posterior")
    with open_run(tmp_path / "joint", joint, 1) as run:
        fit(run, IMAGES, torch.device("cpu"))


@pytest.mark.parametrize("shape", [(3, 1, 1), (2, 2, 2), (2, 4, 4), (5, 16, 16)])
def test_an_energy_for_maps_of_any_size(shape: tuple[int, ...]) -> None:
    """Breaks if a size down to a point has no network, or one that does not see all of it."""
    energy = MapEnergy(6, 7).build((shape,))
    z = torch.randn(2, *shape, requires_grad=True)
    value = energy((z,))
    assert value.shape == (2, 1)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    assert bool((gradient != 0).all())


def test_an_energy_for_odd_maps_is_a_sentence() -> None:
    """Breaks if torch finds it."""
    for shape in ((4,), (2, 3, 3), (2, 4, 2)):
        with pytest.raises(UserError, match="not square maps"):
            MapEnergy().build((shape,))
