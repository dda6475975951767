"""Kernels of blackjax on the prior of a model, under jit; needs the extra `peers`."""

from collections.abc import Callable
from typing import Any

import blackjax  # pyright: ignore[reportMissingImports]
import jax  # pyright: ignore[reportMissingImports]
from blackjax.mcmc import diffusions  # pyright: ignore[reportMissingImports]

from jlebm.langevin import Chain
from reproduce.benchmark.jax_peers import Jax


class Blackjax(Jax):
    """Langevin steps of blackjax: one chain per element of the batch, by vmap, as in its documentation."""

    def moved(self, weights: Any, z: Any, chain: Chain, key: Any) -> Any:
        """Return the last position of a batch of chains."""
        field = jax.value_and_grad(lambda z: self.log_density(weights, z))
        kernel = diffusions.overdamped_langevin(field)
        states = jax.vmap(lambda z: diffusions.DiffusionState(z, *field(z)))(z)
        return _scanned(lambda key, state: kernel(key, state, chain.epsilon), states, chain, key)


class BlackjaxMALA(Jax):
    """MALA of blackjax: one chain per element of the batch, by vmap."""

    def moved(self, weights: Any, z: Any, chain: Chain, key: Any) -> Any:
        """Return the last position of a batch of chains."""
        kernel = blackjax.mala(lambda z: self.log_density(weights, z), chain.epsilon)
        return _scanned(lambda key, state: kernel.step(key, state)[0], jax.vmap(kernel.init)(z), chain, key)


def _scanned(step: Callable[[Any, Any], Any], states: Any, chain: Chain, key: Any) -> Any:
    """Run one chain per element of the batch and return the last positions."""
    count = len(states.logdensity)

    def together(states: Any, key: Any) -> tuple[Any, None]:
        return jax.vmap(step)(jax.random.split(key, count), states), None

    return jax.lax.scan(together, states, jax.random.split(key, chain.steps))[0].position
