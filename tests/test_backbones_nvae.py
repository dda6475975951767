"""A network prepared for chains gives the same latents, densities, gradients and images, and leaves the first alone."""

import copy
import dataclasses
import math
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from jlebm import checkpoints
from jlebm.backbones.nvae import NVAE, NVAEConfig, digest_of, frozen_copy, load_nvae, save_nvae
from jlebm.backbones.nvae.cells import NormalisedConv
from jlebm.backbones.protocol import PosteriorSample
from jlebm.densities import PriorInLatents, PriorInNoise
from jlebm.energies import JointEnergy, conv_energy
from jlebm.engines.gradients import Autograd
from jlebm.errors import UserError
from jlebm.hierarchy import PartialPosterior, posterior_terms, scores_above
from jlebm.images import to_float, to_uint8
from jlebm.latents import Latents
from jlebm.model import JointModel
from jlebm.networks import mlp
from jlebm.objectives import maximum_likelihood_loss, variational_loss
from jlebm.randomness import PerImageNoise, SharedNoise
from tests.public_numbers import NVAES, in_order, nvae
from tests.small import HIERARCHY, backbone

EXACT = {"rtol": 1e-10, "atol": 1e-12}
DOWN_TO_EIGHT = NVAEConfig(32, 4, 4, 2, 2, 3, num_preprocess_blocks=1, num_postprocess_blocks=1, num_mixture_dec=2)


@pytest.fixture(params=NVAES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[NVAE, dict]:
    """A network whose every weight and batch statistic is random, in float64, and images with noise for it."""
    path, expected = nvae(request.param, tmp_path)
    return load_nvae(path).double(), expected


def draw(network: NVAE, seed: int = 0) -> Latents:
    noise = SharedNoise(torch.Generator().manual_seed(seed))
    dtype = next(network.parameters()).dtype
    return noise(tuple(torch.empty(2, *shape, dtype=dtype) for shape in network.latent_shapes))


def assert_same(ours: Latents, theirs: Latents) -> None:
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@torch.no_grad()
@pytest.mark.slow
def test_the_frozen_copy_gives_the_same_numbers(case: tuple[NVAE, dict]) -> None:
    """Batch norm taken into the wrong convolution, a padding that it should have seen, or an order breaks it."""
    network, expected = case
    frozen = frozen_copy(network)
    z = network.push(draw(network))
    assert_same(frozen.push(draw(network)), z)
    assert_same(frozen.push(draw(network), 0.7), network.push(draw(network), 0.7))
    torch.testing.assert_close(frozen.prior_log_prob(z), network.prior_log_prob(z), **EXACT)
    torch.testing.assert_close(frozen.decoder_parameters(z), network.decoder_parameters(z), **EXACT)
    x, eps = 2 * expected["x"] - 1, in_order(expected["posterior_eps"])
    ours, theirs = (each.posterior(x, lambda like: eps) for each in (frozen, network))
    assert_same(ours.latents, theirs.latents)
    torch.testing.assert_close(ours.log_prob, theirs.log_prob, **EXACT)


@torch.no_grad()
def test_push_below_keeps_what_it_is_given(case: tuple[NVAE, dict]) -> None:
    """Given the top groups of a draw and the noise of the others it is that draw: a group counted twice breaks it."""
    network, _ = case
    eps = draw(network)
    whole = network.push(eps)
    for kept in range(len(whole) + 1):
        assert_same(network.push_below(whole[:kept], eps[kept:]), whole)


@pytest.mark.parametrize("drift", ["exact", "released"])
@pytest.mark.slow
def test_chains_on_the_frozen_copy_follow_the_same_gradient(case: tuple[NVAE, dict], drift) -> None:
    """In whitened noise and in latents; a gradient that is lost with those of the weights breaks it."""
    network, _ = case
    flat = [nn.Sequential(nn.Flatten(), *mlp(math.prod(shape), (5,), 1)) for shape in network.latent_shapes]
    energy = JointEnergy(flat).double()
    frozen = frozen_copy(network)
    for density in (lambda on: PriorInNoise(on, energy, drift), lambda on: PriorInLatents(on, energy)):
        ours, theirs = (Autograd(density(on)).value_and_gradient(draw(network)) for on in (frozen, network))
        torch.testing.assert_close(ours[0], theirs[0], **EXACT)
        assert_same(ours[1], theirs[1])


def test_nothing_is_left_to_be_done_at_every_step() -> None:
    """A weight that is still normalised, or a batch norm, on the way from the noise to the image breaks it."""
    frozen = frozen_copy(NVAE(DOWN_TO_EIGHT))
    assert not [module for module in frozen.modules() if isinstance(module, NormalisedConv)]
    for part in (frozen.dec_tower, frozen.dec_sampler, frozen.post_process, frozen.image_conditional):
        assert not [module for module in part.modules() if isinstance(module, nn.BatchNorm2d)]
    assert not [parameter for parameter in frozen.parameters() if parameter.requires_grad]
    assert frozen.image_conditional[1].weight.is_contiguous(memory_format=torch.channels_last)  # pyright: ignore


def test_the_network_itself_stays_trainable_and_unchanged() -> None:
    """A copy that shares a weight or a statistic, changes the mode, or draws from torch's own generator breaks it."""
    torch.manual_seed(0)
    network = NVAE(DOWN_TO_EIGHT).double().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    frozen = frozen_copy(network)
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())

    at = frozen.push(draw(network))
    x = torch.zeros(2, 3, 32, 32, dtype=torch.float64)
    network.elbo_terms(x, draw(network)).kl.sum().backward()  # moves the statistics
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1)
    assert all(torch.equal(one, other) for one, other in zip(frozen.push(draw(network)), at, strict=True))
    assert not torch.allclose(network.eval().push(draw(network))[1], at[1])
    assert_same(frozen_copy(network).push(draw(network)), network.push(draw(network)))


# ---- images at the levels that the network knows


@pytest.mark.parametrize("bits", [1, 5, 7, 8])
def test_images_are_quantised(bits: int) -> None:
    """floor(x / 2^(8 - bits)) / (2^bits - 1) of a level x of 256; a level that is taken once is taken again."""
    network = NVAE(dataclasses.replace(DOWN_TO_EIGHT, num_x_bits=bits))
    levels = torch.arange(256, dtype=torch.uint8)
    seen = network.quantised(to_float(levels.reshape(1, 1, 16, 16)))
    expected = 2 * (levels >> (8 - bits)).float() / (2**bits - 1) - 1
    torch.testing.assert_close(seen.flatten(), expected, rtol=0, atol=1e-6)
    assert len(seen.unique()) == 2**bits
    assert torch.equal(network.quantised(seen), seen)
    torch.testing.assert_close(network.quantised(to_float(to_uint8(seen))), seen, rtol=0, atol=1e-6)


@torch.no_grad()
def test_encoder_and_likelihood_see_the_same_image() -> None:
    """Images that differ in bits that the network does not know are one image, for q(z|x) and for log p(x|z)."""
    torch.manual_seed(0)
    network = NVAE(dataclasses.replace(DOWN_TO_EIGHT, num_x_bits=5)).eval()
    coarse = torch.randint(0, 32, (2, 3, 32, 32)) * 8
    one, other = (to_float((coarse + rest).to(torch.uint8)) for rest in (0, 7))
    ours, theirs = (network.elbo_terms(x, draw(network)) for x in (one, other))
    assert torch.equal(ours.log_likelihood, theirs.log_likelihood)
    assert torch.equal(ours.kl, theirs.kl)
    sharper = NVAE(DOWN_TO_EIGHT).eval()
    sharper.load_state_dict(network.state_dict())
    assert not torch.equal(*(sharper.elbo_terms(x, draw(network)).kl for x in (one, other)))


@torch.no_grad()
def test_scores_and_losses_are_of_the_levels_that_the_network_knows() -> None:
    """Breaks if log p(x|z) outside the ELBO were that of the file's 256 levels: 500 nats less here, of 12,000."""
    torch.manual_seed(0)
    network = NVAE(dataclasses.replace(DOWN_TO_EIGHT, num_x_bits=5)).eval()
    model = JointModel(network, conv_energy(network.latent_shapes, 4, 5))
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    x, noise = to_float(images), PerImageNoise("posterior", range(2))
    terms = network.elbo_terms(x, noise(tuple(torch.empty(2, *shape) for shape in network.latent_shapes)))
    found = posterior_terms(model, images.numpy(), range(2))
    np.testing.assert_allclose(found.log_likelihood, terms.log_likelihood.numpy(), rtol=1e-6)
    literal = scores_above(model, images.numpy(), range(2), PartialPosterior(0, None))
    np.testing.assert_array_equal(literal, found.log_joint)
    z, right = terms.latents, -terms.log_likelihood.mean()
    torch.testing.assert_close(maximum_likelihood_loss(model, x, z, z).reconstruction, right)
    sample = PosteriorSample(z, torch.zeros(2))
    torch.testing.assert_close(variational_loss(model, x, sample, z).reconstruction, right)


# ---- what a backward pass keeps


class Kept:
    """Counts the bytes that a forward pass leaves for the backward pass, each storage once, parameters not."""

    def __init__(self, *modules: nn.Module):
        self.known = {parameter.untyped_storage()._cdata for module in modules for parameter in module.parameters()}
        self.tensors: list[torch.Tensor] = []
        self.bytes = 0

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        """Count a tensor that is kept."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.known:
            self.known.add(storage._cdata)
            self.tensors.append(tensor)
            self.bytes += storage.nbytes()
        return tensor

    def counting(self) -> AbstractContextManager:
        """Count what is kept within the context."""
        return torch.autograd.graph.saved_tensors_hooks(self.keep, lambda tensor: tensor)


def test_recomputing_gives_the_same_gradient_to_the_bit() -> None:
    """A statistic that moves, noise that is drawn anew, or a module whose inputs are not all kept breaks it."""
    torch.manual_seed(0)
    frozen = frozen_copy(NVAE(DOWN_TO_EIGHT))
    density = PriorInNoise(frozen, conv_energy(frozen.latent_shapes, 4, 5))
    assert not frozen.recompute, "images of 32 pixels have room"
    value, gradient = Autograd(density).value_and_gradient(draw(frozen))
    frozen.recompute = True
    again = Autograd(density).value_and_gradient(draw(frozen))
    assert torch.equal(again[0], value)
    assert all(torch.equal(one, other) for one, other in zip(again[1], gradient, strict=True))


def test_training_is_never_recomputed() -> None:
    """Batch norms that see a batch twice in one update break it."""
    results = []
    for recompute in (False, True):
        torch.manual_seed(0)
        network = NVAE(DOWN_TO_EIGHT).train()
        network.recompute = recompute
        network.elbo_terms(torch.zeros(2, 3, 32, 32), draw(network)).kl.sum().backward()
        results.append(network.state_dict())
    assert all(torch.equal(results[0][name], value) for name, value in results[1].items())


# ---- saving


@torch.no_grad()
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_saved_network_is_read_to_the_bit(tmp_path: Path, layout: torch.memory_format) -> None:
    """The same sizes, samples and images from the file; in eval mode, whatever mode and memory it was saved from."""
    network = backbone(dataclasses.replace(HIERARCHY, num_nf=1, num_mixture_dec=2))
    path = tmp_path / "backbone.safetensors"
    save_nvae(path, copy.deepcopy(network).to(memory_format=layout).train())
    read = load_nvae(path)
    assert read.config == network.config
    assert not read.training
    z, again = network.push(draw(network)), read.push(draw(read))
    assert all(torch.equal(one, other) for one, other in zip(z, again, strict=True))
    assert torch.equal(read.decode(z).mean, network.decode(z).mean)
    x = torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)
    ours, theirs = (each.elbo_terms(x, draw(each)) for each in (read, network))
    assert torch.equal(ours.kl, theirs.kl)


@torch.no_grad()
def test_the_digest_is_of_every_weight_and_statistic(tmp_path: Path) -> None:
    """It survives a file and another memory layout, and no number of the network can change without it."""
    network, path = backbone(), tmp_path / "backbone.safetensors"
    digest = digest_of(network)
    save_nvae(path, network)
    assert digest_of(load_nvae(path)) == digest
    assert digest_of(copy.deepcopy(network).to(memory_format=torch.channels_last)) == digest
    found = {digest}
    changes = ("stem.weight", "prior_ftr0", "dec_tower.1._ops.0.conv.0.bn.running_var", "image_conditional.1.bias")
    for name in changes:
        changed = copy.deepcopy(network)
        value = changed.state_dict()[name]
        value.view(-1)[-1] = torch.nextafter(value.view(-1)[-1], torch.tensor(torch.inf))
        found.add(digest_of(changed))
    assert len(found) == 1 + len(changes)


def test_a_file_that_holds_no_network_is_a_sentence(tmp_path: Path) -> None:
    """Weights of something else, a file of another program, half a file, and none."""
    path = tmp_path / "weights.safetensors"
    checkpoints.save_weights(path, nn.Linear(2, 2), {"config": {}})
    with pytest.raises(UserError, match=r"weights\.safetensors holds no NVAE"):
        load_nvae(path)
    save_nvae(path, backbone())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a whole weights file"):
        load_nvae(path)
    checkpoints.save_weights(path, nn.Linear(2, 2), {"nvae": dataclasses.asdict(HIERARCHY)})
    with pytest.raises(UserError, match="lacks the parameter 'prior_ftr0'"):
        load_nvae(path)
    with pytest.raises(UserError, match=r"there is no weights file .*nothing\.safetensors"):
        load_nvae(tmp_path / "nothing.safetensors")
