"""The one small network that energies and conditionals share."""

from collections.abc import Sequence

from torch import nn

SLOPE = 0.2  # negative slope of every leaky ReLU of the joint-training experiments (facts, section 2.1)


def mlp(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """Return linear layers with leaky ReLUs between them; no activation after the last."""
    layers: list[nn.Module] = []
    for units in hidden:
        layers += [nn.Linear(inputs, units), nn.LeakyReLU(SLOPE)]
        inputs = units
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))
