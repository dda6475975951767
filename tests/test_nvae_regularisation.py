"""Spectral norms against singular values, batch norm scales by hand, statistics that are re-estimated."""

import copy

import pytest
import torch
from torch import Tensor, nn

from jlebm.backbones.nvae import NVAE, re_estimated
from jlebm.backbones.nvae.cells import NormalisedConv
from jlebm.backbones.nvae.regularisation import RegularisedNVAE
from jlebm.latents import Latents
from jlebm.randomness import SharedNoise
from tests.small import backbone


def convolutions(model: RegularisedNVAE) -> list[NormalisedConv]:
    return [module for module in model.modules() if isinstance(module, NormalisedConv)]


def norms_of(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [each for each in module.modules() if isinstance(each, nn.BatchNorm2d)]


def converging() -> RegularisedNVAE:
    """Return a model in float64 whose convolutions have a first singular value well above the second."""
    network, generator = backbone().double(), torch.Generator().manual_seed(2)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for module in network.modules():
            if isinstance(module, NormalisedConv):
                shape = module.weight.shape
                shared = torch.randn(1, *shape[1:], generator=generator, dtype=torch.float64)
                own = torch.randn(shape, generator=generator, dtype=torch.float64)
                module.weight.copy_(shared + 0.3 * own)
                module.log_weight_norm.add_(0.3 * own.mean((1, 2, 3), keepdim=True))
        return RegularisedNVAE(network)


def largest_singular_values(model: RegularisedNVAE) -> Tensor:
    return torch.stack([torch.linalg.svdvals(conv.used_weight().flatten(1))[0] for conv in convolutions(model)]).sum()


def test_spectral_norms_converge_to_the_singular_values() -> None:
    """The sum over all convolutions, from below; a matrix that is left out, or laid out otherwise, breaks it."""
    model = converging()
    with torch.no_grad():
        exact = float(largest_singular_values(model))
        estimates = [float(model.spectral_norms()) for _ in range(60)]
    assert all(estimate <= exact * (1 + 1e-12) for estimate in estimates)
    assert estimates[-1] == pytest.approx(exact, rel=1e-10)
    assert estimates[0] == pytest.approx(exact, rel=1e-2)


def test_gradient_of_spectral_norms() -> None:
    """That of the largest singular values in every weight and every norm: u and v carry none, by the envelope."""
    model = converging()
    with torch.no_grad():
        for _ in range(60):
            model.spectral_norms()
    parameters = [p for conv in convolutions(model) for p in (conv.weight, conv.log_weight_norm)]
    ours = torch.autograd.grad(model.spectral_norms(), parameters)
    theirs = torch.autograd.grad(largest_singular_values(model), parameters)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)
        assert other.abs().max() > 1e-4


def test_the_power_methods_vectors_are_kept() -> None:
    """They are in the state dict, unit vectors, and a model that takes them over goes on to the bit."""
    model = RegularisedNVAE(backbone().double())
    state = {name: value.clone() for name, value in model.state_dict().items()}
    vectors = [value for name, value in state.items() if not name.startswith("backbone.")]
    assert sum(len(each) for each in vectors) == len(convolutions(model))
    for each in vectors:
        torch.testing.assert_close(each.norm(dim=1), torch.ones(len(each), dtype=torch.float64))
    with torch.no_grad():
        expected = [model.spectral_norms() for _ in range(3)]
        torch.manual_seed(1)
        another = RegularisedNVAE(backbone(seed=4).double())
        another.load_state_dict(state)
        found = [another.spectral_norms() for _ in range(3)]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert not torch.equal(expected[0], expected[2])


def test_batch_norm_scales_by_hand() -> None:
    """The largest absolute scale of each, whatever its sign and place; its gradient is there alone."""
    model = RegularisedNVAE(backbone().double())
    expected, norms = 0.0, norms_of(model)
    assert len(norms) > 5
    with torch.no_grad():
        for index, norm in enumerate(norms):
            norm.weight.fill_(0.1)
            norm.weight[index % len(norm.weight)] = (-1) ** index * (2.0 + index)
            expected += 2.0 + index
    value = model.batch_norm_scales()
    assert value.item() == pytest.approx(expected, rel=1e-14)
    value.backward()
    for index, norm in enumerate(norms):
        gradient = torch.zeros_like(norm.weight)
        gradient[index % len(norm.weight)] = (-1) ** index
        assert torch.equal(norm.weight.grad, gradient)  # type: ignore[arg-type]


# ---- statistics that are re-estimated


def noises(network: NVAE, passes: int) -> list[Latents]:
    noise = SharedNoise(torch.Generator().manual_seed(6))
    like = tuple(torch.empty(5, *shape, dtype=torch.float64) for shape in network.latent_shapes)
    return [noise(like) for _ in range(passes)]


@torch.no_grad()
def directly(network: NVAE, eps: list[Latents], temperature: float) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the mean over the passes of each decoder batch norm's mean and variance, from what goes into it."""
    choosing, watched = copy.deepcopy(network).train(), copy.deepcopy(network).train()
    seen: dict[str, list[Tensor]] = {}

    def watch(name: str):
        def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            variance, mean = torch.var_mean(arguments[0], dim=(0, 2, 3))  # unbiased
            seen.setdefault(name, []).append(torch.stack([mean, variance]))

        return hook

    for name, module in watched.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(watch(name))
    for each in eps:
        watched.decoder_parameters(choosing.push(each, temperature))
    means = {name: torch.stack(found).mean(0) for name, found in seen.items()}
    return {name: (both[0], both[1]) for name, both in means.items()}


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_re_estimated_statistics_are_the_means_over_the_passes(temperature: float) -> None:
    """Cumulative averages of means and unbiased variances of the prior's own samples.

    A momentum that is not taken away, statistics that are not reset, or samples of another temperature break it.
    """
    network = backbone().double()
    eps = noises(network, 7)
    copied = re_estimated(network, iter(eps), temperature)
    expected = directly(network, eps, temperature)
    decoder = {name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    decoder = {name for name in decoder if name.startswith(("dec_tower", "post_process"))}
    assert set(expected) == decoder
    assert len(decoder) >= 8
    for name, (mean, variance) in expected.items():
        norm = copied.get_submodule(name)
        torch.testing.assert_close(norm.running_mean, mean, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(norm.running_var, variance, rtol=1e-9, atol=1e-11)
    assert not copied.training
    assert {norm.momentum for norm in norms_of(copied)} == {0.1}
    other = re_estimated(network, iter(eps), 0.8)
    name = "post_process.0._ops.0.conv.1.bn"
    assert not torch.allclose(other.get_submodule(name).running_var, copied.get_submodule(name).running_var)


def test_re_estimation_leaves_the_rest_alone() -> None:
    """The network itself, the copy's weights and its encoder's statistics are the same to the bit."""
    network = backbone().double()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    copied = re_estimated(network, iter(noises(network, 2))).state_dict()
    assert not network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
        moved = name.startswith(("dec_tower", "post_process")) and name.rpartition(".")[2] in (
            "running_mean",
            "running_var",
            "num_batches_tracked",
        )
        assert torch.equal(copied[name], value) != moved, name
