"""Kinds of energy networks, each a configuration that builds one network per layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from jlebm.backbones.protocol import NO_PATH, Backbone, HasLatentShapes, path_of, path_shapes_of
from jlebm.energies.energy import EnergyConfig, JointEnergy, NoEnergy, PathEnergy
from jlebm.energies.map_networks import Standardised, field_network, map_network
from jlebm.errors import UserError
from jlebm.latents import Latents, LatentShapes
from jlebm.networks import SLOPE, mlp

MEASURED = 512  # draws of p0 over which the path's features are standardised


@dataclass(frozen=True)
class VectorEnergy(EnergyConfig):
    """Configuration of one multi-layer perceptron per layer of vector latents."""

    hidden: tuple[tuple[int, ...], ...] = ((100, 100), (200, 200, 200))
    """Hidden units of each layer's network, top first, by default the paper's for CIFAR-10; () for a layer without an
    energy."""

    def build(self, shapes: LatentShapes) -> JointEnergy:
        """See `EnergyConfig`."""
        self.check(shapes)
        return mlp_energy([shape[0] for shape in shapes], self.hidden)

    def check(self, shapes: LatentShapes) -> None:
        """See `EnergyConfig`."""
        if any(len(shape) != 1 for shape in shapes) or len(shapes) != len(self.hidden):
            raise UserError(
                f"latents of shapes {shapes} are not {len(self.hidden)} layers of vectors, one per perceptron"
            )
        if not any(self.hidden):
            raise UserError("no layer has an energy, and a prior without any is Gaussian; give one layer hidden units")


@dataclass(frozen=True)
class ConvEnergy(EnergyConfig):
    """Configuration of one convolutional network per layer of feature maps; the defaults are the published ones."""

    channels: int = 64
    units: int = 200

    def __post_init__(self) -> None:
        """Refuse a network without channels or units."""
        if self.channels < 1 or self.units < 1:
            raise UserError("an energy needs at least one channel and one unit")

    def build(self, shapes: LatentShapes) -> JointEnergy:
        """See `EnergyConfig`."""
        return conv_energy(shapes, self.channels, self.units)

    def check(self, shapes: LatentShapes) -> None:
        """See `EnergyConfig`."""
        for shape in shapes:
            _halvings(shape)


@dataclass(frozen=True)
class MapEnergy(EnergyConfig):
    """Configuration of one network per layer of maps of any size, points included."""

    maps: int = 64
    """Feature maps of a layer of maps."""
    hidden: int = 128
    """Units of the linear layers."""

    def __post_init__(self) -> None:
        """Refuse a network without maps or units."""
        if self.maps < 1 or self.hidden < 1:
            raise UserError("an energy needs at least one map and one unit")

    def build(self, shapes: LatentShapes) -> JointEnergy:
        """See `EnergyConfig`."""
        self.check(shapes)
        return JointEnergy([self._network(shape) for shape in shapes])

    def check(self, shapes: LatentShapes) -> None:
        """See `EnergyConfig`."""
        for shape in shapes:
            side = shape[-1]
            if len(shape) != 3 or shape[1] != side or side & (side - 1):
                raise UserError(f"latents of shape {shape} are not square maps whose side is a power of two")

    def _network(self, shape: tuple[int, ...]) -> nn.Sequential:
        return map_network(shape, 1, self.maps, self.hidden)


@dataclass(frozen=True)
class PathMapEnergy(EnergyConfig):
    """Configuration of one network per layer of a top-down backbone, of the path after it: `PathEnergy`."""

    path_maps: int = 64
    """Feature maps of a network."""
    path_convolutions: int = 2
    """3x3 convolutions of a network before its side is halved."""
    hidden: int = 128
    """Units of the linear layers."""

    def __post_init__(self) -> None:
        """Refuse a network without maps, convolutions or units."""
        if min(self.path_maps, self.path_convolutions, self.hidden) < 1:
            raise UserError("an energy of the path needs at least one map, one convolution and one unit")

    def build(self, shapes: LatentShapes) -> PathEnergy:
        """Build one network per shape of the path; see `EnergyConfig`."""
        MapEnergy().check(shapes)
        sizes = self.path_convolutions, self.path_maps, self.hidden
        return PathEnergy([map_network(shape, *sizes) for shape in shapes])

    def build_on(self, backbone: Backbone) -> PathEnergy:
        """See `EnergyConfig`."""
        return self.build(path_shapes_of(backbone))

    def check(self, shapes: LatentShapes) -> None:
        """Refuse a backbone of which only the latents' shapes are known; see `EnergyConfig`."""
        raise UserError(NO_PATH)

    def check_on(self, backbone: HasLatentShapes) -> None:
        """See `EnergyConfig`."""
        MapEnergy().check(path_shapes_of(backbone))


@dataclass(frozen=True)
class PathFieldEnergy(EnergyConfig):
    """Configuration of one network per layer of a top-down backbone, of the path after it, standardised.

    On large maps an energy is a sum over places of a function of their surroundings, as in a random field (Zhu, Wu and
    Mumford, 1998, "Filters, random fields and maximum entropy"); on small ones, a function of the whole map. Each
    feature of the path is first brought to mean 0 and deviation 1 under p0: a layer that moves the path by little is
    otherwise hardly seen (docs/exploration, measured on CIFAR-10).
    """

    maps: int = 64
    """Feature maps of a network."""
    convolutions: int = 3
    """3x3 convolutions of a network."""
    hidden: int = 128
    """Units of the linear layers, on small maps."""
    field_from: int = 8
    """Smallest side of maps whose energy is a sum over places."""

    def __post_init__(self) -> None:
        """Refuse a network without maps, convolutions or units."""
        if min(self.maps, self.convolutions, self.hidden, self.field_from) < 1:
            raise UserError("an energy of the path needs at least one map, one convolution and one unit")

    def build(self, shapes: LatentShapes) -> PathEnergy:
        """Build one network per shape of the path, which leaves features as they are; see `EnergyConfig`."""
        MapEnergy().check(shapes)
        sizes = self.maps, self.convolutions, self.hidden, self.field_from
        return PathEnergy([field_network(shape, *sizes) for shape in shapes])

    def build_on(self, backbone: Backbone) -> PathEnergy:
        """Build the networks of a backbone's path and measure its features' moments; see `EnergyConfig`."""
        energy = self.build(path_shapes_of(backbone))
        for network, features in zip(energy.networks, _features_of_p0(backbone), strict=True):
            assert isinstance(network, nn.Sequential)
            first = network[0]
            assert isinstance(first, Standardised)
            first.measure(features)
        return energy

    def check(self, shapes: LatentShapes) -> None:
        """Refuse a backbone of which only the latents' shapes are known; see `EnergyConfig`."""
        raise UserError(NO_PATH)

    def check_on(self, backbone: HasLatentShapes) -> None:
        """See `EnergyConfig`."""
        MapEnergy().check(path_shapes_of(backbone))


@torch.no_grad()
def _features_of_p0(backbone: Backbone) -> Latents:
    """Return the path after each layer under p0, for the same draws on every machine."""
    like = next(backbone.parameters()) if isinstance(backbone, nn.Module) else torch.empty(0)
    drawn = torch.Generator().manual_seed(0)
    noise = tuple(torch.randn(MEASURED, *shape, generator=drawn).to(like) for shape in backbone.latent_shapes)
    return path_of(backbone).push_path((), noise)[1]


def conv_energy(shapes: LatentShapes, channels: int = 64, units: int = 200) -> JointEnergy:
    """Return one convolutional network per layer of (channels, height, width) latents, top first.

    Stride-2 4x4 convolutions down to 4x4, then as many linear layers, then one output; leaky ReLUs between them
    (docs/facts, "Two-stage training").

    Args:
        shapes: shape of each layer; height and width are equal and a power of two from 8 on.
        channels: number of feature maps; 64 in the paper.
        units: width of the linear layers; 200 in the paper.

    Raises:
        UserError: a layer's shape does not halve down to 4x4.
    """
    return JointEnergy([_conv_network(shape, channels, units) for shape in shapes])


def _halvings(shape: tuple[int, ...]) -> int:
    halvings = shape[-1].bit_length() - 3 if len(shape) == 3 and shape[1] == shape[2] else 0
    if halvings < 1 or shape[-1] != 4 * 2**halvings:
        raise UserError(f"latents of shape {shape} cannot be halved down to 4x4, which a convolutional energy needs")
    return halvings


def _conv_network(shape: tuple[int, ...], channels: int, units: int) -> nn.Sequential:
    halvings = _halvings(shape)
    layers: list[nn.Module] = []
    inputs = shape[0]
    for _ in range(halvings):
        layers += [nn.Conv2d(inputs, channels, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        inputs = channels
    return nn.Sequential(*layers, nn.Flatten(), *mlp(16 * channels, (units,) * halvings, outputs=1))


def mlp_energy(dims: Sequence[int], hidden: Sequence[Sequence[int]]) -> JointEnergy:
    """Return one multi-layer perceptron per layer of vector latents, top first.

    Args:
        dims: dimension of each layer.
        hidden: hidden units of each layer's network; the paper's for CIFAR-10 are ((100, 100), (200, 200, 200)). A
            layer of () has no energy, and its prior given the layer above is Gaussian.

    Raises:
        UserError: there are not as many networks as layers.
    """
    if len(dims) != len(hidden):
        raise UserError(f"{len(dims)} layers of latents need as many energy networks, not {len(hidden)}")
    return JointEnergy(
        [mlp(dim, units, outputs=1) if units else NoEnergy() for dim, units in zip(dims, hidden, strict=True)]
    )
