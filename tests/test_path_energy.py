"""Energies of the path of a top-down backbone, which see a layer with all layers above it."""

import dataclasses
from pathlib import Path

import pytest
import torch

import jlebm
from jlebm.backbones.conv import ConvConfig
from jlebm.backbones.topdown import TopDownBackbone
from jlebm.densities import PriorInLatents, PriorInNoise
from jlebm.energies import PathEnergy, PathMapEnergy
from jlebm.errors import UserError
from jlebm.latents import Latents, map_latents, standard_normal_log_prob
from jlebm.learning.two_stage import TwoStageExperiment
from jlebm.model import JointModel
from jlebm.run import open_run
from jlebm.sampling import Sampler
from jlebm.training import initial_state
from jlebm.weights import save_model
from tests.small import HIERARCHY
from tests.test_backbones_topdown import CONFIG, experiment
from tests.test_persistence import CPU, LEARNED, backbone, trained
from tests.test_training import assert_same

KIND = PathMapEnergy(4, 2, 6)
ON_PATH = dataclasses.replace(LEARNED, energy=KIND)


def model_of() -> JointModel:
    """Return a backbone with energies of its path, all in float64."""
    torch.manual_seed(5)
    own = backbone().double()
    return JointModel(own, KIND.build_on(own).double())


def noise_of(model: JointModel) -> Latents:
    torch.manual_seed(6)
    return tuple(torch.randn(2, *shape, dtype=torch.float64) for shape in model.backbone.latent_shapes)


def test_each_energy_sees_its_layer_and_all_above() -> None:
    """Breaks if an energy reads a layer below it, or misses one above: the sum is that of E_i(z_i, z_{>i})."""
    model = model_of()
    z = map_latents(lambda layer: layer.detach().requires_grad_(), model.pushed(noise_of(model)))
    energies = model.energy_at(z)
    assert energies.shape == (2, len(z))
    for own in range(len(z)):
        gradients = torch.autograd.grad(energies[:, own].sum(), z, retain_graph=True, materialize_grads=True)
        for layer, gradient in enumerate(gradients):
            seen = bool((gradient.flatten(1) != 0).any(1).all())
            assert seen == (layer <= own), (own, layer)


def test_the_path_is_that_of_the_decoder() -> None:
    """Breaks if the energies read another path than the image is made of: the last one, followed on, is the image."""
    model = model_of()
    own, z = model.backbone, model.pushed(noise_of(model))
    assert isinstance(own, TopDownBackbone)
    path = own.path(z)
    assert tuple(each.shape[1:] for each in path) == own.path_shapes == CONFIG.path_shapes
    last = CONFIG.last_latents
    h = own.after[last](path[-1])
    for level in range(last + 1, len(CONFIG.sides)):
        h = own.after[level](own._wider(h, level))
    torch.testing.assert_close(own._likelihood(h).mean, own.decode(z).mean, rtol=0, atol=0)


def test_noise_and_latents_have_one_energy() -> None:
    """Breaks if one pass from noise gives other latents or energies than the way by z, given layers or not."""
    model = model_of()
    eps = noise_of(model)
    for kept in (0, 2):
        given = model.pushed(eps)[:kept]
        z, energies = model.energy.at_noise(model.backbone, given, eps[kept:])
        for one, other in zip(z, model.pushed(eps), strict=True):
            assert torch.equal(one, other)
        assert torch.equal(energies, model.energies(z))


def test_the_gradient_of_the_density_is_that_of_finite_differences() -> None:
    """Breaks if a part of the way from noise to energy carries no gradient."""
    model = model_of()
    eps = noise_of(model)
    for density in (PriorInNoise(model.backbone, model.energy), PriorInLatents(model.backbone, model.energy)):
        assert torch.autograd.gradcheck(lambda *each: density(each), tuple(e.requires_grad_() for e in eps))  # noqa: B023
        eps = map_latents(torch.Tensor.detach, eps)


def test_without_an_output_the_prior_is_gaussian() -> None:
    """Breaks if anything but the networks' outputs enters the density."""
    model = model_of()
    for network in model.energy.networks:
        torch.nn.init.zeros_(network[-1].weight)
        torch.nn.init.zeros_(network[-1].bias)
    eps = noise_of(model)
    found = PriorInNoise(model.backbone, model.energy)(eps)
    torch.testing.assert_close(found, standard_normal_log_prob(eps), rtol=0, atol=0)


def test_energies_of_the_path_resume_to_the_bit_and_travel(tmp_path: Path) -> None:
    """Breaks if a stop changes a weight, or stored weights sample other images than the run's model."""
    whole = trained(tmp_path / "whole", ON_PATH)
    trained(tmp_path / "parts", ON_PATH, stop_after=5)
    assert_same(whole, trained(tmp_path / "parts", ON_PATH))
    model = whole.evaluated_model()
    assert type(model.energy) is PathEnergy
    sampler = Sampler(ON_PATH.prior_chain)
    with open_run(tmp_path / "whole", ON_PATH, 1) as run:
        header = run.header() | {"step": 12, "weights": "ema"}
    save_model(tmp_path / "weights.safetensors", model, header, sampler)
    drawn = jlebm.load(tmp_path / "weights.safetensors").sample(seeds=range(3))
    mine = [batch.images for batch in jlebm.sampling.generate(model, "ebm-prior", range(3), sampler)]
    assert (drawn == torch.cat(mine).numpy()).all()


def test_they_learn_jointly_with_their_backbone() -> None:
    """Breaks if the loss's gradient misses the backbone's part in the energies, which read its path."""
    joint = experiment(learning="variational", energy=KIND, conditional_gradient="posterior")
    state = initial_state(joint, 1, CPU)
    assert type(state.model.energy) is PathEnergy
    z = map_latents(torch.Tensor.detach, state.model.pushed(noise_of(state.model.double())))
    state.model.energy_at(z).sum().backward()
    own = state.model.backbone
    assert isinstance(own, TopDownBackbone)
    (weight, *_) = own.widen.parameters()
    assert weight.grad is not None
    assert bool((weight.grad != 0).any())


def test_the_configuration_is_told_from_others() -> None:
    """Breaks if the JSON is read as another kind of energy."""
    assert TwoStageExperiment.from_json(ON_PATH.to_json()) == ON_PATH
    assert type(TwoStageExperiment.from_json(ON_PATH.to_json()).energy) is PathMapEnergy


@pytest.mark.parametrize("model", [ConvConfig(), HIERARCHY], ids=["conv", "nvae"])
def test_a_backbone_without_a_path_is_a_sentence(model: object) -> None:
    """Breaks if it is found after the backbone was trained for hours."""
    with pytest.raises(UserError, match="need a top-down backbone"):
        dataclasses.replace(ON_PATH, model=model)  # pyright: ignore[reportArgumentType]


def test_sizes_that_make_no_network_are_a_sentence() -> None:
    """Breaks if torch finds them."""
    for sizes in ((0, 1, 1), (1, 0, 1), (1, 1, 0)):
        with pytest.raises(UserError, match="at least one map"):
            PathMapEnergy(*sizes)
