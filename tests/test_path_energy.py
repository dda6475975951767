"""Energies of the path of a top-down backbone, which see a layer with all layers above it."""

import dataclasses
from pathlib import Path

import pytest
import torch

import jlebm
from jlebm.backbones.conv import ConvConfig
from jlebm.backbones.nvae import NVAEConfig
from jlebm.backbones.topdown import TopDownBackbone
from jlebm.densities import PriorInLatents, PriorInNoise
from jlebm.energies import ConvEnergy, EnergyConfig, MapEnergy, PathEnergy, PathFieldEnergy, PathMapEnergy, VectorEnergy
from jlebm.energies.map_networks import Standardised, SumOverPlaces, field_network
from jlebm.errors import UserError
from jlebm.latents import Latents, map_latents, standard_normal_log_prob
from jlebm.learning.noise_contrast import NoiseContrast, logistic_loss
from jlebm.learning.two_stage import TwoStageExperiment
from jlebm.model import JointModel
from jlebm.randomness import SharedNoise
from jlebm.run import open_run
from jlebm.sampling import Sampler
from jlebm.training import initial_state
from jlebm.weights import save_model
from tests.small import HIERARCHY
from tests.test_backbones_topdown import CONFIG, experiment
from tests.test_persistence import CPU, LEARNED, backbone, trained
from tests.test_training import assert_same

KIND = PathMapEnergy(4, 2, 6)
FIELD = PathFieldEnergy(4, 2, 6, field_from=4)
KINDS = pytest.mark.parametrize("kind", [KIND, FIELD], ids=["maps", "fields"])
ON_PATH = dataclasses.replace(LEARNED, energy=KIND)


def model_of(kind: EnergyConfig = KIND) -> JointModel:
    """Return a backbone with energies of its path, all in float64."""
    torch.manual_seed(5)
    own = backbone().double()
    return JointModel(own, kind.build_on(own).double())


def noise_of(model: JointModel) -> Latents:
    torch.manual_seed(6)
    return tuple(torch.randn(2, *shape, dtype=torch.float64) for shape in model.backbone.latent_shapes)


@KINDS
def test_each_energy_sees_its_layer_and_all_above(kind: EnergyConfig) -> None:
    """Breaks if an energy reads a layer below it, or misses one above: the sum is that of E_i(z_i, z_{>i})."""
    model = model_of(kind)
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


@KINDS
def test_noise_and_latents_have_one_energy(kind: EnergyConfig) -> None:
    """Breaks if one pass from noise gives other latents or energies than the way by z, given layers or not."""
    model = model_of(kind)
    eps = noise_of(model)
    for kept in (0, 2):
        given = model.pushed(eps)[:kept]
        z, energies = model.energy.at_noise(model.backbone, given, eps[kept:])
        for one, other in zip(z, model.pushed(eps), strict=True):
            assert torch.equal(one, other)
        assert torch.equal(energies, model.energies(z))


@KINDS
def test_the_gradient_of_the_density_is_that_of_finite_differences(kind: EnergyConfig) -> None:
    """Breaks if a part of the way from noise to energy carries no gradient."""
    model = model_of(kind)
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


@pytest.mark.slow
@KINDS
def test_energies_of_the_path_resume_to_the_bit_and_travel(kind: EnergyConfig, tmp_path: Path) -> None:
    """Breaks if a stop changes a weight, or stored weights sample other images than the run's model."""
    on_path = dataclasses.replace(ON_PATH, energy=kind, noise_contrast=1.0, contrast="layers")
    whole = trained(tmp_path / "whole", on_path)
    trained(tmp_path / "parts", on_path, stop_after=5)
    assert_same(whole, trained(tmp_path / "parts", on_path))
    model = whole.evaluated_model()
    assert type(model.energy) is PathEnergy
    sampler = Sampler(on_path.prior_chain)
    with open_run(tmp_path / "whole", on_path, 1) as run:
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


@pytest.mark.parametrize("kind", [KIND, FIELD, MapEnergy(4, 6)])
def test_the_configuration_is_told_from_others(kind: EnergyConfig) -> None:
    """Breaks if the JSON is read as another kind of energy."""
    one = dataclasses.replace(ON_PATH, energy=kind)
    assert TwoStageExperiment.from_json(one.to_json()) == one
    assert type(TwoStageExperiment.from_json(one.to_json()).energy) is type(kind)


# ---- layers drawn anew


def test_a_layer_is_drawn_anew_below_the_kept_ones() -> None:
    """Breaks if a layer is drawn below another drawn one, or the path after it is not its own."""
    model = model_of()
    own, z, eps = (
        model.backbone,
        model.pushed(noise_of(model)),
        map_latents(lambda layer: layer.flip(0), noise_of(model)),
    )
    assert isinstance(own, TopDownBackbone)
    redrawn = own.redrawn(z, eps)
    for one, other in zip(redrawn.path, own.path(z), strict=True):
        assert torch.equal(one, other)
    for index in range(len(z)):
        changed, path = own.push_path(z[:index], eps[index:])
        assert torch.equal(redrawn.latents[index], changed[index])
        assert torch.equal(redrawn.path_below[index], path[index])


@pytest.mark.parametrize("kind", [KIND, MapEnergy(4, 6)])
def test_each_layer_has_a_classifier_of_its_own(kind: EnergyConfig) -> None:
    """Breaks if the loss is not the sum over layers of the logistic loss of z_i against z_i ~ p0(z_i | z_{>i})."""
    model = model_of(kind)
    own, x = model.backbone, torch.zeros(2, *CONFIG.image_shape, dtype=torch.float64)

    def noise() -> SharedNoise:
        return SharedNoise(torch.Generator().manual_seed(3))

    update = NoiseContrast(by_layer=True).update(model, x, noise())
    again = noise()
    z = map_latents(torch.Tensor.detach, own.posterior(x, again).latents)
    eps = model.noise(2, again)
    expected = torch.zeros((), dtype=torch.float64)
    for index in range(len(z)):
        changed = model.backbone.push_below(z[:index], eps[index:])  # layers below have no part in E_i
        pair = model.energy_at(z)[:, index], model.energy_at(changed)[:, index]
        expected = expected + logistic_loss(*pair)
    torch.testing.assert_close(update.loss(), expected)
    sides = torch.cat([update.positive < 0, update.negative > 0]).double().mean()
    assert float(update.figures()["accuracy"]) == pytest.approx(float(sides))
    update.loss().backward()
    assert all(each.grad is None for each in own.parameters())
    assert all(each.grad is not None for each in model.energy.parameters())


# ---- fields


@pytest.mark.parametrize("side", [8, 32])
def test_a_field_of_independent_places_has_one_deviation(side: int) -> None:
    """Breaks if an energy were a mean over places: on larger maps its steps would be smaller, not its deviation one."""
    places = torch.randn(4_000, 1, side, side, generator=torch.Generator().manual_seed(1))
    assert float(SumOverPlaces()(places).std()) == pytest.approx(1, abs=0.05)


def test_features_are_standardised_under_p0() -> None:
    """Breaks if the moments are of other draws than p0's, or depend on the machine's random state."""
    torch.manual_seed(5)
    own = backbone()
    energy = FIELD.build_on(own)
    eps = tuple(torch.randn(4_000, *shape) for shape in own.latent_shapes)
    for network, features in zip(energy.networks, own.push_path((), eps)[1], strict=True):
        found = network[0](features)
        varies = features.std((0, 2, 3)) > 1e-4
        assert float(found.mean((0, 2, 3))[varies].abs().max()) < 0.3
        assert float((found.std((0, 2, 3))[varies] - 1).abs().max()) < 0.3
    torch.manual_seed(77)
    for one, other in zip(energy.networks, FIELD.build_on(own).networks, strict=True):
        assert torch.equal(one[0].mean, other[0].mean)
        assert torch.equal(one[0].deviation, other[0].deviation)


def test_a_feature_that_does_not_vary_is_not_divided() -> None:
    """Breaks if a constant feature becomes infinite."""
    layer = Standardised(2)
    layer.measure(torch.stack([torch.full((3, 2, 2), 7.0), torch.randn(3, 2, 2)], 1))
    found = layer(torch.full((1, 2, 2, 2), 7.0))
    assert torch.equal(found[:, 0], torch.zeros(1, 2, 2))
    assert bool(torch.isfinite(found).all())


def test_a_field_is_a_sum_over_places() -> None:
    """Breaks if places are weighed, or see further than their convolutions reach: far changes then do not add up."""
    torch.manual_seed(5)
    network = field_network((3, 16, 16), 4, 2, 6, field_from=8).double()
    assert isinstance(network[-1], SumOverPlaces)
    base = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    one, other = torch.zeros_like(base), torch.zeros_like(base)
    one[..., 3, 3], other[..., 12, 12] = 1.0, -1.0
    changes = [network(base + change) - network(base) for change in (one, other, one + other)]
    torch.testing.assert_close(changes[0] + changes[1], changes[2], rtol=0, atol=1e-12)
    flat = torch.zeros(1, 3, 16, 16, dtype=torch.float64)
    shifted = [
        network(
            flat.index_put(
                (torch.tensor(0), torch.tensor(0), torch.tensor(k), torch.tensor(k)), torch.tensor(1.0).double()
            )
        )
        for k in (6, 9)
    ]
    torch.testing.assert_close(*shifted, rtol=0, atol=1e-12)
    assert isinstance(field_network((3, 4, 4), 4, 2, 6, field_from=8)[-1], torch.nn.Linear)


@pytest.mark.parametrize("model", [ConvConfig(inference_network=True), HIERARCHY], ids=["conv", "nvae"])
def test_layers_cannot_be_drawn_anew_without_a_path(model: ConvConfig | NVAEConfig) -> None:
    """Breaks if it is found after the backbone was trained for hours."""
    shapes = ConvEnergy(2, 4) if isinstance(model, NVAEConfig) else VectorEnergy(((4,), (4,)))
    with pytest.raises(UserError, match="this backbone has no path"):
        dataclasses.replace(ON_PATH, model=model, energy=shapes, noise_contrast=1.0, contrast="layers")


@pytest.mark.parametrize("model", [ConvConfig(inference_network=True), HIERARCHY], ids=["conv", "nvae"])
def test_a_backbone_without_a_path_is_a_sentence(model: object) -> None:
    """Breaks if it is found after the backbone was trained for hours."""
    with pytest.raises(UserError, match="need a top-down backbone"):
        dataclasses.replace(ON_PATH, model=model)  # pyright: ignore[reportArgumentType]


def test_sizes_that_make_no_network_are_a_sentence() -> None:
    """Breaks if torch finds them."""
    for sizes in ((0, 1, 1), (1, 0, 1), (1, 1, 0)):
        with pytest.raises(UserError, match="at least one map"):
            PathMapEnergy(*sizes)
        with pytest.raises(UserError, match="at least one map"):
            PathFieldEnergy(*sizes)


def test_a_classifier_that_does_not_exist_has_no_setting() -> None:
    """Breaks if a setting that nothing reads is taken."""
    with pytest.raises(UserError, match="give noise_contrast a weight"):
        dataclasses.replace(ON_PATH, contrast="layers")
