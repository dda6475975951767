"""A small top-down hierarchy for 32x32 images: latents at 1x1, 4x4, 8x8 (and finer), one residual path.

p0: z_L ~ N(0, I) as a vector, then groups of maps from coarse to fine, each Gaussian given everything above it.
q: the same path, each group seeing the encoder's features of its resolution (residual mean, as in NVAE).
p(x|z): a Gaussian with one sigma for each Haar band of the residual, so that fine detail can be given its own weight;
with equal sigmas it is the isotropic Gaussian.

It keeps to `jlebm.backbones.base.Backbone`: latent_shapes, push, prior_log_prob, decode, posterior.
"""
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jlebm.backbones.base import PosteriorSample
from jlebm.distributions import Normal
from jlebm.latents import Latents

SLOPE = 0.2
LAST = torch.channels_last


@dataclass(frozen=True)
class TopDownConfig:
    levels: tuple[tuple[int, int, int, int], ...] = ((1, 128, 1, 32), (4, 96, 2, 8), (8, 64, 2, 4), (16, 32, 0, 0))
    """Side, width, groups and latent maps a group, coarse to fine. Levels without groups only decode."""
    encoder_blocks: tuple[int, ...] = (0, 1, 1, 0)
    """Residual blocks of each level on the way up."""
    decoder_blocks: tuple[int, ...] = (0, 0, 0, 1)
    """Residual blocks of each level after its groups (each group has one of its own)."""
    out_width: int = 24
    """Maps at 32x32 before the pixels."""
    sigma: tuple[float, ...] = (0.2,)
    """Of p(x|z) on [-1, 1]: one for all, or for Haar bands from fine to coarse, the last for what remains."""
    first_log_sigma: float = 0.0


def conv(i, o, k=3, scale=1.0, **kw):
    layer = nn.Conv2d(i, o, k, padding=kw.pop("padding", k // 2), **kw)
    fan = i * k * k
    nn.init.normal_(layer.weight, std=scale * math.sqrt(2 / (1 + SLOPE**2) / fan))
    nn.init.zeros_(layer.bias)
    return layer


def act(x):
    return F.leaky_relu(x, SLOPE)


class Res(nn.Module):
    def __init__(self, width, side, scale):
        super().__init__()
        k = 1 if side == 1 else 3
        self.a, self.b = conv(width, width, k), conv(width, width, k, scale=scale)

    def forward(self, x):
        return x + self.b(act(self.a(act(x))))


class Group(nn.Module):
    """One group of latents: its prior and posterior from the path, and its way back into it."""

    def __init__(self, side, width, maps, first, scale):
        super().__init__()
        k = 1 if side == 1 else 3
        self.maps, self.first = maps, first
        self.prior = None if first else conv(width, 2 * maps, k, scale=0.1)
        self.mix = conv(2 * width, width, 1)
        self.q = conv(width, 2 * maps, k, scale=0.1)
        self.back = conv(maps, width, k, scale=0.5)
        self.res = Res(width, side, scale)

    def p(self, h):
        if self.first:
            zero = h.new_zeros(len(h), self.maps, *h.shape[2:])
            return Normal(zero, zero + 1)
        mean, raw = self.prior(act(h)).chunk(2, 1)
        return Normal(5 * torch.tanh(mean / 5), torch.exp(3 * torch.tanh(raw / 3)))

    def posterior(self, h, e, p):
        mean, raw = self.q(act(self.mix(torch.cat([act(h), act(e)], 1)))).chunk(2, 1)
        return Normal(p.mean + p.sigma * mean, p.sigma * torch.exp(5 * torch.tanh((raw - 0.5) / 5)))

    def down(self, h, z):
        return self.res(h + self.back(z))


class TopDown(nn.Module):
    def __init__(self, config: TopDownConfig):
        super().__init__()
        self.config = config
        levels = config.levels
        depth = sum(max(level[2], 1) for level in levels) + sum(config.decoder_blocks)
        scale = 0.5 / math.sqrt(depth)
        self.top = nn.Parameter(torch.zeros(1, levels[0][1], levels[0][0], levels[0][0]))
        self.groups, self.to_level, self.after = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        shapes = []
        for index, (side, width, groups, maps) in enumerate(levels):
            before = levels[index - 1] if index else None
            if before is None:
                self.to_level.append(nn.Identity())
            elif before[0] == 1:
                self.to_level.append(conv(before[1], width * side * side, 1))
            else:
                self.to_level.append(conv(before[1], width, 1))
            made = [Group(side, width, maps, not shapes and not n, scale) for n in range(groups)]
            shapes += [(maps, side, side)] * groups
            self.groups.append(nn.ModuleList(made))
            self.after.append(nn.Sequential(*[Res(width, side, scale) for _ in range(config.decoder_blocks[index])]))
        self.shapes = tuple(shapes)
        last_side, last_width = levels[-1][:2]
        self.out = nn.ModuleList()
        if last_side == 16:
            self.out.append(nn.ConvTranspose2d(last_width, config.out_width, 4, 2, 1))
            last_width = config.out_width
        self.pixels = conv(last_width, 3, 3, scale=0.5)
        # up
        sides = [level[0] for level in levels]
        self.stem = conv(3, levels[-1][1], 4, stride=2, padding=1) if last_side == 16 else conv(3, levels[-1][1], 3)
        self.up, self.enc = nn.ModuleList(), nn.ModuleList()
        for index in reversed(range(len(levels))):
            side, width = levels[index][:2]
            self.enc.append(nn.Sequential(*[Res(width, side, scale) for _ in range(config.encoder_blocks[index])]))
            if index:
                factor = side // sides[index - 1]
                above = levels[index - 1][1]
                self.up.append(
                    conv(width, above, 4, stride=2, padding=1) if factor == 2 else conv(width, above, factor, stride=factor, padding=0)
                )

    # ---- the protocol
    @property
    def latent_shapes(self):
        return self.shapes

    def push(self, noise: Latents, temperature: float = 1.0) -> Latents:
        rest = iter(noise)
        z, _ = self._down(lambda group, h, p, level: p.mean + temperature * p.sigma * next(rest), len(noise[0]), image=False)
        return tuple(z)

    def push_and_decode(self, noise: Latents) -> tuple[Latents, Tensor]:
        rest = iter(noise)
        z, h = self._down(lambda group, h, p, level: p.mean + p.sigma * next(rest), len(noise[0]))
        return tuple(z), self._image(h)

    def features(self, noise: Latents) -> Tensor:
        """What the decoder makes of all latents at their finest resolution: a summary of z as a whole."""
        rest = iter(noise)
        last = max(i for i, level in enumerate(self.config.levels) if level[2])
        _, h = self._down(lambda group, h, p, level: p.mean + p.sigma * next(rest), len(noise[0]), stop=last)
        return h

    def prior_log_prob(self, z: Latents) -> Tensor:
        rest, terms = iter(z), []

        def take(group, h, p, level):
            own = next(rest)
            terms.append(p.log_prob(own))
            return own

        self._down(take, len(z[0]), image=False)
        return torch.stack(terms).sum(0)

    def whiten(self, z: Latents) -> Latents:
        """T^-1: the noise that these latents come from."""
        rest, out = iter(z), []

        def take(group, h, p, level):
            own = next(rest)
            out.append((own - p.mean) / p.sigma)
            return own

        self._down(take, len(z[0]), image=False)
        return tuple(out)

    def decode(self, z: Latents) -> Normal:
        rest = iter(z)
        _, h = self._down(lambda group, h, p, level: next(rest), len(z[0]))
        mean = self._image(h)
        return Normal.constant_sigma(mean, self.config.sigma[0])

    def posterior(self, x: Tensor, noise) -> PosteriorSample:
        eps = noise(tuple(x.new_empty(len(x), *shape) for shape in self.shapes))
        z, kl, log_prob, _, _ = self._infer(x, eps)
        return PosteriorSample(tuple(z), torch.stack(log_prob).sum(0), torch.stack(kl))

    def elbo_terms(self, x: Tensor, eps: Latents):
        """Return -log p(x|z) (batch) and the KL (layers, batch)."""
        z, kl, _, h, _ = self._infer(x, eps)
        return self.distortion(x, self._image(h)), torch.stack(kl), z

    def posterior_noise(self, x: Tensor, eps: Latents) -> tuple[Latents, Latents]:
        """Return z ~ q(z|x) and its whitened noise T^-1(z), in one pass."""
        z, _, _, _, white = self._infer(x, eps)
        return tuple(z), tuple(white)

    # ---- inside
    def _infer(self, x, eps):
        features = self._features(x)
        rest, kl, log_prob, white = iter(eps), [], [], []

        def draw(group, h, p, level):
            q = group.posterior(h, features[level], p)
            z = q.sample(next(rest))
            kl.append(q.kl(p))
            log_prob.append(q.log_prob(z))
            white.append((z - p.mean) / p.sigma)
            return z

        z, h = self._down(draw, len(x))
        return z, kl, log_prob, h, white

    def _features(self, x):
        h, out = self.stem(x.contiguous(memory_format=LAST)), []
        for n, block in enumerate(self.enc):
            if n:
                h = self.up[n - 1](act(h))
            h = block(h)
            out.insert(0, h)
        return out

    def _down(self, choose, batch, image=True, stop=None):
        h, z = self.top.expand(batch, -1, -1, -1), []
        last = max(i for i, level in enumerate(self.config.levels) if level[2])
        for level, (side, width, groups, _) in enumerate(self.config.levels):
            if level > last and (stop is not None or not image):
                break
            if level:
                before = self.config.levels[level - 1][0]
                h = self.to_level[level](act(h))
                if before == 1:
                    h = h.reshape(batch, width, side, side).contiguous(memory_format=LAST)
                else:
                    h = F.interpolate(h, scale_factor=side // before, mode="nearest")
            for number, group in enumerate(self.groups[level]):
                own = choose(group, h, group.p(h), level)
                z.append(own)
                if image or level < last or number < groups - 1:
                    h = group.down(h, own)
            if image or level < last:
                h = self.after[level](h)
        return z, h

    def _image(self, h):
        for layer in self.out:
            h = layer(act(h))
        return torch.tanh(self.pixels(act(h)))

    def distortion(self, x, mean):
        """-log p(x|z) without constants: squared residuals by Haar band over 2 sigma^2."""
        rest, total = x - mean, 0.0
        *fine, coarse = self.config.sigma
        for sigma in fine:
            a, b, c, d = rest[..., ::2, ::2], rest[..., ::2, 1::2], rest[..., 1::2, ::2], rest[..., 1::2, 1::2]
            bands = ((a - b + c - d), (a + b - c - d), (a - b - c + d))
            total = total + sum(band.square().flatten(1).sum(1) for band in bands) / 4 / (2 * sigma**2)
            rest = (a + b + c + d) / 2
        return total + rest.square().flatten(1).sum(1) / (2 * coarse**2)
