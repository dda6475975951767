"""NVAE: a deep hierarchy p(x|z) p(z_L) prod p(z_i|z_{>i}) with a bottom-up encoder (arXiv 2007.03898; facts, nvae.md).

The layers of latents are its groups, top first. Every Gaussian's mu and log sigma pass a soft clamp, and its sigma has
a floor of 0.01, the top's as well: its N(0, I) has a sigma of 1.01, which is what the published checkpoints were
trained with. Normalising flows, where there are any, are a part of q(z|x) alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jlebm.backbones.base import PosteriorSample
from jlebm.backbones.nvae.layers import (
    DecoderCombiner,
    EncoderCombiner,
    FlowPair,
    NormalisedConv,
    decoder_cell,
    encoder_cell,
)
from jlebm.distributions import Bernoulli, DiscretisedLogisticMixture, Likelihood, Normal, soft_clamped
from jlebm.errors import UserError
from jlebm.latents import Latents, LatentShapes
from jlebm.randomness import Noise

TOWER_EXPANSION, IMAGE_EXPANSION = 6, 3  # of the inverted residuals in the decoder tower and after it


@dataclass(frozen=True)
class NVAEConfig:
    """Sizes of the hierarchy, by the names of the published `args`."""

    image_size: int
    num_channels_enc: int
    num_channels_dec: int
    num_latent_scales: int
    num_groups_per_scale: int
    num_latent_per_group: int
    num_preprocess_blocks: int = 2
    num_preprocess_cells: int = 2
    num_postprocess_blocks: int = 2
    num_postprocess_cells: int = 2
    num_cell_per_cond_enc: int = 1
    num_cell_per_cond_dec: int = 1
    num_nf: int = 0
    num_mixture_dec: int = 10
    num_x_bits: int = 8
    ada_groups: bool = False
    min_groups_per_scale: int = 1
    res_dist: bool = True
    use_se: bool = True
    image_channels: int = 3

    def __post_init__(self) -> None:
        """Refuse sizes that make no hierarchy."""
        halvings = 2 ** (self.num_preprocess_blocks + self.num_latent_scales - 1)
        if self.image_size % halvings:
            raise UserError(f"images of {self.image_size} pixels cannot be halved {halvings.bit_length() - 1} times")
        if min(self.num_latent_scales, self.num_groups_per_scale, self.num_latent_per_group) < 1:
            raise UserError("an NVAE needs at least one scale, one group a scale and one channel a group")

    def groups(self) -> tuple[int, ...]:
        """Return the number of groups of each scale, from the largest resolution down."""
        counts = [self.num_groups_per_scale] * self.num_latent_scales
        if self.ada_groups:
            counts = [max(count // 2**scale, self.min_groups_per_scale) for scale, count in enumerate(counts)]
        return tuple(counts)

    @property
    def bernoulli(self) -> bool:
        """Whether pixels are binary: images of one channel."""
        return self.image_channels == 1

    def outputs(self) -> int:
        """Return how many numbers the decoder gives for each pixel position."""
        if self.bernoulli:
            return 1
        return 6 if self.num_mixture_dec == 1 else 10 * self.num_mixture_dec


class Step(NamedTuple):
    """What the top-down pass knows before it is given the latents of a group."""

    group: int
    prior: Normal
    state: Tensor


class NVAE(nn.Module):
    """See the module; the methods are those of `Backbone`."""

    def __init__(self, config: NVAEConfig):
        super().__init__()
        self.config = config
        width, latents = config.num_channels_enc, config.num_latent_per_group
        top = 2 ** (config.num_preprocess_blocks + config.num_latent_scales - 1)
        size = config.image_size // top
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
        """Go through the groups from the top, the latents of each chosen when its prior is known.

        What comes after the last group's latents is not computed. Yields each step with its latents.
        """
        state = self.prior_ftr0.expand(batch, -1, -1, -1)
        group = 0
        latents: Tensor | None = None
        for module in self.dec_tower:
            if not isinstance(module, DecoderCombiner):
                state = module(state)
                continue
            step = Step(group, self._prior(group, state), state)
            latents = choose(step)
            yield step, latents
            group += 1
            if group < len(self._shapes):
                state = module(state, latents)

    def _prior(self, group: int, state: Tensor) -> Normal:
        if group == 0:
            zeros = state.new_zeros(len(state), *self._shapes[0])
            return soft_clamped(zeros, zeros)
        mean, log_sigma = self.dec_sampler[group - 1](state).chunk(2, dim=1)
        return soft_clamped(mean, log_sigma)

    def prior_log_prob(self, z: Latents) -> Float[Tensor, " batch"]:
        """Return log p0(z), the sum over groups."""
        steps = self.top_down(len(z[0]), lambda step: z[step.group])
        return torch.stack([step.prior.log_prob(latents) for step, latents in steps]).sum(0)

    def push(self, noise: Latents, temperature: float = 1.0) -> Latents:
        """Return z = T(eps), top first; each sigma is multiplied by `temperature`."""
        steps = self.top_down(len(noise[0]), lambda step: step.prior.sample(noise[step.group], temperature))
        return tuple(latents for _, latents in steps)

    def decode(self, z: Latents) -> Likelihood:
        """Return p(x|z) of images in [-1, 1]."""
        return self.likelihood(self.decoder_parameters(z))

    def decoder_parameters(self, z: Latents) -> Float[Tensor, "batch outputs height width"]:
        """Return the numbers that the decoder's distribution is made of."""
        *_, (step, latents) = self.top_down(len(z[0]), lambda step: z[step.group])
        combiner = [module for module in self.dec_tower if isinstance(module, DecoderCombiner)][-1]
        state = combiner(step.state, latents)
        for cell in self.post_process:
            state = cell(state)
        return self.image_conditional(state)

    def likelihood(self, parameters: Float[Tensor, "batch outputs height width"]) -> Likelihood:
        """Return the decoder's distribution of these parameters."""
        if self.config.bernoulli:
            return Bernoulli(parameters)
        if self.config.num_mixture_dec == 1:
            mean, log_sigma = parameters.chunk(2, dim=1)
            return soft_clamped(mean, log_sigma)
        return DiscretisedLogisticMixture(parameters, self.config.num_mixture_dec, self.config.num_x_bits)

    # ---- bottom-up

    def bottom_up(self, x: Float[Tensor, "batch channels height width"]) -> tuple[Tensor, list[Tensor]]:
        """Return the features of the top group and the states that the others' combiners are given, top first."""
        state = self.stem(x)
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
        """Yield for each group its prior, q before the flows, its draw before them and the latents after them."""
        features, kept = self.bottom_up(x)
        combiners = [module for module in self.enc_tower if isinstance(module, EncoderCombiner)][::-1]
        seen: list[tuple[Normal, Tensor]] = []

        def choose(step: Step) -> Tensor:
            group = step.group
            given = features if group == 0 else combiners[group - 1](kept[group - 1], step.state)
            mean, log_sigma = self.enc_sampler[group](given).chunk(2, dim=1)
            if self.config.res_dist and group > 0:
                prior_mean, prior_log_sigma = self.dec_sampler[group - 1](step.state).chunk(2, dim=1)
                mean, log_sigma = mean + prior_mean, log_sigma + prior_log_sigma
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

    def kl(
        self, x: Float[Tensor, "batch channels height width"], noise: Latents
    ) -> tuple[Float[Tensor, "groups batch"], Latents]:
        """Return KL(q|p) of every group, top first, and the latents it is at.

        The closed form; with flows log q - log p at the draw.
        """
        values, latents = [], []
        for step, q, drawn, after in self.posterior_steps(x, noise):
            latents.append(after)
            if self.config.num_nf:
                values.append(q.log_prob(drawn) - step.prior.log_prob(after))
            else:
                values.append(q.kl(step.prior))
        return torch.stack(values), tuple(latents)
