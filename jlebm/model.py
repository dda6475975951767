"""A generator with a joint EBM prior: backbone and energies in one module, and samplers of prior and posterior."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jlebm import langevin
from jlebm.backbones.protocol import Backbone
from jlebm.densities import Posterior, PriorInLatents, PriorInNoise
from jlebm.energies import JointEnergy
from jlebm.engines.precision import arithmetic
from jlebm.errors import UserError
from jlebm.langevin import Chain, Observer, StepInfo
from jlebm.latents import Latents, layer_names, map_latents
from jlebm.persistence import PersistentChains
from jlebm.randomness import Noise


class JointModel(nn.Module):
    """p(x|z) exp(-E(z)) p0(z) / Z: a backbone of the `Backbone` protocol and one energy per layer."""

    backbone: Backbone
    chains: PersistentChains | None = None
    """Chains that a training keeps from one update to the next; no part of the weights."""

    def __init__(self, backbone: Backbone, energy: JointEnergy):
        """Join them.

        Raises:
            UserError: the energy has not one network for each layer of the backbone.
        """
        super().__init__()
        layers, networks = len(backbone.latent_shapes), len(energy.networks)
        if layers != networks:
            raise UserError(f"a backbone of {layers} layers needs as many energy networks, not {networks}")
        self.backbone = backbone
        self.energy = energy

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The names of the layers, top first."""
        return layer_names(len(self.backbone.latent_shapes))

    def noise(self, count: int, noise: Noise) -> Latents:
        """Draw N(0, I) in every layer, in the parameters' type and device."""
        like = next(self.parameters())
        return noise(tuple(like.new_empty(count, *shape) for shape in self.backbone.latent_shapes))

    def sample_gaussian(self, count: int, noise: Noise, temperature: float = 1.0) -> Latents:
        """Draw from the Gaussian hierarchy p0, the base of the EBM prior; `temperature` multiplies each sigma."""
        return self.pushed(self.noise(count, noise), temperature)

    def pushed(self, eps: Latents, temperature: float = 1.0) -> Latents:
        """Return z = T(eps) without an autograd graph."""
        with torch.no_grad(), arithmetic(self.backbone):
            return self.backbone.push(eps, temperature)

    def start(self, count: int, chain: Chain, noise: Noise) -> Latents:
        """Draw the latents at which `count` chains of this kind start."""
        if chain.start == "ancestral":
            return self.sample_gaussian(count, noise)
        return self.noise(count, noise)

    def sample_prior(
        self, count: int, chain: Chain, noise: Noise, observe: Observer | None = None, temperature: float = 1.0
    ) -> Latents:
        """Run `count` chains of the EBM prior, in latents or in whitened noise; return their last latents.

        Args:
            count: number of independent chains.
            chain: length, step size and space of the chains.
            noise: the source of their starts and steps.
            observe: called with the latents after every step.
            temperature: multiplies every sigma when the last whitened noise is mapped to latents.

        Raises:
            UserError: `temperature` is not 1 and the chain moves in latents.
        """
        if chain.space == "latents":
            if temperature != 1:
                raise UserError("a chain in latents has no temperature of the hierarchy; use one in whitened noise")
            start = self.start(count, chain, noise)
            with arithmetic(self.backbone):
                return langevin.run(start, PriorInLatents(self.backbone, self.energy), chain, noise, observe)

        def show(index: int, eps: Latents, info: StepInfo) -> None:
            assert observe is not None
            observe(index, self.pushed(eps), info)

        end = self.sample_noise(count, chain, noise, None if observe is None else show)
        return self.pushed(end, temperature)

    def sample_noise(self, count: int, chain: Chain, noise: Noise, observe: Observer | None = None) -> Latents:
        """Run `count` chains of the EBM prior in whitened noise and return their last noise, before T."""
        with arithmetic(self.backbone):
            return langevin.run(self.noise(count, noise), self.prior_in_noise(chain), chain, noise, observe)

    def prior_in_noise(self, chain: Chain, given: Latents = ()) -> PriorInNoise:
        """Return the density that a chain in whitened noise follows, with the chain's drift and arithmetic.

        Args:
            chain: in whitened noise.
            given: latents of the upper layers, which stay; the density is then that of the noise of those below.
        """
        return PriorInNoise(self.backbone, self.energy, chain.drift, given, chain.precision)

    def sample_posterior(
        self,
        x: Float[Tensor, "batch channels height width"],
        chain: Chain | None,
        noise: Noise,
        observe: Observer | None = None,
    ) -> Latents:
        """Run one chain of p(z|x) for each image of a batch; without a chain, draw from the inference network.

        Raises:
            UserError: the chain moves in whitened noise, as chains of the prior may.
            NoEncoder: there is neither a chain nor an inference network.
        """
        if chain is None:
            with torch.no_grad(), arithmetic(self.backbone):
                return self.backbone.posterior(x, noise).latents
        if chain.space != "latents":
            raise UserError("posterior chains move in latents; set their space to 'latents'")
        start = self.start(len(x), chain, noise)
        with arithmetic(self.backbone):
            return langevin.run(start, Posterior(self.backbone, self.energy, x), chain, noise, observe)

    def energies(self, z: Latents) -> Float[Tensor, "batch layers"]:
        """Return the energy of each layer without an autograd graph."""
        with torch.no_grad():
            return self.energy_at(map_latents(Tensor.detach, z))

    def energy_at(self, z: Latents) -> Float[Tensor, "batch layers"]:
        """Return the energy of each layer, top first, with its autograd graph."""
        return self.energy.at(self.backbone, z)
