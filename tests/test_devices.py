"""A model on a GPU makes nothing on the CPU; shown without one, on tensors that have a device and no numbers.

The device is one that this machine need not have: torch's fake tensors refuse an operation on tensors of two devices.
Gradients by autograd are left out: its engine asks the device's driver.
"""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from jlebm import sampling
from jlebm.backbones.conv import ConvBackbone, ConvConfig
from jlebm.backbones.ladder import LadderBackbone, LadderConfig
from jlebm.backbones.nvae import NVAE
from jlebm.densities import Posterior, PriorInLatents, PriorInNoise
from jlebm.distributions import Normal
from jlebm.energies import conv_energy, mlp_energy
from jlebm.engines.closed_form import MLPPrior
from jlebm.engines.gradients import field_of
from jlebm.model import JointModel
from jlebm.moves import Stride, move
from tests.small import HIERARCHY

GPU = torch.device("cuda")


def conv() -> JointModel:
    config = ConvConfig((1, 8, 8), (3, 4), channels=(6, 5), conditional_hidden=(8,), inference_network=True)
    return JointModel(ConvBackbone(config), mlp_energy((3, 4), ((6,), (6, 6))))


def ladder() -> JointModel:
    config = LadderConfig((1, 8, 8), (2, 3, 4), channels=(6, 5), conditional_hidden=(7,), features=9)
    return JointModel(LadderBackbone(config), mlp_energy((2, 3, 4), ((6,), (6,), (6, 6))))


def deep() -> JointModel:
    network = NVAE(HIERARCHY).eval()
    return JointModel(network, conv_energy(network.latent_shapes, 4, 6))


MODELS: dict[str, Callable[[], JointModel]] = {"conv": conv, "ladder": ladder, "deep": deep}


@pytest.fixture(autouse=True)
def _fake() -> Iterator[None]:
    with FakeTensorMode():
        yield


def on_a_gpu(make: Callable[[], JointModel]) -> JointModel:
    with GPU:
        return make()


def draws(like: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(layer) for layer in like)


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_densities_and_images_stay_on_the_device(name: str) -> None:
    """A constant that is made on the CPU, as torch.tensor makes it, breaks it."""
    model = on_a_gpu(MODELS[name])
    z = model.sample_gaussian(2, draws)
    x = model.backbone.decode(z).mean
    values = [
        *z,
        x,
        model.backbone.decode(z).sample_image(draws),
        *model.backbone.posterior(x, draws).latents,
        model.energies(z),
        PriorInLatents(model.backbone, model.energy)(z),
        PriorInNoise(model.backbone, model.energy)(z),
        PriorInNoise(model.backbone, model.energy, "released")(z),
        Posterior(model.backbone, model.energy, x)(z),
    ]
    assert {value.device.type for value in values} == {"cuda"}


def test_the_written_out_gradient_stays_on_the_device() -> None:
    """With its value and without, and the step that follows it."""
    model = on_a_gpu(conv)
    field = field_of(PriorInLatents(model.backbone, model.energy))
    assert isinstance(field, MLPPrior)
    z = model.sample_gaussian(2, draws)
    value, gradient = field.value_and_gradient(z)
    moved = move(z, field.gradient(z), [Stride(0.1, 0.2**0.5)] * len(z), draws(z))
    assert {each.device.type for each in (value, *gradient, *moved)} == {"cuda"}


def test_two_devices_are_noticed() -> None:
    """The tests above see what they are for; torch 2.11 has no error of its own for it, and another sentence."""
    model = on_a_gpu(conv)
    z = model.noise(2, draws)
    with pytest.raises(RuntimeError, match=r"found (at least two devices|two different devices)"):
        Normal(z[0], torch.ones(3)).log_prob(z[0])


def test_a_gpu_is_filled_with_more_vectors_at_a_time() -> None:
    """A hierarchy of maps keeps a CPU's number, whose activations fill a GPU as they are."""
    assert sampling.filling_batch(conv()) == sampling.filling_batch(on_a_gpu(deep)) == sampling.BATCH
    assert sampling.filling_batch(on_a_gpu(ladder)) == sampling.BATCH_OF_VECTORS > sampling.BATCH
