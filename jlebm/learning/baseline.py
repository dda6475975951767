"""The other systems of the table: one training step is a sequence of turns, each the move of one part."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from jlebm.randomness import Noise
from reproduce.systems.system import System, Turn, integers


@dataclass(frozen=True)
class TurnUpdate:
    """A turn as an update."""

    turn: Turn

    def loss(self) -> Float[Tensor, ""]:
        """See `learning.base.Update`."""
        return self.turn.loss

    def figures(self) -> dict[str, Tensor]:
        """See `learning.base.Update`."""
        return dict(self.turn.figures)


@dataclass(frozen=True)
class InTurns:
    """Whatever the system says."""

    def updates(
        self,
        model: System,
        x: Float[Tensor, "batch channels height width"],
        labels: Int64[Tensor, " batch"] | None,
        noise: Noise,
        step: int,
    ) -> Iterator[tuple[TurnUpdate, Sequence[nn.Parameter]]]:
        """Yield each turn's update with the parameters that it moves."""
        with _seeded(noise, x):
            for turn in model.turns(x, labels, noise, step):
                yield TurnUpdate(turn), list(getattr(model, turn.part).parameters())


@contextmanager
def _seeded(noise: Noise, x: Tensor) -> Iterator[None]:
    """Let a library's own draws (dropout, from torch's global generator) be a function of the training noise too."""
    seed = integers(noise, 2**20, x[:1])
    with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
        torch.manual_seed(int(seed))
        yield
