"""Energies of the latents: one small network per layer, E(z) = sum_i E_i(z_i), or E(z) = sum_i E_i(z_i, z_{>i})."""

from jlebm.energies.energy import EnergyConfig, JointEnergy, NoEnergy, PathEnergy, is_zero, no_energy
from jlebm.energies.energy_kinds import (
    ConvEnergy,
    MapEnergy,
    PathFieldEnergy,
    PathMapEnergy,
    VectorEnergy,
    conv_energy,
    mlp_energy,
)

__all__ = [
    "ConvEnergy",
    "EnergyConfig",
    "JointEnergy",
    "MapEnergy",
    "NoEnergy",
    "PathEnergy",
    "PathFieldEnergy",
    "PathMapEnergy",
    "VectorEnergy",
    "conv_energy",
    "is_zero",
    "mlp_energy",
    "no_energy",
]
