"""Energies of the latents: one small network per layer, E(z) = sum_i E_i(z_i), or E(z) = sum_i E_i(z_i, z_{>i}).

Sign convention of the whole library: lower energy is more likely, p(z) is proportional to exp(-E(z)) p0(z). The
paper's f_i is the network's output, E_i = -f_i (docs/facts, "Joint EBM prior").
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jlebm.backbones.protocol import NO_PATH, Backbone, HasLatentShapes, path_of, path_shapes_of, push_below
from jlebm.config import Kinds
from jlebm.errors import UserError
from jlebm.latents import Latents, LatentShapes
from jlebm.networks import SLOPE, mlp


class JointEnergy(nn.Module):
    """The energy networks: one per layer, which maps z_i to f_i of shape (batch, 1)."""

    step_sizes: Tensor | None
    """Step size of each layer's chain in whitened noise, top first, if it is adapted while the energies learn: (L,)."""

    def __init__(self, networks: Sequence[nn.Module]):
        """Take the networks of f, top layer first."""
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.register_buffer("step_sizes", None)

    def adapt_from(self, size: float) -> "JointEnergy":
        """Give each layer a step size of its own, which travels with the weights; return these energies."""
        self.step_sizes = torch.full((len(self.networks),), size)
        return self

    def forward(self, z: Latents) -> Float[Tensor, "batch layers"]:
        """Return the energy E_i = -f_i of each layer, top first; their sum is the energy of z."""
        negative = [network(layer) for network, layer in zip(self.networks, z, strict=True)]
        return -torch.cat(negative, dim=1)

    def at(self, backbone: Backbone, z: Latents) -> Float[Tensor, "batch layers"]:
        """Return the energy of each layer at latents; these energies need nothing else of the backbone."""
        return self(z)

    def at_noise(
        self, backbone: Backbone, given: Latents, noise: Latents
    ) -> tuple[Latents, Float[Tensor, "batch layers"]]:
        """Return all latents, z = T(eps) below those given, and the energy of each layer there."""
        z = push_below(backbone, given, noise)
        return z, self.at(backbone, z)


class PathEnergy(JointEnergy):
    """The energy networks of a top-down backbone: one per layer, which maps the path after it to f_i of (batch, 1).

    The path holds the layer and all above it, so that E(z) = sum_i E_i(z_i, z_{>i}), where the paper's sum is of
    E_i(z_i). Energies of one layer each leave the dependence between layers as p0 has it.
    """

    def at(self, backbone: Backbone, z: Latents) -> Float[Tensor, "batch layers"]:
        """See `JointEnergy`."""
        return self(path_of(backbone).path(z))

    def at_noise(
        self, backbone: Backbone, given: Latents, noise: Latents
    ) -> tuple[Latents, Float[Tensor, "batch layers"]]:
        """See `JointEnergy`; one way down the path gives both."""
        z, path = path_of(backbone).push_path(given, noise)
        return z, self(path)


class NoEnergy(nn.Module):
    """The zero network, f_i = 0: the layer keeps its Gaussian prior."""

    def forward(self, layer: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch 1"]:
        """Return zeros."""
        return layer.new_zeros(len(layer), 1)


def is_zero(network: nn.Module) -> bool:
    """Whether a layer's network is the zero network itself, to which no hook adds anything."""
    return type(network) is NoEnergy and not network._forward_hooks and not network._forward_pre_hooks


def no_energy(layers: int) -> JointEnergy:
    """Return the zero energy, whose prior is the Gaussian hierarchy; it has no parameters."""
    return JointEnergy([NoEnergy() for _ in range(layers)])


@dataclass(frozen=True)
class EnergyConfig(Kinds):
    """Base class of the energy networks' configurations; a kind is a subclass, here or in a user's code."""

    def build(self, shapes: LatentShapes) -> JointEnergy:
        """Build one network per layer, top first, with weights drawn from torch's global generator.

        Args:
            shapes: shape of each layer's latents, top first, without the batch.

        Raises:
            UserError: the networks do not fit these layers.
        """
        raise NotImplementedError

    def check(self, shapes: LatentShapes) -> None:
        """Refuse layers that the networks do not fit, before anything is trained.

        Raises:
            UserError: a layer does not fit.
        """

    def build_on(self, backbone: Backbone) -> JointEnergy:
        """Build the networks of a backbone's layers; networks that read more of it than their shapes override this.

        Raises:
            UserError: the networks do not fit these layers.
        """
        return self.build(backbone.latent_shapes)

    def check_on(self, backbone: HasLatentShapes) -> None:
        """Refuse a backbone, or the configuration of one, that the networks do not fit, before anything is trained.

        Raises:
            UserError: a layer does not fit.
        """
        self.check(backbone.latent_shapes)


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
    """
    return JointEnergy(
        [mlp(dim, units, outputs=1) if units else NoEnergy() for dim, units in zip(dims, hidden, strict=True)]
    )
