"""A batch in equal parts whose gradients are added up before the update, so that a smaller memory is enough."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn

from jlebm.errors import UserError
from jlebm.learning.scheme import OneUpdate, Scheme, Update
from jlebm.randomness import Noise

ADVICE = (
    "set training.parts to 2 or more (--set training.parts=2, of a two-stage model backbone.training.parts=2), so that "
    "a batch goes through in parts, or training.batch_size to less, or take a GPU with more memory"
)
Batch: TypeAlias = tuple[Tensor, Tensor | None]
"""Images, and their classes if there are any."""
Parts: TypeAlias = tuple[Iterable[Update], Sequence[nn.Parameter] | None]
"""An update as those of the batch's parts, each computed when it is asked for, and the parameters that it moves."""


def in_parts(learning: Scheme, model: Any, batch: Batch, noise: Noise, step: int, parts: int) -> Iterator[Parts]:
    """Yield the updates of training step number `step`, each in `parts` equal parts of the batch.

    Raises:
        UserError: the batch cannot be split so, or the scheme has updates that depend on one another.
    """
    x, labels = batch
    if parts == 1:
        for update, moved in learning.updates(model, x, labels, noise, step):
            yield (update,), moved
        return
    if not isinstance(learning, OneUpdate):
        raise UserError("training.parts is for a scheme with one update per step; set it to 1")
    if len(x) % parts:
        raise UserError(
            f"the {len(x)} images of a process cannot be split into {parts} equal parts; set training.parts to less"
        )
    yield (learning.update(model, part, noise, step) for part in x.chunk(parts)), None


def together(numbers: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the figures of a whole from those of its parts: means, and the maximum of the ranges."""
    return {
        name: max(each[name] for each in numbers)
        if name.startswith("range_")
        else sum(each[name] for each in numbers) / len(numbers)
        for name in numbers[0]
    }
