"""The frozen configuration of an experiment, its JSON and its digest.

Everything that can move the weights or the samples is in here, and nothing else is: two runs with one digest and one
seed are the same experiment. The seed stands beside it; so do the counts of images that a measurement is over, which
every row names; the machine does not belong to it.
"""

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from jlebm.backbones.conv import ConvBackbone, ConvConfig
from jlebm.energies import mlp_energy
from jlebm.errors import UserError, nearest
from jlebm.langevin import Chain
from jlebm.model import JointModel

LearningName = Literal["joint-mle", "variational"]


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam for all networks, with one rate for the energies and one for everything else."""

    generator_lr: float = 1e-4
    energy_lr: float = 2e-5
    beta1: float = 0.9
    beta2: float = 0.999
    energy_l2: float = 0.0
    """Weight of the squared energies in the loss; the paper's is 0."""
    ema_decay: float | None = None
    """Decay of an exponential moving average of all weights, None for none (the paper's)."""

    def __post_init__(self) -> None:
        """Refuse rates that could not learn."""
        if not (self.generator_lr > 0 and self.energy_lr > 0):
            raise UserError("the learning rates must be positive")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise UserError(f"ema_decay must lie between 0 and 1, not be {self.ema_decay}")


@dataclass(frozen=True)
class TrainingConfig:
    """How long, and in what portions."""

    steps: int = 50_500
    batch_size: int = 100
    budget_seconds: float | None = None
    """Wall-clock time after which training ends early; None for none."""

    def __post_init__(self) -> None:
        """Refuse a training that could not run."""
        if self.steps < 1 or self.batch_size < 1:
            raise UserError("training needs at least one step and one image a batch")
        if self.budget_seconds is not None and not self.budget_seconds > 0:
            raise UserError(f"the wall-clock budget must be positive, not {self.budget_seconds:g} seconds")


@dataclass(frozen=True)
class Experiment:
    """One row of a table before its numbers; the defaults are the paper's CIFAR-10 run (facts, section 2.1)."""

    protocol: str
    """Bumped by every change that may move a number; rows of different protocols are never compared."""
    preset: str
    dataset: str
    learning: LearningName = "joint-mle"
    model: ConvConfig = field(default_factory=ConvConfig)
    energy_hidden: tuple[tuple[int, ...], ...] = ((100, 100), (200, 200, 200))
    """Hidden units of each layer's energy, top first."""
    prior_chain: Chain = field(default_factory=lambda: Chain.from_joint_paper(60, 0.4))
    posterior_chain: Chain = field(default_factory=lambda: Chain.from_joint_paper(40, 0.1))
    """Used by joint maximum likelihood only; kept by both, so that the two differ in `learning` alone."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        """Refuse parts that do not fit together."""
        if len(self.energy_hidden) != len(self.model.latent_dims):
            raise UserError(
                f"energy_hidden names {len(self.energy_hidden)} layers, model.latent_dims {len(self.model.latent_dims)}"
            )
        if self.learning not in typing.get_args(LearningName):
            raise UserError(
                f"unknown learning {self.learning!r}{nearest(self.learning, typing.get_args(LearningName))}"
            )
        if (self.learning == "variational") != self.model.inference_network:
            raise UserError("model.inference_network must be true for variational learning and false for joint-mle")

    def build(self) -> JointModel:
        """Make the model, its weights drawn from torch's global generator."""
        return JointModel(ConvBackbone(self.model), mlp_energy(self.model.latent_dims, self.energy_hidden))

    def to_json(self) -> dict[str, Any]:
        """Return plain dictionaries, lists, numbers and strings.

        A field that came later is left out where it has its default, which is what the runs of before did: their
        digests, folders and rows stay valid.
        """
        values = self._values()
        model, plain = values["model"], ConvConfig()
        for one in dataclasses.fields(ConvConfig):
            if "since" in one.metadata and model[one.name] == getattr(plain, one.name):
                del model[one.name]
        return values

    def _values(self) -> dict[str, Any]:
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Experiment":
        """Read what `to_json` wrote.

        Raises:
            UserError: a key is unknown (with the nearest known one), missing, or a value has the wrong type.
        """
        return _read(cls, values, "")

    def digest(self) -> str:
        """Return the SHA-256 of the canonical JSON, as hexadecimal."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def override(self, assignments: Sequence[str]) -> "Experiment":
        """Return a copy with keys set from "training.steps=100"; its preset is then named "custom".

        Raises:
            UserError: a key is unknown (with the nearest known one), or a value does not fit.
        """
        if not assignments:
            return self
        values = self._values()
        known = _flat_keys(values)
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals:
                raise UserError(f"{assignment!r} sets nothing; write KEY=VALUE, such as training.steps=100")
            if key not in known:
                raise UserError(f"unknown configuration key {key!r}{nearest(key, known)}")
            *path, last = key.split(".")
            target = values
            for part in path:
                target = target[part]
            try:
                target[last] = json.loads(text)
            except json.JSONDecodeError:
                target[last] = text
        return self.from_json(values | {"preset": "custom"})


def _flat_keys(values: dict[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key, value in values.items():
        keys += _flat_keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return keys


def _read(kind: Any, value: Any, path: str) -> Any:
    """Read a JSON value as `kind`: a dataclass, a tuple, a literal, an optional or a plain type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints = typing.get_type_hints(kind)
        for key in value:
            if key not in hints:
                raise UserError(f"unknown configuration key {path + key!r}{nearest(key, hints)}")
        missing = [f.name for f in dataclasses.fields(kind) if f.name not in value and "since" not in f.metadata]
        if missing:
            raise UserError(f"the configuration lacks {path + missing[0]!r}")
        return typing.cast(Any, kind)(**{k: _read(hints[k], v, f"{path}{k}.") for k, v in value.items()})
    if origin is tuple and isinstance(value, list):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(value):
            return tuple(_read(k, v, path) for k, v in zip(kinds, value, strict=True))
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _read(next(a for a in arguments if a is not type(None)), value, path)
    if origin is Literal and value in arguments:
        return value
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise UserError(f"the configuration's {path.rstrip('.')!r} cannot be {value!r}")
