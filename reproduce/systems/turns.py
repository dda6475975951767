"""Training of the other systems: each step is a sequence of turns, each an update of one part."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from jlebm.randomness import Noise


class Turn(NamedTuple):
    """One update of one part of a system."""

    part: str
    """Attribute of the system that is updated; only its parameters get the loss's gradient."""
    loss: Float[Tensor, ""]
    """The loss, with its graph."""
    figures: Mapping[str, Tensor]
    """Recorded values, scalars; `jlebm.guard` limits those whose names begin with "energy_"."""


@dataclass(frozen=True)
class TurnUpdate:
    """A turn as an update."""

    turn: Turn

    def loss(self) -> Float[Tensor, ""]:
        """See `jlebm.learning.scheme.Update`."""
        return self.turn.loss

    def figures(self) -> dict[str, Tensor]:
        """See `jlebm.learning.scheme.Update`."""
        return {name: value.detach() for name, value in self.turn.figures.items()}


@dataclass(frozen=True)
class InTurns:
    """Learning scheme of a system: its own turns."""

    def updates(
        self,
        model: Any,
        x: Float[Tensor, "batch channels height width"],
        labels: Int64[Tensor, " batch"] | None,
        noise: Noise,
        step: int,
    ) -> Iterator[tuple[TurnUpdate, Sequence[nn.Parameter]]]:
        """Yield each turn's update with the parameters that it updates."""
        with _seeded(noise, x):
            for turn in model.turns(x, labels, noise, step):
                yield TurnUpdate(turn), list(getattr(model, turn.part).parameters())


@contextmanager
def _seeded(noise: Noise, x: Tensor) -> Iterator[None]:
    """Seed torch's global generator, which dropout draws from, by the training noise."""
    seed = integers(noise, 2**20, x[:1])
    with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
        torch.manual_seed(int(seed))
        yield


def uniform(noise: Noise, like: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    """Draw from U(0, 1), as the normal distribution function of a normal draw."""
    return torch.special.ndtr(noise((like,))[0])


def integers(noise: Noise, below: int, like: Float[Tensor, "batch ..."]) -> Int64[Tensor, " batch"]:
    """Draw one of 0 .. below - 1, all equally likely, for each element of the batch."""
    drawn = uniform(noise, like.new_empty(len(like), 1))[:, 0]
    return (drawn * below).long().clamp_(max=below - 1)
