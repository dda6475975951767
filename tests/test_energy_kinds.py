"""One configuration of an energy, of several kinds: perceptrons, convolutions, and whatever a user writes."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from jlebm.energies import ConvEnergy, EnergyConfig, JointEnergy, VectorEnergy, conv_energy, mlp_energy
from jlebm.errors import UserError
from jlebm.experiment import Experiment
from jlebm.latents import LatentShapes
from jlebm.learning.two_stage import TwoStageExperiment
from tests.small import COLOURED, IMAGES, backbone, experiment, fit_one, ladder_experiment, two_stage_experiment


class Quadratic(nn.Module):
    """f(z) = sum_j w_j z_j^2."""

    def __init__(self, size: int):
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.randn(size))

    def forward(self, layer: torch.Tensor) -> torch.Tensor:
        """Return f."""
        return (layer.flatten(1).square() @ self.weight)[:, None]


@dataclass(frozen=True)
class QuadraticEnergy(EnergyConfig):
    """A user's kind."""

    quadratic_scale: float = 1.0

    def build(self, shapes: LatentShapes) -> JointEnergy:
        """See `EnergyConfig`."""
        return JointEnergy([Quadratic(int(torch.Size(shape).numel())) for shape in shapes])


def built(config: EnergyConfig, shapes: LatentShapes) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return config.build(shapes).state_dict()


def test_the_kinds_here_are_the_networks_that_they_always_were() -> None:
    """Breaks if a configuration draws other weights than the function of its networks, or in another order."""
    for config, make, shapes in (
        (VectorEnergy(((5,), (6, 7))), lambda: mlp_energy((3, 4), ((5,), (6, 7))), ((3,), (4,))),
        (ConvEnergy(4, 6), lambda: conv_energy(((2, 8, 8), (2, 16, 16)), 4, 6), ((2, 8, 8), (2, 16, 16))),
    ):
        found = built(config, shapes)
        torch.manual_seed(3)
        for key, weight in make().state_dict().items():
            assert torch.equal(found[key], weight)


@pytest.mark.parametrize(
    ("one", "images"),
    [
        (experiment(energy=QuadraticEnergy(), energy_hidden=()), IMAGES),
        (ladder_experiment(energy=QuadraticEnergy(), energy_hidden=()), IMAGES),
        (two_stage_experiment(energy=QuadraticEnergy()), COLOURED),
    ],
    ids=["joint-mle", "variational", "two-stage"],
)
def test_a_users_kind_is_trained_and_read_back(tmp_path: Path, one: Any, images: Any) -> None:
    """Breaks if a scheme asks for the networks of this library, or a stored configuration loses the kind."""
    again = type(one).from_json(json.loads(json.dumps(one.to_json())))
    assert again == one
    assert type(again.energy) is QuadraticEnergy
    changed = one.override(["energy.quadratic_scale=2.5"])
    assert changed.energy == QuadraticEnergy(2.5)
    _, state = fit_one(tmp_path, one, images, backbone=backbone() if isinstance(one, TwoStageExperiment) else None)
    assert all(isinstance(network, Quadratic) for network in state.model.energy.networks)


def test_kinds_have_digests_of_their_own() -> None:
    """Breaks if two energies could be one run."""
    plain, other = ladder_experiment(), ladder_experiment(energy=QuadraticEnergy(), energy_hidden=())
    vector = ladder_experiment(energy=VectorEnergy(((6,), (6,), (6, 6))), energy_hidden=())
    assert len({one.digest() for one in (plain, other, vector)}) == 3
    two_stage = two_stage_experiment(), two_stage_experiment(energy=QuadraticEnergy())
    assert two_stage[0].digest() != two_stage[1].digest()


def test_a_later_kind_leaves_stored_configurations_as_they_are() -> None:
    """Breaks if a kind that a user writes changes how a configuration of before is read or written."""
    one = two_stage_experiment()
    assert one.to_json()["energy"] == {"channels": 4, "units": 6}
    assert TwoStageExperiment.from_json(one.to_json()).energy == ConvEnergy(4, 6)
    assert "energy" not in experiment().to_json()
    assert Experiment.from_json(experiment().to_json()).energy is None


def test_two_kinds_with_the_same_fields_are_refused() -> None:
    """Breaks if two energies could have one JSON, and so one digest."""
    with pytest.raises(TypeError, match="Another has the fields of ConvEnergy"):

        @dataclass(frozen=True)
        class Another(EnergyConfig):
            channels: int = 1
            units: int = 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"energy": QuadraticEnergy()}, "energy and energy_hidden name two energies"),
        ({"energy": ConvEnergy(), "energy_hidden": ()}, "cannot be halved down to 4x4"),
        ({"energy": VectorEnergy(((3,),)), "energy_hidden": ()}, "are not 1 layers of vectors"),
        ({"energy_hidden": ()}, "energy_hidden names 0 layers"),
        ({"energy_hidden": ((), (), ())}, "no layer has an energy"),
        ({"energy": VectorEnergy(((), (), ())), "energy_hidden": ()}, "no layer has an energy"),
        ({"learning": "gaussian", "energy": QuadraticEnergy(), "energy_hidden": ()}, "set energy_hidden to .., energy"),
    ],
)
def test_energies_that_do_not_fit_are_sentences(change: dict[str, Any], sentence: str) -> None:
    """Said when the configuration is made, not after a training has begun."""
    with pytest.raises(UserError, match=sentence):
        dataclasses.replace(ladder_experiment(), **change)


def test_an_unknown_key_names_the_kind_it_is_nearest_to() -> None:
    """Breaks if a misspelt field of an energy gets a trace back."""
    with pytest.raises(UserError, match=r"unknown configuration key 'energy\.unitss'"):
        TwoStageExperiment.from_json(two_stage_experiment().to_json() | {"energy": {"channels": 4, "unitss": 6}})
