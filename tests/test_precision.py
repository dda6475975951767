"""bf16 and TF32 in the decoder against float32, along whole chains: what an arithmetic has to pass for a preset.

No CPU has TF32: its rounding of what convolutions multiply is done here by hand, forward and backward.
"""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jlebm.backbones.conv import ConvBackbone, ConvConfig
from jlebm.backbones.layers import FromPoint
from jlebm.densities import Posterior
from jlebm.energies import mlp_energy
from jlebm.engines.decoder_gradient import DecoderLikelihood
from jlebm.engines.precision import Precision, arithmetic
from jlebm.langevin import Chain, run
from jlebm.latents import Latents
from jlebm.learning.scheme import ContrastiveUpdate
from jlebm.model import JointModel
from jlebm.randomness import SharedNoise
from jlebm.sampling import Sampler, generate, reconstruct
from tests.small import experiment, train

ROOT = Path(__file__).resolve().parents[1]
CHAINS = 256  # of each arithmetic
WATCHED = (0, 4, 9, 19, 39)  # steps of the chain
EQUIVALENT = 0.01  # standard deviations by which bf16 may shift the mean of a figure
CONFIG = ConvConfig((3, 16, 16), (6, 10), channels=(24, 16), conditional_hidden=(16, 16))


def rounded(x: Tensor) -> Tensor:
    """Round float32 to the 10 bits after the point that TF32 multiplies, to nearest, ties away from zero."""
    return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


class RoundedProducts(torch.autograd.Function):
    """A transposed convolution in which whatever is multiplied is rounded; gradients are those in its input alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
        """Return the output, padded by 1."""
        ctx.save_for_backward(rounded(weight))
        ctx.stride = stride
        return F.conv_transpose2d(rounded(x), rounded(weight), bias, stride, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient in the input."""
        (weight,) = ctx.saved_tensors
        return F.conv2d(rounded(gradients[0]), weight, None, ctx.stride, 1), None, None, None


class Tf32(nn.Module):
    """A transposed convolution of the generator as a GPU computes it with TF32."""

    def __init__(self, conv: nn.ConvTranspose2d):
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """Return the output."""
        assert self.conv.bias is not None
        return RoundedProducts.apply(x, self.conv.weight.detach(), self.conv.bias.detach(), self.conv.stride[0])


def models(precision: Precision = "bf16") -> tuple[JointModel, JointModel]:
    """Return one model in float32 and in another arithmetic, its decoder as sharp as a trained one's."""
    torch.manual_seed(0)
    full = JointModel(ConvBackbone(CONFIG), mlp_energy(CONFIG.latent_dims, ((16, 16), (16, 16))))
    with torch.no_grad():
        for parameter in full.backbone.generator.parameters():
            parameter.mul_(2.0)
    other = JointModel(ConvBackbone(dataclasses.replace(CONFIG, precision=precision)), full.energy)
    other.backbone.load_state_dict(full.backbone.state_dict())
    if precision == "tf32":
        generator = other.backbone.generator
        for index, module in enumerate(generator):
            if isinstance(module, nn.ConvTranspose2d) and not isinstance(module, FromPoint):
                generator[index] = Tf32(module)
        assert sum(isinstance(module, Tf32) for module in generator) == 2  # all but the matrix product
        assert isinstance(generator[1], FromPoint)
    return full, other


def figures(model: JointModel, judge: JointModel, x: Tensor) -> dict[tuple[str, int], Tensor]:
    """Run posterior chains of one arithmetic; return energies and reconstruction errors by step, judged in float32."""
    noise, seen = SharedNoise(torch.Generator().manual_seed(1)), {}

    def watch(index: int, position: Latents, info) -> None:
        if index in WATCHED:
            with torch.no_grad():
                seen["energy", index] = judge.energy(position).sum(1)
                seen["reconstruction", index] = (judge.backbone.decode(position).mean - x).square().flatten(1).mean(1)

    start = model.noise(len(x), noise)
    run(start, Posterior(model.backbone, model.energy, x), Chain.from_joint_paper(max(WATCHED) + 1, 0.1), noise, watch)
    return seen


def apart(first: dict[tuple[str, int], Tensor], second: dict[tuple[str, int], Tensor]) -> float:
    """Bound how far the mean of any figure at any step is shifted, in standard deviations of that figure over chains.

    The chains are paired by their noise; the bound is the shift seen plus three standard errors of it, so that too few
    chains fail the test and never pass it.
    """
    shifts = []
    for key, values in first.items():
        difference = second[key] - values
        error = difference.std() / len(values) ** 0.5
        shifts.append(float((difference.mean().abs() + 3 * error) / values.std()))
    return max(shifts)


def images(model: JointModel) -> Tensor:
    """Return images that the decoder can make."""
    with torch.no_grad():
        z = model.sample_gaussian(CHAINS, SharedNoise(torch.Generator().manual_seed(9)))
        return model.backbone.decode(z).mean


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_chains_in_less_precision_are_equivalent_to_those_in_float32(precision: Precision) -> None:
    """Energies and reconstruction errors along 40 steps; a drift of rounding errors that add up breaks it."""
    full, other = models(precision)
    x = images(full)
    shift = apart(figures(full, full, x), figures(other, full, x))
    assert 0 < shift < EQUIVALENT


@pytest.mark.slow
def test_the_test_sees_a_wrong_arithmetic() -> None:
    """A decoder whose images are a tenth too bright before its tanh does not pass for float32."""
    full, half = models()
    x = images(full)
    with torch.no_grad():
        half.backbone.generator[-2].bias.add_(0.1)
    assert apart(figures(full, full, x), figures(half, full, x)) > 3 * EQUIVALENT


def test_only_the_decoder_is_in_bf16() -> None:
    """Latents, gradients, images and densities come back as float32, and bf16 was used at all."""
    full, half = models()
    x = images(full)[:4]
    z = full.noise(4, SharedNoise(torch.Generator().manual_seed(3)))
    leaves = tuple(layer.requires_grad_() for layer in z)
    value = Posterior(half.backbone, half.energy, x)(leaves)
    gradient = torch.autograd.grad(value.sum(), leaves)
    assert {value.dtype, half.backbone.decode(z).mean.dtype, *(layer.dtype for layer in gradient)} == {torch.float32}
    with torch.no_grad():
        difference = (full.backbone.decode(z).mean - half.backbone.decode(z).mean).abs().max()
    assert 1e-5 < float(difference) < 0.1
    torch.testing.assert_close(full.backbone.prior_log_prob(z), half.backbone.prior_log_prob(z), rtol=0, atol=0)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_weights_are_trained_in_float32(precision: str) -> None:
    """The gradient of every weight is float32, whatever the decoder computes in."""
    model = models("bf16")[precision == "bf16"]
    x = images(model)[:2]
    z = model.noise(2, SharedNoise(torch.Generator().manual_seed(3)))
    (-Posterior(model.backbone, model.energy, x)(z).mean()).backward()
    assert {parameter.grad.dtype for parameter in model.parameters() if parameter.grad is not None} == {torch.float32}


# ---- TF32 is a flag of the process


def in_tf32() -> bool:
    """Whether cuDNN's convolutions compute in TF32 now."""
    return torch.backends.cudnn.conv.fp32_precision == "tf32"


@pytest.fixture
def flag(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether TF32 was allowed, at every image that is decoded."""
    seen: list[bool] = []
    decode, gradient = ConvBackbone.decode, DecoderLikelihood.gradient  # a posterior's step has the second

    def watched(self: ConvBackbone, z: Latents):
        seen.append(in_tf32())
        return decode(self, z)

    def stepped(self: DecoderLikelihood, position: Latents):
        seen.append(in_tf32())
        return gradient(self, position)

    monkeypatch.setattr(ConvBackbone, "decode", watched)
    monkeypatch.setattr(DecoderLikelihood, "gradient", stepped)
    return seen


@pytest.mark.parametrize(("precision", "allowed"), [("float32", False), ("tf32", True), ("bf16", False)])
@pytest.mark.parametrize("before", [False, True])
def test_convolutions_use_tf32_where_the_configuration_says_so(
    precision: Precision, allowed: bool, before: bool, flag: list[bool]
) -> None:
    """In samples, reconstructions and posterior chains; torch's own default, or another model's, does not matter."""
    torch.manual_seed(0)
    backbone = ConvBackbone(dataclasses.replace(CONFIG, precision=precision))
    model = JointModel(backbone, mlp_energy(CONFIG.latent_dims, ((16,), (16,))))
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=before):
        (sampled,) = generate(model, "ebm-prior", range(2), Sampler(Chain(1, 0.01)))
        list(reconstruct(model, sampled.images.numpy(), [0, 1], Chain(2, 0.01)))
        assert torch.backends.cudnn.allow_tf32 == before
    assert set(flag) == {allowed}
    assert len(flag) == 4


SETTINGS = {
    "nothing": lambda: None,
    "convolutions in full": lambda: setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee"),
    "convolutions in TF32": lambda: setattr(torch.backends.cudnn.conv, "fp32_precision", "tf32"),
    "all in full": lambda: setattr(torch.backends, "fp32_precision", "ieee"),
    "all in TF32": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
    "products in TF32": lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
    "the older switch": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
}
SET_BEFORE = """
import sys, warnings
import torch
from jlebm.engines.precision import convolutions, full_float32, in_force
from tests.test_precision import SETTINGS
SETTINGS[sys.argv[1]]()
before = in_force()
for tf32 in (True, False):
    with convolutions(tf32):
        assert in_force()[0] == ("tf32" if tf32 else "ieee"), in_force()
    assert in_force() == before, (in_force(), before)
if sys.argv[1].startswith("all"):  # what followed the setting for all operations still follows it
    torch.backends.fp32_precision = "ieee"
    assert in_force()[0] == "ieee"
full_float32()
assert in_force() == ("ieee", "ieee")
print(torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
"""


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_every_way_to_set_tf32_is_overridden_and_left_as_it_was(setting: str) -> None:
    """Torch has two generations of switches; reading the older one where both are used raises an error."""
    command = [sys.executable, "-c", SET_BEFORE, setting]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert ran.stdout.split() == ["False", "False"], ran.stderr


def test_the_flag_is_as_it_was_after_an_error() -> None:
    """A run that fails leaves no other arithmetic behind."""
    before, seen = in_tf32(), []

    def fails() -> None:
        with arithmetic(models("tf32")[1].backbone):
            seen.append(in_tf32())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert seen == [True]
    assert in_tf32() == before


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_training_has_its_precision_forward_and_backward(
    precision: Precision, flag: list[bool], tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chains and the loss of every update, and the backward pass, which reads the flag when it runs."""
    backward: list[bool] = []
    loss = ContrastiveUpdate.loss

    def watched(self: ContrastiveUpdate) -> Tensor:
        value = loss(self)
        value.register_hook(lambda gradient: backward.append(in_tf32()))
        return value

    monkeypatch.setattr(ContrastiveUpdate, "loss", watched)
    model = dataclasses.replace(experiment().model, precision=precision)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=precision == "float32"):
        train(tmp_path, steps=2, model=model)
    assert set(flag) == set(backward) == {precision == "tf32"}
    assert len(backward) == 2


def test_precision_is_part_of_the_digest() -> None:
    """Runs of different arithmetic are never taken for one another."""
    model = experiment().model
    digests = {
        experiment(model=dataclasses.replace(model, precision=precision)).digest()
        for precision in ("float32", "tf32", "bf16")
    }
    assert len(digests) == 3
