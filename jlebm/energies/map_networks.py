"""Convolutional networks of one number per image, for layers of maps and points."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jlebm.networks import SLOPE, mlp

LEAST_DEVIATION = 1e-4  # of a feature that is divided by it


def map_network(shape: tuple[int, ...], convolutions: int, maps: int, hidden: int) -> nn.Sequential:
    """Return 3x3 and stride-2 convolutions down to 4x4 at most, then two linear layers; of a point, those alone."""
    inputs, side = shape[0], shape[-1]
    layers: list[nn.Module] = []
    for _ in range(convolutions if side > 1 else 0):
        layers += [nn.Conv2d(inputs, maps, 3, padding=1), nn.LeakyReLU(SLOPE)]
        inputs = maps
    while side > 4:
        layers += [nn.Conv2d(inputs, maps, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        side //= 2
    return nn.Sequential(*layers, nn.Flatten(), *mlp(inputs * side**2, (hidden,) * 2, outputs=1))


def field_network(shape: tuple[int, ...], maps: int, convolutions: int, hidden: int, field_from: int) -> nn.Sequential:
    """Return a smooth function of standardised features: of maps from a side on, a sum over places; else of the whole.

    Args:
        shape: (features, side, side).
        maps: of each convolution.
        convolutions: 3x3 ones; of a point, none.
        hidden: units of each of two linear layers, on smaller maps.
        field_from: smallest side of maps with a sum over places.
    """
    inputs, side = shape[0], shape[-1]
    layers: list[nn.Module] = [Standardised(inputs)]
    for _ in range(convolutions if side > 1 else 0):
        layers += [nn.Conv2d(inputs, maps, 3, padding=1), nn.SiLU()]
        inputs = maps
    if side > 1 and side >= field_from:
        layers += [nn.Conv2d(inputs, maps, 1), nn.SiLU(), nn.Conv2d(maps, 1, 1)]
        return nn.Sequential(*layers, SumOverPlaces())
    layers.append(nn.Flatten())
    inputs *= side**2
    for _ in range(2):
        layers += [nn.Linear(inputs, hidden), nn.SiLU()]
        inputs = hidden
    return nn.Sequential(*layers, nn.Linear(inputs, 1))


class Standardised(nn.Module):
    """Features less their means, over their deviations: numbers measured once, which travel with the weights."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(features, 1, 1))
        self.register_buffer("deviation", torch.ones(features, 1, 1))

    def measure(self, maps: Float[Tensor, "batch features height width"]) -> None:
        """Take the moments of these maps; a feature that does not vary is not divided."""
        deviation, mean = torch.std_mean(maps, dim=(0, 2, 3), correction=0)
        self.mean.copy_(mean[:, None, None])
        self.deviation.copy_(torch.where(deviation > LEAST_DEVIATION, deviation, 1.0)[:, None, None])

    def forward(
        self, maps: Float[Tensor, "batch features height width"]
    ) -> Float[Tensor, "batch features height width"]:
        """Return the standardised features."""
        return (maps - self.mean) / self.deviation


class SumOverPlaces(nn.Module):
    """The sum of one map over its places, over its side: places alike add up to a deviation that no size changes."""

    def forward(self, places: Float[Tensor, "batch 1 side side"]) -> Float[Tensor, "batch 1"]:
        """Return one number per image."""
        return places.sum((2, 3)) / places.shape[-1]
