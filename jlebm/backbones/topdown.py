"""A top-down hierarchy: a vector, then groups of small maps, each Gaussian given everything above it.

One residual path leads from a learned constant to the image. At each resolution, groups of latents read their prior
from the path and are added to it, as in NVAE (arXiv 2007.03898) and VDVAE (arXiv 2011.10650), so that p(z_i | z_{>i})
sees all layers above. The posterior follows the same path and adds an encoder's features of its resolution; its mean
and sigma are relative to the prior's (NVAE's residual posterior). Plain 3x3 convolutions without batch norm, so that a
chain's gradient depends on its own image alone, and trained weights need no frozen copy.

Such a hierarchy leaves its upper layers unused where nothing asks for them, and its prior then draws the finest maps
almost independently over space; free bits on the upper layers prevent that (docs/exploration, measured on CIFAR-10).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from jlebm.backbones.protocol import PosteriorSample, Redrawn
from jlebm.backbones.topdown_layers import Residual, act, blocks, conv, halving, same
from jlebm.distributions import Normal
from jlebm.errors import UserError
from jlebm.latents import Latents, LatentShapes
from jlebm.randomness import Noise

MEAN_BOUND, LOG_SIGMA_BOUND = 5.0, 3.0  # of p0; the posterior's log sigma relative to it is bounded by MEAN_BOUND


@dataclass(frozen=True)
class TopDownConfig:
    """Sizes of the hierarchy, level by level from the top; the defaults are those of the search on CIFAR-10."""

    image_shape: tuple[int, int, int] = (3, 32, 32)
    """Channels, height and width; height equals width."""
    sides: tuple[int, ...] = (1, 4, 8, 16)
    """Side of each level's maps: each divides the next, and the last is the image's or half of it."""
    widths: tuple[int, ...] = (128, 96, 64, 32)
    """Feature maps of the path at each level."""
    groups: tuple[int, ...] = field(default=(1, 2, 2, 0), metadata={"least": 0})
    """Groups of latents at each level; one at least at the top."""
    maps: tuple[int, ...] = field(default=(32, 8, 4, 0), metadata={"least": 0})
    """Latent maps of a group of each level; a vector's dimensions where the side is 1."""
    encoder_blocks: tuple[int, ...] = field(default=(0, 1, 1, 0), metadata={"least": 0})
    """Residual blocks of each level on the way up."""
    decoder_blocks: tuple[int, ...] = field(default=(0, 0, 0, 1), metadata={"least": 0})
    """Residual blocks of each level after its groups, which have one each."""
    last_width: int = 24
    """Feature maps at the image's resolution, if the last level is half of it."""
    likelihood_sigma: float = 0.2
    """Standard deviation of p(x|z), on images in [-1, 1]."""

    def __post_init__(self) -> None:
        """Refuse sizes that define no hierarchy."""
        levels = {len(self.sides), *map(len, (self.widths, self.groups, self.maps))}
        if levels | {len(self.encoder_blocks), len(self.decoder_blocks)} != {len(self.sides)} or not self.sides:
            raise UserError("sides, widths, groups, maps, encoder_blocks and decoder_blocks name as many levels each")
        _, height, width = self.image_shape
        if height != width or height not in (self.sides[-1], 2 * self.sides[-1]):
            raise UserError(f"the last of sides {self.sides} must be the side of {self.image_shape} or half of it")
        if any(below % above or below <= above for above, below in zip(self.sides, self.sides[1:], strict=False)):
            raise UserError(f"each of sides {self.sides} must be a multiple of the one before it")
        if self.groups[0] < 1 or any(count and not maps for count, maps in zip(self.groups, self.maps, strict=True)):
            raise UserError("the top level needs a group, and each group at least one latent map")
        if min(self.groups) < 0 or min(self.widths) < 1 or not self.likelihood_sigma > 0:
            raise UserError("groups must not be negative; widths and likelihood_sigma must be positive")

    @property
    def latent_shapes(self) -> LatentShapes:
        """The shape of each layer of latents, top first: one layer per group."""
        each = zip(self.sides, self.groups, self.maps, strict=True)
        return tuple((maps, side, side) for side, count, maps in each for _ in range(count))

    @property
    def path_shapes(self) -> LatentShapes:
        """The shape of the path after each layer, top first."""
        each = zip(self.sides, self.groups, self.widths, strict=True)
        return tuple((width, side, side) for side, count, width in each for _ in range(count))

    @property
    def last_latents(self) -> int:
        """The last level that has latents."""
        return max(level for level, count in enumerate(self.groups) if count)


class Group(nn.Module):
    """One layer of latents: its prior and posterior given the path, and its way back into the path."""

    def __init__(self, width: int, side: int, maps: int, scale: float, top: bool):
        super().__init__()
        self.maps = maps
        self.prior = None if top else same(width, 2 * maps, side, 0.1)
        self.mix = conv(2 * width, width, 1)
        self.inference = same(width, 2 * maps, side, 0.1)
        self.back = same(maps, width, side, 0.5)
        self.residual = Residual(width, side, scale)

    def p0(self, h: Tensor) -> Normal:
        """Return the prior of the group given the path; that of the top layer is N(0, I)."""
        if self.prior is None:
            zero = h.new_zeros(len(h), self.maps, *h.shape[2:])
            return Normal(zero, torch.ones_like(zero))
        mean, raw = self.prior(act(h)).chunk(2, 1)
        bounded = LOG_SIGMA_BOUND * torch.tanh(raw / LOG_SIGMA_BOUND)
        return Normal(MEAN_BOUND * torch.tanh(mean / MEAN_BOUND), bounded.exp())

    def q(self, h: Tensor, features: Tensor, prior: Normal) -> Normal:
        """Return the posterior of the group given the path and the features, relative to the prior."""
        mean, raw = self.inference(act(self.mix(torch.cat([act(h), act(features)], 1)))).chunk(2, 1)
        relative = MEAN_BOUND * torch.tanh((raw - 0.5) / MEAN_BOUND)
        return Normal(prior.mean + prior.sigma * mean, prior.sigma * relative.exp())

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        """Return the path below the latents."""
        return self.residual(h + self.back(z))


# Chooses a layer's latents from the group, the path above it, its prior and its level.
Choose = Callable[[Group, Tensor, Normal, int], Tensor]


class TopDownBackbone(nn.Module):
    """The hierarchy with its inference network; `Backbone` documents the methods."""

    recordable = True

    def __init__(self, config: TopDownConfig):
        super().__init__()
        self.config = config
        sides, widths = config.sides, config.widths
        scale = 0.5 / math.sqrt(sum(max(count, 1) for count in config.groups) + sum(config.decoder_blocks))
        self.top = nn.Parameter(torch.zeros(1, widths[0], sides[0], sides[0]))
        self.widen, self.groups, self.after = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.encoder, self.up = nn.ModuleList(), nn.ModuleList()
        for level, (side, width) in enumerate(zip(sides, widths, strict=True)):
            if level:
                from_point = sides[level - 1] == 1
                self.widen.append(conv(widths[level - 1], width * side**2 if from_point else width, 1))
                self.up.append(halving(width, widths[level - 1], side // sides[level - 1]))
            made = [
                Group(width, side, config.maps[level], scale, top=not level and not index)
                for index in range(config.groups[level])
            ]
            self.groups.append(nn.ModuleList(made))
            self.after.append(blocks(width, side, scale, config.decoder_blocks[level]))
            self.encoder.append(blocks(width, side, scale, config.encoder_blocks[level]))
        channels, half = config.image_shape[0], config.image_shape[1] == 2 * sides[-1]
        self.grow = nn.ConvTranspose2d(widths[-1], config.last_width, 4, 2, 1) if half else None
        self.image = conv(config.last_width if half else widths[-1], channels, 3, 0.5, padding=1)
        self.stem = halving(channels, widths[-1], 2) if half else conv(channels, widths[-1], 3, padding=1)

    @property
    def latent_shapes(self) -> LatentShapes:
        """The shape of each layer, top to bottom."""
        return self.config.latent_shapes

    def prior_log_prob(self, z: Latents) -> Float[Tensor, " batch"]:
        """Return log p0(z), the sum over all layers of log p(z_i | z_{>i})."""
        given, terms = iter(z), []

        def choose(group: Group, h: Tensor, prior: Normal, level: int) -> Tensor:
            own = next(given)
            terms.append(prior.log_prob(own))
            return own

        self._latents(choose, len(z[0]))
        return torch.stack(terms).sum(0)

    def push(self, noise: Latents, temperature: float = 1.0) -> Latents:
        """Return z = T(eps), top first; each sigma is multiplied by `temperature`."""
        return self.push_below((), noise, temperature)

    def push_below(self, given: Latents, noise: Latents, temperature: float = 1.0) -> Latents:
        """Return all layers: those given, from the top, and the lower ones from their whitened noise."""
        return self._latents(_below(given, noise, temperature), len((*given, *noise)[0]))

    @property
    def path_shapes(self) -> LatentShapes:
        """The shape of the path after each layer, top to bottom."""
        return self.config.path_shapes

    def path(self, z: Latents) -> Latents:
        """Return the path after each layer, top first."""
        return self.push_path(z, ())[1]

    def push_path(self, given: Latents, noise: Latents) -> tuple[Latents, Latents]:
        """Return all layers as `push_below` does, and the path after each."""
        path: list[Tensor] = []
        _, z = self._down(_below(given, noise), len((*given, *noise)[0]), whole=False, path=path)
        return z, tuple(path)

    def redrawn(self, z: Latents, noise: Latents) -> Redrawn:
        """Return each layer drawn anew from p0 given the layers of z above it, and the path with and without it."""
        own, eps = iter(z), iter(noise)
        path: list[Tensor] = []
        latents: list[Tensor] = []
        below: list[Tensor] = []

        def choose(group: Group, h: Tensor, prior: Normal, level: int) -> Tensor:
            latents.append(prior.sample(next(eps)))
            below.append(group(h, latents[-1]))
            return next(own)

        self._down(choose, len(z[0]), whole=False, path=path)
        return Redrawn(tuple(path), tuple(latents), tuple(below))

    def decode(self, z: Latents) -> Normal:
        """Return p(x|z) with images in [-1, 1]."""
        given = iter(z)
        h, _ = self._down(lambda group, h, prior, level: next(given), len(z[0]), whole=True)
        return self._likelihood(h)

    def posterior(self, x: Float[Tensor, "batch channels height width"], noise: Noise) -> PosteriorSample:
        """Draw each layer from q(z_i | z_{>i}, x), top first."""
        return self._inferred(x, noise, whole=False)[1]

    def inferred(self, x: Float[Tensor, "batch channels height width"], noise: Noise) -> tuple[PosteriorSample, Normal]:
        """Return what `posterior` draws and its `decode`, from one pass down the path."""
        h, sample = self._inferred(x, noise, whole=True)
        return sample, self._likelihood(h)

    def _inferred(self, x: Tensor, noise: Noise, whole: bool) -> tuple[Tensor, PosteriorSample]:
        eps = iter(noise(tuple(x.new_empty(len(x), *shape) for shape in self.latent_shapes)))
        features, log_probs, kl = self._features(x), [], []

        def choose(group: Group, h: Tensor, prior: Normal, level: int) -> Tensor:
            q = group.q(h, features[level], prior)
            own = q.sample(next(eps))
            log_probs.append(q.log_prob(own))
            kl.append(q.kl(prior))
            return own

        h, z = self._down(choose, len(x), whole)
        return h, PosteriorSample(z, torch.stack(log_probs).sum(0), torch.stack(kl))

    def _likelihood(self, h: Tensor) -> Normal:
        """Return p(x|z) at the end of the path."""
        if self.grow is not None:
            h = self.grow(act(h))
        return Normal.constant_sigma(torch.tanh(self.image(act(h))), self.config.likelihood_sigma)

    def _features(self, x: Tensor) -> list[Tensor]:
        """Return the encoder's features of each level, top first."""
        h, found = self.stem(x), []
        for level in reversed(range(len(self.config.sides))):
            h = self.encoder[level](h)
            found.insert(0, h)
            if level:
                h = self.up[level - 1](act(h))
        return found

    def _latents(self, choose: Choose, batch: int) -> Latents:
        """Return all layers; the path below the last one is not computed."""
        _, z = self._down(choose, batch, whole=False)
        return z

    def _down(
        self, choose: Choose, batch: int, whole: bool, path: list[Tensor] | None = None
    ) -> tuple[Tensor, Latents]:
        """Follow the path from the top: to its end if `whole`, else to the last latents; keep it in `path`, if any."""
        config, h, z = self.config, self.top.expand(batch, -1, -1, -1), []
        for level in range(len(config.sides)):
            if level > config.last_latents and not whole:
                break
            if level:
                h = self._wider(h, level)
            for index, group in enumerate(_groups(self.groups[level])):
                own = choose(group, h, group.p0(h), level)
                z.append(own)
                last = level == config.last_latents and index == config.groups[level] - 1
                if whole or not last or path is not None:
                    h = group(h, own)
                if path is not None:
                    path.append(h)
            if whole or level < config.last_latents:
                h = self.after[level](h)
        return h, tuple(z)

    def _wider(self, h: Tensor, level: int) -> Tensor:
        """Return the path at a level's resolution from the one above it."""
        side, above = self.config.sides[level], self.config.sides[level - 1]
        h = self.widen[level - 1](act(h))
        if above == 1:
            return h.reshape(len(h), -1, side, side)
        return F.interpolate(h, scale_factor=float(side // above), mode="nearest")


def _below(given: Latents, noise: Latents, temperature: float = 1.0) -> Choose:
    """Choose the given layers from the top, and the lower ones by their whitened noise."""
    upper, lower = iter(given), iter(noise)

    def choose(group: Group, h: Tensor, prior: Normal, level: int) -> Tensor:
        own = next(upper, None)
        return prior.sample(next(lower), temperature) if own is None else own

    return choose


def _groups(groups: nn.Module) -> Iterator[Group]:
    assert isinstance(groups, nn.ModuleList)
    for group in groups:
        assert isinstance(group, Group)
        yield group
