"""Arithmetic of a generator's convolutions: full float32, TF32 or bf16, as set in the configuration.

Latents, weights, energies and densities are float32 in all three, and convolutions accumulate in float32. TF32 rounds
the factors to 10 bits after the point, bf16 to 7; a CPU has no TF32, and computes in float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import torch

Precision: TypeAlias = Literal["float32", "tf32", "bf16"]


@runtime_checkable
class HasPrecision(Protocol):
    """A backbone, or its configuration, whose convolutions may use another arithmetic than float32."""

    @property
    def precision(self) -> Precision:
        """The arithmetic of the convolutions."""
        ...


def precision_of(backbone: object) -> Precision:
    """Return the arithmetic of a backbone or its configuration; float32 if it has none."""
    return backbone.precision if isinstance(backbone, HasPrecision) else "float32"


@contextmanager
def arithmetic(backbone: object) -> Iterator[None]:
    """Switch TF32 of convolutions on, forward and backward, if the backbone asks for it, else off.

    Training and sampling run inside this context. For bf16 the backbone itself runs its generator under autocast.
    TF32 is a flag of the whole process; torch switches it on by default.
    """
    flags = torch.backends.cudnn
    before = flags.allow_tf32
    flags.allow_tf32 = precision_of(backbone) == "tf32"
    try:
        yield
    finally:
        flags.allow_tf32 = before
