"""The classifiers of the fitted two-sample test: each looks at latents in its own way and gives a logit."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

SMALLEST = 4  # side to which maps shrink before they are flattened
Shapes = Sequence[tuple[int, ...]]


class Marginals(nn.Module):
    """A logit that adds up over latents: linear in each and in its square."""

    def __init__(self, shapes: Shapes):
        super().__init__()
        self.out = nn.Linear(2 * _size(shapes), 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Float[Tensor, "batch latents"]) -> Float[Tensor, " batch"]:
        """Return the logits of standardised latents."""
        return self.out(torch.cat([x, _square(x)], 1)).squeeze(1)


class Perceptron(nn.Module):
    """Products of two linear maps of all latents, which see every correlation, and a perceptron on both."""

    def __init__(self, shapes: Shapes, hidden: int = 128):
        super().__init__()
        size = _size(shapes)
        self.first, self.second, self.silu = (nn.Linear(size, hidden) for _ in range(3))
        self.head = _head(2 * hidden, hidden)

    def forward(self, x: Float[Tensor, "batch latents"]) -> Float[Tensor, " batch"]:
        """Return the logits of standardised latents."""
        return self.head(torch.cat([self.first(x) * self.second(x), F.silu(self.silu(x))], 1)).squeeze(1)


class Everywhere(nn.Module):
    """Means over all places of what convolutions find: a correlation that is the same everywhere adds up.

    The first layer multiplies two convolutions, so that products of neighbouring latents, and of two layers at one
    place, are there from the start.
    """

    def __init__(self, shapes: Shapes, width: int = 32, hidden: int = 64):
        super().__init__()
        self.joined = Joined(shapes)
        channels = sum(shape[0] for shape in shapes)
        self.first, self.second = (nn.Conv2d(channels, width, 3, padding=1) for _ in range(2))
        self.deeper = nn.Conv2d(width, width, 3, padding=1)
        self.head = _head(2 * width, hidden)

    def forward(self, x: Float[Tensor, "batch latents"]) -> Float[Tensor, " batch"]:
        """Return the logits of standardised latents."""
        maps = self.joined(x)
        products = self.first(maps) * self.second(maps)
        found = F.silu(self.deeper(products))
        return self.head(torch.cat([products.mean((2, 3)), found.mean((2, 3))], 1)).squeeze(1)


class Placed(nn.Module):
    """Convolutions down to maps of 4 x 4, whose places the head tells apart."""

    def __init__(self, shapes: Shapes, width: int = 32, hidden: int = 128):
        super().__init__()
        self.joined = Joined(shapes)
        layers: list[nn.Module] = [nn.Conv2d(sum(shape[0] for shape in shapes), width, 3, padding=1), nn.SiLU()]
        height, wide = self.joined.sides
        while max(height, wide) > SMALLEST:
            layers += [nn.Conv2d(width, width, 3, stride=2, padding=1), nn.SiLU()]
            height, wide = (height + 1) // 2, (wide + 1) // 2
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.head = _head(width * height * wide, hidden)

    def forward(self, x: Float[Tensor, "batch latents"]) -> Float[Tensor, " batch"]:
        """Return the logits of standardised latents."""
        return self.head(self.layers(self.joined(x))).squeeze(1)


class Joined(nn.Module):
    """All layers as channels of maps with the finest layer's sides; coarser maps and vectors are repeated."""

    def __init__(self, shapes: Shapes):
        super().__init__()
        self.shapes = [(shape[0], *(shape[1:] or (1, 1))) for shape in shapes]
        self.sides = max(shape[1:] for shape in self.shapes)

    def forward(self, x: Float[Tensor, "batch latents"]) -> Float[Tensor, "batch channels height width"]:
        """Return the maps of latents that lie side by side."""
        layers = x.split([math.prod(shape) for shape in self.shapes], 1)
        maps = [layer.unflatten(1, shape) for layer, shape in zip(layers, self.shapes, strict=True)]
        repeated = [each if each.shape[2:] == self.sides else F.interpolate(each, self.sides) for each in maps]
        return torch.cat(repeated, 1)


def classifiers(shapes: Shapes) -> list[nn.Module]:
    """Return the classifiers for layers of these shapes: convolutional if one of them is maps."""
    if any(math.prod(shape[1:]) > 1 for shape in shapes):
        return [Marginals(shapes), Everywhere(shapes), Placed(shapes)]
    return [Marginals(shapes), Perceptron(shapes)]


def _head(inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, 1))


def _square(x: Tensor) -> Tensor:
    return (x.square() - 1) / 2**0.5


def _size(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes)
