"""check_model: what an own backbone or energy gets wrong is one sentence, and a model that fits is left as it was."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

import jlebm
from jlebm.backbones.protocol import NoEncoder, PosteriorSample
from jlebm.distributions import Normal
from jlebm.energies import JointEnergy, mlp_energy, no_energy
from jlebm.errors import UserError
from jlebm.model import JointModel
from tests.small import ladder_experiment

X = torch.zeros(3, 1, 2, 2)


class Own(nn.Module):
    """A backbone of two layers without anything that the protocol does not ask for."""

    latent_shapes = ((2,), (4,))

    def __init__(self, **changed: Any):
        super().__init__()
        self.image, self.normed, self.changed = nn.Linear(4, 4), nn.BatchNorm1d(4), changed

    def _or_changed(self, name: str, value: Any) -> Any:
        return self.changed[name](value) if name in self.changed else value

    def prior_log_prob(self, z: Any) -> Any:
        """See `Backbone`."""
        return self._or_changed("prior_log_prob", -sum(layer.square().sum(1) for layer in z) / 2)

    def push(self, noise: Any, temperature: float = 1.0) -> Any:
        """See `Backbone`."""
        return self._or_changed("push", tuple(temperature * layer for layer in noise))

    def decode(self, z: Any) -> Any:
        """See `Backbone`."""
        mean = self.image(self.normed(z[1])).reshape(-1, 1, 2, 2)
        return Normal.constant_sigma(self._or_changed("decode", mean), 0.3)

    def posterior(self, x: Any, noise: Any) -> Any:
        """See `Backbone`."""
        z = noise((x.new_empty(len(x), 2), x.new_empty(len(x), 4)))
        return self._or_changed("posterior", PosteriorSample(z, torch.zeros(len(x))))


def raising(error: Exception) -> Any:
    def change(value: Any) -> Any:
        raise error

    return change


def energies() -> JointEnergy:
    return mlp_energy((2, 4), ((3,), (3,)))


def test_what_fits_is_left_as_it_was() -> None:
    """Breaks if a check moved a running statistic, a weight or the mode, or refused what the library trains."""
    for mode in (True, False):
        model = JointModel(Own(), energies()).train(mode)
        before = copy.deepcopy(model.state_dict())
        jlebm.check_model(model, X)
        jlebm.check_model(model)
        assert model.training is mode
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert all(weight.grad is None for weight in model.parameters())
    jlebm.check_model(JointModel(Own(), no_energy(2)), X)
    jlebm.check_model(JointModel(Own(posterior=raising(NoEncoder())), energies()), X)
    own = ladder_experiment()
    jlebm.check_model(own.build(), torch.zeros(2, *own.model.image_shape))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"prior_log_prob": torch.mean}, r"prior_log_prob returns \(\) for 2 samples, not \(2,\): log p0"),
        ({"prior_log_prob": lambda value: value * float("nan")}, "prior_log_prob returns values that are not finite"),
        ({"push": list}, "push returns list, not a tuple of 2 layers"),
        ({"push": lambda z: z[:1]}, "push returns 1 layers, not a tuple of 2"),
        ({"push": lambda z: z[::-1]}, r"push returns \(2, 4\) for 2 samples, not \(2, 2\): z2"),
        ({"decode": lambda image: image[:, :, :1]}, r"decode returns \(2, 1, 1, 2\) for 2 samples, not \(2, 1, 2, 2\)"),
        (
            {"decode": raising(RuntimeError("no\nsuch layer"))},
            r"decode fails on 2 samples \(RuntimeError: no such layer",
        ),
        ({"posterior": lambda q: q._replace(log_prob=q.log_prob.sum())}, "posterior's log_prob returns"),
        ({"posterior": lambda q: q._replace(latents=q.latents[::-1])}, r"posterior returns \(2, 4\) for 2 samples"),
    ],
)
def test_a_backbone_that_does_not_fit(changed: dict[str, Any], sentence: str) -> None:
    """Breaks if a wrong result were accepted, whose gradients then mean something else."""
    with pytest.raises(UserError, match=sentence):
        jlebm.check_model(JointModel(Own(**changed), energies()), X)


def test_a_method_that_is_missing() -> None:
    """Breaks if a backbone without a method were found out in the middle of a training."""
    model = JointModel(Own(), energies())
    model.backbone.posterior = None  # pyright: ignore
    with pytest.raises(UserError, match="Own has no method posterior"):
        jlebm.check_model(model)


class Odd(nn.Module):
    """A network whose energies have a wrong shape, or do not know their latents."""

    def __init__(self, shape: tuple[int, ...], detached: bool = False):
        super().__init__()
        self.weight, self.shape, self.detached = nn.Parameter(torch.ones(())), shape, detached

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return energies of the shape."""
        z = z.detach() if self.detached else z
        return (self.weight * z.sum(1)[:, None]).expand(self.shape)


@pytest.mark.parametrize(
    ("networks", "sentence"),
    [
        ([Odd((2, 3)), Odd((2, 1))], r"an energy network returns \(2, 3\) for 2 latents, not \(2, 1\)"),
        ([Odd((2, 1), True), Odd((2, 1), True)], "the energies do not depend on the latents"),
        ([nn.Linear(4, 1), nn.Linear(2, 1)], r"the energy fails on 2 samples \(RuntimeError: mat1 and mat2 shapes"),
    ],
)
def test_energies_that_do_not_fit(networks: list[nn.Module], sentence: str) -> None:
    """Breaks if energies of another shape were added up wrongly, or chains ran past energies without a gradient."""
    with pytest.raises(UserError, match=sentence):
        jlebm.check_model(JointModel(Own(), JointEnergy(networks)), X)


@pytest.mark.parametrize("x", [X.byte(), X * float("nan"), X[:1]])
def test_images_that_no_scheme_takes(x: Any) -> None:
    """Breaks if bytes or NaN reached an update, where they end as an error of another place or as NaN weights."""
    with pytest.raises(UserError, match="at least two finite floating-point images"):
        jlebm.check_model(JointModel(Own(), energies()), x)
