"""The perceptron that energies and conditionals share, and a reader of its weights."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

SLOPE = 0.2  # negative slope of every leaky ReLU of the joint-training experiments (docs/facts, "Training settings")


def mlp(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """Return linear layers with leaky ReLUs between them; no activation after the last."""
    layers: list[nn.Module] = []
    for units in hidden:
        layers += [nn.Linear(inputs, units), nn.LeakyReLU(SLOPE)]
        inputs = units
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


class Affine(NamedTuple):
    """One linear layer: h -> h weight^T + bias."""

    weight: Float[Tensor, "outputs inputs"]
    bias: Float[Tensor, " outputs"]


class MLP(NamedTuple):
    """The weights of a perceptron with leaky ReLUs of one slope between its layers."""

    layers: tuple[Affine, ...]
    slope: float

    @property
    def outputs(self) -> int:
        """Number of outputs."""
        return self.layers[-1].weight.shape[0]


def hooked(*modules: nn.Module) -> bool:
    """Whether a hook on one of the modules themselves could change what a call of it computes."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in modules)


def read_mlp(network: nn.Module) -> MLP | None:
    """Return the weights of a network that `mlp` made, not copies; None for any other network.

    A subclass, a parametrisation or a hook could change what a call computes, and makes it another network.
    """
    if type(network) is not nn.Sequential or len(network) < 3 or len(network) % 2 == 0:
        return None
    if hooked(network, *network):
        return None
    layers, slopes = [], set()
    for index, module in enumerate(network):
        if index % 2 == 0 and type(module) is nn.Linear and module.bias is not None:
            layers.append(Affine(module.weight, module.bias))
        elif index % 2 == 1 and type(module) is nn.LeakyReLU and module.negative_slope > 0:
            slopes.add(module.negative_slope)
        else:
            return None
    return MLP(tuple(layers), slopes.pop()) if len(slopes) == 1 else None
