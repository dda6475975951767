"""Plain version of the released code's joint training, which the benchmark compares ours with.

The mathematics is that of docs/facts, "Learning gradients", and the order is the released joint training's: one
gradient call per term of a log-density, a discarded draw of each conditional, one optimiser per network, contiguous
memory. Written for this comparison only; the library does not use it.
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
        self.likelihood_sigma, self.like = backbone.config.likelihood_sigma, like.detach()
        self.networks = (self.generator, self.conditional, self.energy1, self.energy2)
        rates = (1e-4, 1e-4, 2e-5, 2e-5)
        self.optimizers = [torch.optim.Adam(n.parameters(), lr=lr) for n, lr in zip(self.networks, rates, strict=True)]

    # ---- densities

    def conditional_log_prob(self, z2: Tensor, z1: Tensor) -> Tensor:
        """Return log p(z1|z2) of each element; the released code's forward pass also makes a draw."""
        mean, log_sigma = self.conditional(z2).chunk(2, dim=1)
        sigma = torch.exp(log_sigma) + SIGMA_FLOOR
        torch.add(mean, sigma * torch.randn_like(mean))
        return _log_normal(z1, mean, sigma)

    def top_log_prob(self, z2: Tensor) -> Tensor:
        """Return log p(z2) = log N(z2; 0, I)."""
        return _log_normal(z2, torch.zeros_like(z2), torch.exp(torch.zeros_like(z2)))

    # ---- chains

    def prior_gradient(self, z2: Tensor, z1: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient of f1 + f2 + log p(z1|z2) + log p(z2) in z2 and z1, one term after the other."""
        z2, z1 = z2.detach().requires_grad_(), z1.detach().requires_grad_()
        (f1,) = torch.autograd.grad(self.energy1(z1).sum(), z1)
        (f2,) = torch.autograd.grad(self.energy2(z2).sum(), z2)
        above, below = torch.autograd.grad(self.conditional_log_prob(z2, z1).sum(), (z2, z1))
        (top,) = torch.autograd.grad(self.top_log_prob(z2).sum(), z2)
        return f2 + above + top, f1 + below

    def likelihood_gradient(self, z1: Tensor, x: Tensor) -> Tensor:
        """Return the gradient of log p(x|z1) in z1."""
        z1 = z1.detach().requires_grad_()
        error = F.mse_loss(self.generator(z1), x, reduction="sum")
        (gradient,) = torch.autograd.grad(-error / (2 * self.likelihood_sigma**2), z1)
        return gradient

    def chain(self, start: Latents, chain: Chain, noise: Noise, x: Tensor | None = None) -> Latents:
        """Run a chain of the prior, or of the posterior of the images x; latents top first, as in the library."""
        z2, z1 = start
        s = math.sqrt(2 * chain.epsilon)  # the released code's step size is the noise's standard deviation
        for _ in range(chain.steps):
            gradient2, gradient1 = self.prior_gradient(z2, z1)
            if x is not None:
                gradient1 = gradient1 + self.likelihood_gradient(z1, x)
            xi2, xi1 = noise((z2, z1))
            z2 = z2 + 0.5 * s * s * gradient2
            z2 = z2 + s * xi2
            z1 = z1 + 0.5 * s * s * gradient1
            z1 = z1 + s * xi1
        return z2, z1

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

    def iteration(self, x: Tensor, prior_chain: Chain, posterior_chain: Chain, noise: Noise) -> None:
        """Do one training iteration: both chains from N(0, I), then the updates."""
        prior = self.chain(self.start(len(x), noise), prior_chain, noise)
        posterior = self.chain(self.start(len(x), noise), posterior_chain, noise, x)
        self.update(x, posterior, prior)

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
