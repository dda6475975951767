"""Invertible network of GLOW (Kingma and Dhariwal, arXiv 1807.03039): a bijection from images to N(0, I) noise.

Each level is a squeeze, several steps and a split; a step is an affine map per channel, an invertible 1x1 convolution
and an affine coupling. What a level splits off is whitened by a Gaussian conditioned on the rest, so that the whole is
one bijection from x to eps with one log-determinant. The couplings' log scales pass a soft clamp instead of the paper's
sigmoids: no scale comes near zero, and the inverse stays exact.
"""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from jlebm.latents import Latents, LatentShapes, standard_normal_log_prob

CLAMP = 2.0  # log scales are CLAMP tanh(. / CLAMP)


class ActNorm(nn.Module):
    """Affine map per channel, (x + shift) exp(log_scale), initialised to outputs of mean 0 and variance 1."""

    def __init__(self, channels: int):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(channels, 1, 1))

    def initialise(self, x: Tensor) -> None:
        """Initialise shift and scale from the moments of the inputs."""
        self.shift.copy_(-x.mean((0, 2, 3)).reshape_as(self.shift))
        self.log_scale.copy_(-x.std((0, 2, 3), correction=0).clamp(min=1e-6).log().reshape_as(self.log_scale))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the transformed images and the log|det| of each."""
        positions = x.shape[2] * x.shape[3]
        return (x + self.shift) * self.log_scale.exp(), positions * self.log_scale.sum().expand(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        """Return the inverse of `forward` at y."""
        return y * (-self.log_scale).exp() - self.shift


class InvertibleConv(nn.Module):
    """1x1 convolution by P L (U + diag(s)), initialised as a random rotation; log|det| is the sum of log|s|."""

    def __init__(self, channels: int):
        super().__init__()
        rotation, _ = torch.linalg.qr(torch.randn(channels, channels))
        permutation, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", diagonal.sign())
        self.lower, self.upper = nn.Parameter(lower), nn.Parameter(upper)
        self.log_s = nn.Parameter(diagonal.abs().log())

    def weight(self) -> Float[Tensor, "channels channels"]:
        """Return the convolution's matrix."""
        lower = self.lower.tril(-1) + torch.eye(len(self.lower), dtype=self.lower.dtype, device=self.lower.device)
        upper = self.upper.triu(1) + torch.diag(self.get_buffer("sign") * self.log_s.exp())
        return self.get_buffer("permutation") @ lower @ upper

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the transformed images and the log|det| of each."""
        positions = x.shape[2] * x.shape[3]
        return torch.einsum("oc,bchw->bohw", self.weight(), x), positions * self.log_s.sum().expand(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        """Return the inverse of `forward` at y."""
        inverse = torch.linalg.inv(self.weight().double()).to(y)
        return torch.einsum("co,bohw->bchw", inverse, y)


class Affine(nn.Module):
    """Affine coupling, (x + shift) exp(log scale), with both from a network; initialised as the identity."""

    def __init__(self, given: int, channels: int, hidden: int | None):
        super().__init__()
        before: list[nn.Module] = []
        if hidden is not None:
            before = [nn.Conv2d(given, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, hidden, 1), nn.ReLU()]
        last = nn.Conv2d(given if hidden is None else hidden, 2 * channels, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # pyright: ignore[reportArgumentType]
        self.network = nn.Sequential(*before, last)

    def _parameters_of(self, given: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = self.network(given).chunk(2, dim=1)
        return shift, CLAMP * torch.tanh(log_scale / CLAMP)

    def forward(self, x: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        """Return the transformed images and the log|det| of each."""
        shift, log_scale = self._parameters_of(given)
        return (x + shift) * log_scale.exp(), log_scale.flatten(1).sum(1)

    def inverse(self, y: Tensor, given: Tensor) -> Tensor:
        """Return the inverse of `forward` at y."""
        shift, log_scale = self._parameters_of(given)
        return y * (-log_scale).exp() - shift


class FlowStep(nn.Module):
    """One step of the flow; the number of channels is even."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.norm, self.mix = ActNorm(channels), InvertibleConv(channels)
        self.coupling = Affine(channels // 2, channels // 2, hidden)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the transformed images and the log|det| of each."""
        x, of_norm = self.norm(x)
        x, of_mix = self.mix(x)
        kept, moved = x.chunk(2, dim=1)
        moved, of_coupling = self.coupling(moved, kept)
        return torch.cat([kept, moved], dim=1), of_norm + of_mix + of_coupling

    def inverse(self, y: Tensor) -> Tensor:
        """Return the inverse of `forward` at y."""
        kept, moved = y.chunk(2, dim=1)
        return self.norm.inverse(self.mix.inverse(torch.cat([kept, self.coupling.inverse(moved, kept)], dim=1)))


class Flow(nn.Module):
    """All levels, x to eps, the finest level first; height and width are multiples of 2^levels."""

    def __init__(self, image_shape: tuple[int, int, int], levels: int, steps: int, hidden: int):
        super().__init__()
        channels, height, width = image_shape
        self.steps, self.splits, shapes = nn.ModuleList(), nn.ModuleList(), []
        for level in range(levels):
            channels, height, width = 4 * channels, height // 2, width // 2
            self.steps.append(nn.ModuleList(FlowStep(channels, hidden) for _ in range(steps)))
            if level < levels - 1:
                channels //= 2
                self.splits.append(Affine(channels, channels, None))
            shapes.append((channels, height, width))
        self.shapes: LatentShapes = tuple(shapes)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> tuple[Latents, Float[Tensor, " batch"]]:
        """Return eps and log|d eps / d x|."""
        total, eps = x.new_zeros(len(x)), []
        for level, steps in enumerate(cast(list[list[FlowStep]], self.steps)):
            x = pixel_unshuffle(x, 2)
            for step in steps:
                x, log_det = step(x)
                total = total + log_det
            if level < len(self.splits):
                x, left = x.chunk(2, dim=1)
                left, log_det = self.splits[level](left, x)
                total = total + log_det
                eps.append(left)
        return (*eps, x), total

    def inverse(self, eps: Latents) -> Float[Tensor, "batch channels height width"]:
        """Return x."""
        x = eps[-1]
        levels, splits = cast(list[list[FlowStep]], self.steps), cast(list[Affine], self.splits)
        for level in reversed(range(len(levels))):
            if level < len(splits):
                x = torch.cat([x, splits[level].inverse(eps[level], x)], dim=1)
            for step in reversed(levels[level]):
                x = step.inverse(x)
            x = pixel_shuffle(x, 2)
        return x

    def log_prob(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
        """Return the log-density of N(0, I) pulled back."""
        eps, log_det = self(x)
        return standard_normal_log_prob(eps) + log_det

    @torch.no_grad()
    def initialise(self, x: Float[Tensor, "batch channels height width"]) -> None:
        """Initialise every `ActNorm` from its inputs at these images."""

        def begin(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            cast(ActNorm, norm).initialise(inputs[0])

        norms = [module for module in self.modules() if isinstance(module, ActNorm)]
        handles = [norm.register_forward_pre_hook(begin) for norm in norms]
        self(x)
        for handle in handles:
            handle.remove()
