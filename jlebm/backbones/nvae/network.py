"""NVAE: a deep hierarchy p(x|z) p(z_L) prod p(z_i|z_{>i}) with a bottom-up encoder (arXiv 2007.03898).

The layers of latents are its groups, top first. Every Gaussian's mu and log sigma pass a soft clamp, and its sigma has
a floor of 0.01. So the top's N(0, I) has a sigma of 1.01, as in the training of the published checkpoints. Normalising
flows, if there are any, belong to q(z|x) alone (docs/facts, "NVAE architecture").
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from jlebm.backbones.nvae.cells import (
    DecoderCombiner,
    EncoderCombiner,
    FlowPair,
    NormalisedConv,
    decoder_cell,
    encoder_cell,
)
from jlebm.backbones.nvae.nvae_config import NVAEConfig
from jlebm.backbones.protocol import ELBOTerms, PosteriorSample
from jlebm.distributions import Bernoulli, DiscretisedLogisticMixture, Likelihood, Normal, soft_clamped
from jlebm.engines.precision import Precision
from jlebm.latents import Latents, LatentShapes
from jlebm.randomness import Noise

TOWER_EXPANSION, IMAGE_EXPANSION = 6, 3  # expansions of the inverted residuals in the decoder tower and after it
RECOMPUTED_FROM = 256  # pixels of a side


class Step(NamedTuple):
    """State of the top-down pass before the latents of a group are chosen."""

    group: int
    parameters: tuple[Tensor, Tensor]
    """Mean and log sigma of the prior before the soft clamp."""
    prior: Normal
    state: Tensor


class NVAE(nn.Module):
    """NVAE, a deep hierarchy of feature maps; `Backbone` documents the methods."""

    precision: Precision = "float32"
    """Arithmetic of its convolutions in chains; stage two says it (`jlebm.engines.precision`)."""

    recordable = True

    def __init__(self, config: NVAEConfig):
        super().__init__()
        self.config = config
        self.recompute = config.image_size >= RECOMPUTED_FROM
        """Whether a backward pass in eval mode recomputes the tower's activations instead of storing them: equal to the
        bit, in less memory and more time."""
        width, latents = config.num_channels_enc, config.num_latent_per_group
        top = 2 ** (config.num_preprocess_blocks + config.num_latent_scales - 1)
        size = config.top_side
        self.prior_ftr0 = nn.Parameter(torch.rand(top * config.num_channels_dec, size, size))
        self.stem = NormalisedConv(config.image_channels, width, 3)
        self._build_bottom_up()
        self._build_top_down(size)
        pairs = sum(config.groups()) * config.num_nf
        self.nf_cells = nn.ModuleList(FlowPair(latents) for _ in range(pairs))

    def _build_bottom_up(self) -> None:
        config, width, mult = self.config, self.config.num_channels_enc, 1
        self.pre_process = nn.ModuleList()
        for _ in range(config.num_preprocess_blocks):
            for index in range(config.num_preprocess_cells):
                down = index == config.num_preprocess_cells - 1
                channels = mult * width
                self.pre_process.append(encoder_cell(channels, 2 * channels if down else channels, down, config.use_se))
            mult *= 2
        self.enc_tower = nn.ModuleList()
        groups = config.groups()
        for scale, count in enumerate(groups):
            last_scale = scale == len(groups) - 1
            for group in range(count):
                for _ in range(config.num_cell_per_cond_enc):
                    self.enc_tower.append(encoder_cell(mult * width, mult * width, False, config.use_se))
                if not (last_scale and group == count - 1):
                    self.enc_tower.append(EncoderCombiner(mult * width, mult * config.num_channels_dec))
            if not last_scale:
                self.enc_tower.append(encoder_cell(mult * width, 2 * mult * width, True, config.use_se))
                mult *= 2
        self.enc0 = nn.Sequential(nn.ELU(), NormalisedConv(mult * width, mult * width, 1), nn.ELU())

    def _build_top_down(self, size: int) -> None:
        config = self.config
        latents = config.num_latent_per_group
        mult = 2 ** (config.num_preprocess_blocks + config.num_latent_scales - 1)
        self.dec_tower, self.enc_sampler, self.dec_sampler = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        shapes: list[tuple[int, ...]] = []
        for scale, count in enumerate(reversed(config.groups())):
            channels = mult * config.num_channels_dec
            for group in range(count):
                if shapes:
                    for _ in range(config.num_cell_per_cond_dec):
                        self.dec_tower.append(decoder_cell(channels, channels, TOWER_EXPANSION, False, config.use_se))
                    sampler = NormalisedConv(channels, 2 * latents, 1)
                    self.dec_sampler.append(nn.Sequential(nn.ELU(), sampler))
                self.enc_sampler.append(NormalisedConv(mult * config.num_channels_enc, 2 * latents, 3))
                self.dec_tower.append(DecoderCombiner(channels, latents))
                shapes.append((latents, size * 2**scale, size * 2**scale))
                del group
            if scale < config.num_latent_scales - 1:
                self.dec_tower.append(decoder_cell(channels, channels // 2, TOWER_EXPANSION, True, config.use_se))
                mult //= 2
        self._shapes = tuple(shapes)
        self.post_process = nn.ModuleList()
        channels = mult * config.num_channels_dec
        for _ in range(config.num_postprocess_blocks):
            for index in range(config.num_postprocess_cells):
                up = index == 0
                after = channels // 2 if up else channels
                self.post_process.append(decoder_cell(channels, after, IMAGE_EXPANSION, up, config.use_se))
                channels = after
        self.image_conditional = nn.Sequential(nn.ELU(), NormalisedConv(channels, config.outputs(), 3))

    @property
    def latent_shapes(self) -> LatentShapes:
        """The shape of each group, top to bottom."""
        return self._shapes

    # ---- top-down

    def top_down(self, batch: int, choose: Callable[[Step], Tensor]) -> Iterator[tuple[Step, Tensor]]:
        """Go through the groups from the top; `choose` picks each group's latents given its prior.

        Nothing after the last group's latents is computed. Yields each step with its latents.
        """
        state = self.prior_ftr0.expand(batch, -1, -1, -1)
        group = 0
        latents: Tensor | None = None
        for module in self.dec_tower:
            if not isinstance(module, DecoderCombiner):
                state = self._along(module, state)
                continue
            parameters = self._prior_parameters(group, state)
            step = Step(group, parameters, soft_clamped(*parameters), state)
            latents = choose(step)
            yield step, latents
            group += 1
            if group < len(self._shapes):
                state = self._along(module, state, latents)

    def _along(self, module: nn.Module, *inputs: Tensor) -> Tensor:
        """Call a module of the tower; if recomputing, keep only its inputs for the backward pass."""
        # Not in train mode, where batch norms would see the batch a second time.
        if self.recompute and not self.training and torch.is_grad_enabled():
            return cast(Tensor, checkpoint(module, *inputs, use_reentrant=False, preserve_rng_state=False))
        return module(*inputs)

    def _prior_parameters(self, group: int, state: Tensor) -> tuple[Tensor, Tensor]:
        if group == 0:
            zeros = self.prior_ftr0.new_zeros(len(state), *self._shapes[0])
            return zeros, zeros
        return self._halves(self._along(self.dec_sampler[group - 1], state))

    def _halves(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log sigma, in the weights' precision whatever precision the layers computed in."""
        mean, log_sigma = outputs.to(self.prior_ftr0.dtype).chunk(2, dim=1)
        return mean, log_sigma

    def prior_log_prob(self, z: Latents) -> Float[Tensor, " batch"]:
        """Return log p0(z), the sum over groups."""
        steps = self.top_down(len(z[0]), lambda step: z[step.group])
        return torch.stack([step.prior.log_prob(latents) for step, latents in steps]).sum(0)

    def push(self, noise: Latents, temperature: float = 1.0) -> Latents:
        """Return z = T(eps), top first; each sigma is multiplied by `temperature`."""
        return self.push_below((), noise, temperature)

    def push_below(self, given: Latents, noise: Latents, temperature: float = 1.0) -> Latents:
        """Return all layers: those given, from the top, and the lower ones from their whitened noise."""
        kept = len(given)

        def choose(step: Step) -> Tensor:
            if step.group < kept:
                return given[step.group]
            return step.prior.sample(noise[step.group - kept], temperature)

        return tuple(latents for _, latents in self.top_down(len((*given, *noise)[0]), choose))

    def decode(self, z: Latents) -> Likelihood:
        """Return p(x|z), over images in [-1, 1]."""
        return self.likelihood(self.decoder_parameters(z))

    def decoder_parameters(self, z: Latents) -> Float[Tensor, "batch outputs height width"]:
        """Return the parameters of the decoder's distribution."""
        *_, (step, latents) = self.top_down(len(z[0]), lambda step: z[step.group])
        return self._image_side(step.state, latents)

    def _image_side(self, state: Tensor, latents: Tensor) -> Tensor:
        """Return the decoder's parameters, from the state and the latents of the last group."""
        combiner = [module for module in self.dec_tower if isinstance(module, DecoderCombiner)][-1]
        state = combiner(state, latents)
        for cell in self.post_process:
            state = cell(state)
        return self.image_conditional(state).to(self.prior_ftr0.dtype)

    def likelihood(self, parameters: Float[Tensor, "batch outputs height width"]) -> Likelihood:
        """Return the decoder's distribution with these parameters."""
        if self.config.bernoulli:
            return Bernoulli(parameters)
        if self.config.num_mixture_dec == 1:
            mean, log_sigma = parameters.chunk(2, dim=1)
            return soft_clamped(mean, log_sigma)
        return DiscretisedLogisticMixture(parameters, self.config.num_mixture_dec, self.config.num_x_bits)

    # ---- bottom-up

    def quantised(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Quantise images in [-1, 1] to the network's 2^num_x_bits levels per colour, spread over [-1, 1].

        A level of 8 bits loses its last bits, as in the public code; images at these levels do not change.
        """
        bits = self.config.num_x_bits
        if bits == 8:
            return x
        kept = (((x + 1) * 127.5).round() / 2 ** (8 - bits)).floor()
        return kept * 2 / (2**bits - 1) - 1

    def bottom_up(self, x: Float[Tensor, "batch channels height width"]) -> tuple[Tensor, list[Tensor]]:
        """Return the features of the top group and the inputs of the other groups' combiners, top first."""
        state = self.stem(self.quantised(x))
        for cell in self.pre_process:
            state = cell(state)
        kept: list[Tensor] = []
        for module in self.enc_tower:
            if isinstance(module, EncoderCombiner):
                kept.append(state)
            else:
                state = module(state)
        return self.enc0(state), kept[::-1]

    def posterior_steps(
        self, x: Float[Tensor, "batch channels height width"], noise: Latents
    ) -> Iterator[tuple[Step, Normal, Tensor, Tensor]]:
        """Yield each group's prior, its q before the flows, the draw before them and the latents after them."""
        features, kept = self.bottom_up(x)
        combiners = [module for module in self.enc_tower if isinstance(module, EncoderCombiner)][::-1]
        seen: list[tuple[Normal, Tensor]] = []

        def choose(step: Step) -> Tensor:
            group = step.group
            given = features if group == 0 else combiners[group - 1](kept[group - 1], step.state)
            mean, log_sigma = self._halves(self.enc_sampler[group](given))
            if self.config.res_dist and group > 0:
                mean, log_sigma = mean + step.parameters[0], log_sigma + step.parameters[1]
            q = soft_clamped(mean, log_sigma)
            drawn = q.sample(noise[group])
            seen.append((q, drawn))
            flows = range(group * self.config.num_nf, (group + 1) * self.config.num_nf)
            latents = drawn
            for index in flows:
                latents = self.nf_cells[index](latents)
            return latents

        for step, latents in self.top_down(len(x), choose):
            yield step, *seen[-1], latents

    def posterior(self, x: Float[Tensor, "batch channels height width"], noise: Noise) -> PosteriorSample:
        """Draw from q(z|x); its log-density is that before the flows, whose Jacobians have determinant 1."""
        eps = noise(tuple(x.new_empty(len(x), *shape) for shape in self._shapes))
        steps = list(self.posterior_steps(x, eps))
        log_prob = torch.stack([q.log_prob(drawn) for _, q, drawn, _ in steps]).sum(0)
        return PosteriorSample(tuple(latents for *_, latents in steps), log_prob)

    def elbo_terms(self, x: Float[Tensor, "batch channels height width"], noise: Latents) -> ELBOTerms:
        """Return log p(x|z) and the KL of every group at one draw of q(z|x), in one pass."""
        kl, latents = [], []
        state = self.prior_ftr0
        for step, q, drawn, after in self.posterior_steps(x, noise):
            state = step.state
            latents.append(after)
            if self.config.num_nf:
                kl.append(q.log_prob(drawn) - step.prior.log_prob(after))
            else:
                kl.append(q.kl(step.prior))
        likelihood = self.likelihood(self._image_side(state, latents[-1]))
        return ELBOTerms(likelihood.log_prob(self.quantised(x)), torch.stack(kl), tuple(latents))
