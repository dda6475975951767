"""Langevin chains written in JAX on the prior of a model, under jit; needs the extra `peers`."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax  # pyright: ignore[reportMissingImports]
import numpy as np
import torch
from jax import numpy as jnp  # pyright: ignore[reportMissingImports]
from torch import Tensor

from jlebm.engines.closed_form import MLPPrior
from jlebm.langevin import Chain
from jlebm.latents import Latents
from jlebm.model import JointModel
from jlebm.networks import MLP
from reproduce.benchmark.part import SEED


class Jax:
    """Langevin steps written in JAX as one scan, the batch as one array per layer."""

    def __init__(self, model: JointModel):
        prior = MLPPrior.of(model.backbone, model.energy)
        assert prior is not None, "the peers' target is a prior of perceptrons"
        self.prior, self.widths = prior, [shape[0] for shape in model.backbone.latent_shapes]
        energies = [network for network in prior.energies if network is not None]
        assert len(energies) == len(self.widths), "each layer of the peers' target has an energy"
        self.networks = (*energies, *prior.conditionals)
        self.double = next(model.parameters()).dtype == torch.float64
        with self._arithmetic():
            self.weights = [_arrays(network) for network in self.networks]

    def log_density(self, weights: Any, z: Any) -> Any:
        """Return log p(z), up to log Z, of one z or of a batch: each layer is (..., width)."""
        networks = list(zip(weights, self.networks, strict=True))
        energies, conditionals = networks[: len(z)], networks[len(z) :]
        value = _log_normal(z[0] / self.prior.top_sigma, jnp.full_like(z[0], self.prior.top_sigma))
        for (layers, network), layer in zip(energies, z, strict=True):
            value += _forward(layers, network.slope, layer)[..., 0]
        for (layers, network), above, below in zip(conditionals, z[:-1], z[1:], strict=True):
            mean, log_s = jnp.split(_forward(layers, network.slope, above), 2, axis=-1)
            sigma = jnp.exp(log_s) + self.prior.sigma_floor
            value += _log_normal((below - mean) / sigma, sigma)
        return value

    def moved(self, weights: Any, z: Any, chain: Chain, key: Any) -> Any:
        """Return the last position of a batch of chains."""
        gradient = jax.grad(lambda z: self.log_density(weights, z).sum())

        def step(z: Any, key: Any) -> tuple[Any, None]:
            scale = math.sqrt(2 * chain.epsilon)
            keys = jax.random.split(key, len(z))
            moves = zip(z, gradient(z), keys, strict=True)
            return tuple(_move(each, g, k, chain.epsilon, scale) for each, g, k in moves), None

        return jax.lax.scan(step, z, jax.random.split(key, chain.steps))[0]

    def value_and_gradient(self, z: Latents) -> tuple[Tensor, Latents]:
        """Return log p(z) and its gradient."""
        with self._arithmetic():
            one = jax.value_and_grad(self.log_density, argnums=1)
            value, gradient = jax.jit(jax.vmap(one, in_axes=(None, 0)))(self.weights, _to_jax(z))
            return _to_torch(value), tuple(map(_to_torch, gradient))

    def run(self, z: Latents, chain: Chain) -> Latents:
        """Run a chain from z."""
        with self._arithmetic():
            key = jax.random.key(SEED)
            after = jax.jit(lambda weights, z: self.moved(weights, z, chain, key))(self.weights, _to_jax(z))
            return tuple(map(_to_torch, after))

    def timed(self, count: int, chain: Chain) -> Callable[[], object]:
        """Return the compiled sampling from N(0, I); the stopwatch's warm-up compiles it."""

        def sample(weights: Any, key: Any) -> Any:
            starts, steps = jax.random.split(key)
            keys = jax.random.split(starts, len(self.widths))
            z = tuple(jax.random.normal(k, (count, width)) for k, width in zip(keys, self.widths, strict=True))
            return self.moved(weights, z, chain, steps)

        compiled, key = jax.jit(sample), jax.random.key(SEED)
        return lambda: jax.block_until_ready(compiled(self.weights, key))

    def _arithmetic(self) -> AbstractContextManager[Any]:
        return jax.enable_x64(self.double)


def _move(z: Any, gradient: Any, key: Any, epsilon: float, scale: float) -> Any:
    return z + epsilon * gradient + scale * jax.random.normal(key, z.shape, z.dtype)


def _forward(layers: Any, slope: float, h: Any) -> Any:
    *hidden, (last, last_bias) = layers
    for weight, bias in hidden:
        h = h @ weight + bias
        h = jnp.where(h > 0, h, slope * h)
    return h @ last + last_bias


def _log_normal(u: Any, sigma: Any) -> Any:
    return -(0.5 * u * u + jnp.log(sigma) + 0.5 * math.log(2 * math.pi)).sum(-1)


def _arrays(network: MLP) -> list[tuple[Any, Any]]:
    return [(jnp.asarray(weight.cpu().numpy().T), jnp.asarray(bias.cpu().numpy())) for weight, bias in network.layers]


def _to_jax(z: Latents) -> Any:
    return tuple(jnp.asarray(layer.numpy()) for layer in z)


def _to_torch(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array))
