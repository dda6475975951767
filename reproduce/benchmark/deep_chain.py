"""Chain step of the two-stage model on a deep hierarchy, against a plain version of the released code.

The mathematics is that of docs/facts, "Whitened noise" and "Two-stage training", with the exact base term. The released
code normalises every weight at every step, computes batch norms separately, continues to the parameters of the image,
which no drift needs, and evaluates the energies one after the other; memory is contiguous. Written for this comparison
only; the library does not use it.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jlebm import langevin
from jlebm.backbones.nvae import NVAE, NVAEConfig, frozen_copy
from jlebm.densities import PriorInNoise
from jlebm.distributions import CLAMP, SIGMA_FLOOR
from jlebm.energies import JointEnergy, conv_energy
from jlebm.langevin import Chain
from jlebm.latents import Latents
from jlebm.randomness import Noise
from reproduce.benchmark.part import EXACT, Part, noise, relative, steps_of
from reproduce.cifar10 import TWO_STAGE_PAPER

NARROW = NVAEConfig(
    image_size=32,
    num_channels_enc=16,
    num_channels_dec=16,
    num_latent_scales=1,
    num_groups_per_scale=4,
    num_latent_per_group=4,
    num_mixture_dec=1,
)
assert TWO_STAGE_PAPER.nvae is not None
PUBLISHED = TWO_STAGE_PAPER.nvae.model
# Hierarchy, batch size and steps; the published hierarchy takes minutes on a CPU.
SIZES = {"cpu": (NARROW, 50, 1), "cuda": (PUBLISHED, 32, 10)}
STEP = 4e-5  # h of the paper's chains
SEED = 3
METRIC = "two-stage chain step"


def setting(config: NVAEConfig, batch: int, steps: int = 1) -> str:
    """Describe the size that is timed."""
    with torch.device("meta"):
        shapes = NVAE(config).latent_shapes
    return f"{steps_of(steps)}batch {batch}, {len(shapes)} groups of {'x'.join(map(str, shapes[-1]))}"


class Plain:
    """Plain decoder of an NVAE, as a state dict and functions, with the energy networks; top first."""

    def __init__(self, network: NVAE, energy: JointEnergy):
        state = network.state_dict()
        self.weights = {key: value.clone(memory_format=torch.contiguous_format) for key, value in state.items()}
        self.tower, self.after = len(network.dec_tower), len(network.post_process)
        self.energies = [copy.deepcopy(each) for each in energy.networks]

    def chain(self, eps: Latents, chain: Chain, noise: Noise) -> Latents:
        """Run a chain from `eps`."""
        h = 2 * chain.epsilon  # the released code's step size is the noise's variance
        for _ in range(chain.steps):
            gradients, drawn = self.gradient(eps), noise(eps)
            moved = []
            for layer, gradient, xi in zip(eps, gradients, drawn, strict=True):
                after = layer + h / 2 * gradient
                moved.append(after + math.sqrt(h) * xi)
            eps = tuple(moved)
        return eps

    def gradient(self, eps: Latents) -> Latents:
        """Return the gradient of sum f_i(T(eps)) - |eps|^2 / 2, as that of a batch mean times the batch size."""
        leaves = tuple(layer.detach().requires_grad_() for layer in eps)
        total = torch.zeros(len(eps[0]), dtype=eps[0].dtype, device=eps[0].device)
        for energy, layer in zip(self.energies, self.latents(leaves), strict=True):
            total = total + energy(layer).squeeze(1)
        for layer in leaves:
            total = total - 0.5 * (layer * layer).sum((1, 2, 3))
        return tuple(len(total) * gradient for gradient in torch.autograd.grad(total.mean(), leaves))

    def latents(self, eps: Latents) -> list[Tensor]:
        """Return z = T(eps); the parameters of the image are computed and discarded."""
        state = self.weights["prior_ftr0"].expand(len(eps[0]), -1, -1, -1)
        z: list[Tensor] = []
        for index in range(self.tower):
            if f"dec_tower.{index}.conv.weight" not in self.weights:
                state = self.cell(f"dec_tower.{index}", state)
                continue
            noise = eps[len(z)]
            parameters = (
                self.convolve(f"dec_sampler.{len(z) - 1}.1", F.elu(state)) if z else torch.cat([0 * noise] * 2, 1)
            )
            mean, log_sigma = (CLAMP * torch.tanh(part / CLAMP) for part in parameters.chunk(2, dim=1))
            z.append(mean + (torch.exp(log_sigma) + SIGMA_FLOOR) * noise)
            state = self.convolve(f"dec_tower.{index}.conv", torch.cat([state, z[-1]], dim=1))
        for index in range(self.after):
            state = self.cell(f"post_process.{index}", state)
        self.convolve("image_conditional.1", F.elu(state), padding=1)
        return z

    def cell(self, name: str, state: Tensor) -> Tensor:
        """Return skip(x) + 0.1 SE(ops(x)); an upward cell doubles the resolution."""
        up = f"{name}.skip.1.weight" in self.weights
        layers = [f"{name}._ops.0.conv.{index + up}" for index in range(5)]
        inner = F.interpolate(state, scale_factor=2) if up else state
        inner = self.normalise(f"{layers[0]}.bn", inner)
        inner = F.conv2d(inner, self.weights[f"{layers[1]}.conv.0.weight"])
        inner = F.silu(self.normalise(f"{layers[1]}.conv.1", inner))
        depthwise = self.weights[f"{layers[2]}.conv.0.weight"]
        inner = F.conv2d(inner, depthwise, padding=2, groups=len(depthwise))
        inner = F.silu(self.normalise(f"{layers[2]}.conv.1", inner))
        inner = F.conv2d(inner, self.weights[f"{layers[3]}.weight"])
        inner = self.normalise(f"{layers[4]}.bn", inner)
        if f"{name}.se.se.0.weight" in self.weights:
            hidden, gate = (
                (self.weights[f"{name}.se.se.{i}.weight"], self.weights[f"{name}.se.se.{i}.bias"]) for i in (0, 2)
            )
            scale = torch.sigmoid(F.linear(F.relu(F.linear(inner.mean((2, 3)), *hidden)), *gate))
            inner = inner * scale[:, :, None, None]
        if up:
            above = F.interpolate(state, scale_factor=2, mode="bilinear", align_corners=True)
            state = self.convolve(f"{name}.skip.1", above)
        return state + 0.1 * inner

    def convolve(self, name: str, input: Tensor, padding: int = 0) -> Tensor:
        """Convolve with the normalised weight."""
        weight = self.weights[f"{name}.weight"]
        norm = torch.sqrt((weight * weight).sum((1, 2, 3), keepdim=True))
        weight = torch.exp(self.weights[f"{name}.log_weight_norm"]) * weight / (norm + 1e-5)
        return F.conv2d(input, weight, self.weights.get(f"{name}.bias"), padding=padding)

    def normalise(self, name: str, input: Tensor) -> Tensor:
        """Apply batch norm with the running statistics."""
        mean, variance, scale, shift = (
            self.weights[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(input, mean, variance, scale, shift, training=False, eps=1e-5)


def part(config: NVAEConfig, batch: int, steps: int, device: torch.device) -> Part:
    """Return the line of steps of the paper's chain, on a hierarchy and published energies of random weights."""
    chain, one_step = (Chain.from_two_stage_paper(count, STEP) for count in (steps, 1))
    torch.manual_seed(SEED)
    network = _settled(NVAE(config)).to(device)
    shapes = network.latent_shapes
    energy = conv_energy(shapes).to(device)
    plain, density = Plain(network, energy), PriorInNoise(frozen_copy(network), energy)
    double, energy_double = copy.deepcopy(network).double(), copy.deepcopy(energy).double()

    def start(count: int, dtype: torch.dtype = torch.float32) -> Latents:
        return noise(device)(tuple(torch.empty(count, *shape, dtype=dtype, device=device) for shape in shapes))

    def ours(count: int, chain: Chain) -> Latents:
        return langevin.run(start(count), density, chain, noise(device))

    def agreement() -> float:
        eps, few = start(2, torch.float64), Chain(3, 0.05)  # steps that go far enough for a wrong drift to be seen
        frozen = PriorInNoise(frozen_copy(double), energy_double)
        theirs = Plain(double, energy_double).chain(eps, few, noise(device))
        return relative(langevin.run(eps, frozen, few, noise(device)), theirs)

    return Part(
        METRIC,
        setting(config, batch, steps),
        lambda: plain.chain(start(batch), chain, noise(device)),
        lambda: ours(batch, chain),
        agreement,
        EXACT,
        {"cpu": 6.0, "cuda": 3.0},
        lambda: ours(1, one_step),
        times=batch * steps,
        bound="the convolutions and activations of the decoder's cells",
    )


def _settled(network: NVAE) -> NVAE:
    """Give batch norms statistics that change something, as a trained network's do."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()
