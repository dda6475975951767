"""Plain version of the released code's joint training, which the benchmark compares ours with.

The mathematics is that of docs/facts, "Learning gradients", and the operations are those of the released code
(`joint-training/train_cifar10.py`): two gradient calls a step, one of log p0(z), with log p(x|z) for the posterior,
and one of the energies; a discarded draw of each conditional; latents moved in place; the posterior's chain before the
prior's; one optimiser per network; contiguous memory. Written for this comparison only; the library does not use it.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jlebm.backbones.conv import ConvBackbone
from jlebm.distributions import SIGMA_FLOOR
from jlebm.langevin import Chain
from jlebm.latents import Latents
from jlebm.model import JointModel
from jlebm.randomness import Noise


class Plain:
    """Copy of a two-layer model's networks, with the released code's operations; z1 is the bottom layer."""

    def __init__(self, model: JointModel):
        backbone = model.backbone
        assert isinstance(backbone, ConvBackbone)
        like = next(model.parameters())
        self.energy2, self.energy1 = (_copy(network) for network in model.energy.networks)
        self.conditional = _copy(backbone.conditionals[0].get_submodule("network"))
        self.generator = _copy(backbone.generator)
        self.likelihood_sigma, self.top_sigma = backbone.config.likelihood_sigma, backbone.config.top_sigma
        self.like = like.detach()
        self.networks = (self.generator, self.conditional, self.energy1, self.energy2)
        rates = (1e-4, 1e-4, 2e-5, 2e-5)
        self.optimizers = [torch.optim.Adam(n.parameters(), lr=lr) for n, lr in zip(self.networks, rates, strict=True)]

    # ---- densities, each summed over the batch

    def conditional_log_prob(self, z2: Tensor, z1: Tensor) -> Tensor:
        """Return log p(z1|z2) of each element; the released code's forward pass also makes a draw."""
        mean, log_sigma = self.conditional(z2).chunk(2, dim=1)
        sigma = torch.exp(log_sigma) + SIGMA_FLOOR
        torch.add(mean, sigma * torch.randn_like(mean))
        return _log_normal(z1, mean, sigma)

    def top_log_prob(self, z2: Tensor) -> Tensor:
        """Return log p(z2) of each element, with a scale computed for each coordinate."""
        sigma = torch.exp(torch.zeros_like(z2)) + (self.top_sigma - 1)
        return _log_normal(z2, torch.zeros_like(z2), sigma)

    def log_p0(self, z2: Tensor, z1: Tensor) -> Tensor:
        """Return log p0(z) = log p(z1|z2) + log p(z2)."""
        return self.conditional_log_prob(z2, z1).sum() + self.top_log_prob(z2).sum()

    def log_likelihood(self, z1: Tensor, x: Tensor) -> Tensor:
        """Return log p(x|z1), up to a constant."""
        error = F.mse_loss(self.generator(z1), x, reduction="none").sum(dim=(1, 2, 3)).sum()
        return error * (-1.0 / (2.0 * self.likelihood_sigma**2))

    def energy_terms(self, z2: Tensor, z1: Tensor) -> Tensor:
        """Return f1(z1) + f2(z2)."""
        return self.energy1(z1).squeeze(1).sum() + self.energy2(z2).squeeze(1).sum()

    # ---- chains

    def chain(self, start: Latents, chain: Chain, noise: Noise, x: Tensor | None = None) -> Latents:
        """Run a chain of the prior, or of the posterior of the images x; latents top first, as in the library."""
        z2, z1 = (z.detach().clone().requires_grad_() for z in start)
        s = math.sqrt(2 * chain.epsilon)  # the released code's step size is the noise's standard deviation
        for _ in range(chain.steps):
            generative = self.log_p0(z2, z1)
            if x is not None:
                generative = self.log_likelihood(z1, x) + generative
            energies = self.energy_terms(z2, z1)
            generative2, generative1 = torch.autograd.grad(generative, (z2, z1))
            energies2, energies1 = torch.autograd.grad(energies, (z2, z1))
            z1.data += 0.5 * s * s * (energies1 + generative1)
            z2.data += 0.5 * s * s * (energies2 + generative2)
            xi2, xi1 = noise((z2, z1))
            z1.data += s * xi1
            z2.data += s * xi2
        return z2.detach(), z1.detach()

    # ---- one iteration

    def losses(self, x: Tensor, posterior: Latents, prior: Latents) -> tuple[Callable[[], Tensor], ...]:
        """Return the loss of each of `networks`, computed when called."""
        z2, z1 = posterior
        prior2, prior1 = prior
        return (
            lambda: F.mse_loss(self.generator(z1), x, reduction="sum") / (2 * self.likelihood_sigma**2) / len(x),
            lambda: self.conditional_log_prob(prior2, prior1).mean() - self.conditional_log_prob(z2, z1).mean(),
            lambda: self.energy1(prior1).mean() - self.energy1(z1).mean(),
            lambda: self.energy2(prior2).mean() - self.energy2(z2).mean(),
        )

    def gradients(self, x: Tensor, posterior: Latents, prior: Latents) -> None:
        """Compute each network's gradient."""
        for optimizer, loss in zip(self.optimizers, self.losses(x, posterior, prior), strict=True):
            optimizer.zero_grad()
            loss().backward()

    def update(self, x: Tensor, posterior: Latents, prior: Latents) -> None:
        """Update one network after the other from the same pair of samples."""
        for optimizer, loss in zip(self.optimizers, self.losses(x, posterior, prior), strict=True):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()

    def samples(self, x: Tensor, chains: tuple[Chain, Chain], noises: tuple[Noise, Noise]) -> tuple[Latents, Latents]:
        """Return posterior and prior samples, in the order in which the released code draws them.

        Args:
            x: the images.
            chains: the posterior's and the prior's; both start from N(0, I).
            noises: a source for each.
        """
        posterior = self.chain(self.start(len(x), noises[0]), chains[0], noises[0], x)
        prior = self.chain(self.start(len(x), noises[1]), chains[1], noises[1])
        return posterior, prior

    def iteration(self, x: Tensor, chains: tuple[Chain, Chain], noises: tuple[Noise, Noise]) -> None:
        """Do one training iteration: both chains, then the updates."""
        self.update(x, *self.samples(x, chains, noises))

    def start(self, count: int, noise: Noise) -> Latents:
        """Return N(0, I) in both layers."""
        first = self.energy2[0], self.energy1[0]
        return noise(tuple(self.like.new_empty(count, network.in_features) for network in first))  # pyright: ignore

    def sample(self, count: int, chain: Chain, noise: Noise, batch: int = 100) -> Tensor:
        """Return `count` decoded samples of the EBM prior, uint8, drawn in batches of `batch`."""
        images = []
        for first in range(0, count, batch):
            _, z1 = self.chain(self.start(min(batch, count - first), noise), chain, noise)
            with torch.no_grad():
                decoded = self.generator(z1)
            images.append(((decoded + 1) * 127.5).round().clamp(0, 255).to(torch.uint8))
        return torch.cat(images)


def _log_normal(value: Tensor, mean: Tensor, sigma: Tensor) -> Tensor:
    standardised = (value - mean) / sigma
    terms = -0.5 * standardised * standardised - 0.5 * math.log(2 * math.pi) - torch.log(sigma)
    return terms.sum(1)


def _copy(network: nn.Module) -> nn.Sequential:
    """Copy a network layer by layer as torch's own modules, contiguous."""
    layers: list[nn.Module] = []
    assert isinstance(network, nn.Sequential)
    for module in network:
        if isinstance(module, nn.ConvTranspose2d):
            kernel, stride, padding = (getattr(module, name)[0] for name in ("kernel_size", "stride", "padding"))
            copy: nn.Module = nn.ConvTranspose2d(module.in_channels, module.out_channels, kernel, stride, padding)
        elif isinstance(module, nn.Linear):
            copy = nn.Linear(module.in_features, module.out_features)
        elif isinstance(module, nn.LeakyReLU):
            copy = nn.LeakyReLU(module.negative_slope)
        else:
            copy = module  # tanh and the reshape have no state
        like = next(network.parameters())
        copy.to(device=like.device, dtype=like.dtype)
        state = {
            name: value.clone(memory_format=torch.contiguous_format) for name, value in module.state_dict().items()
        }
        copy.load_state_dict(state)
        layers.append(copy)
    return nn.Sequential(*layers)
