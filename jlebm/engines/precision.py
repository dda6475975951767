"""The arithmetic of a generator's convolutions: full float32, TF32 or bf16, as the configuration says.

Latents, weights, energies and densities are float32 in all three, and so are the sums of the convolutions' products.
TF32 rounds what is multiplied to 10 bits after the point, bf16 to 7; a CPU has no TF32, and computes in float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import torch

Precision: TypeAlias = Literal["float32", "tf32", "bf16"]


@runtime_checkable
class HasPrecision(Protocol):
    """A backbone, or its configuration, whose convolutions may compute in another arithmetic than float32."""

    @property
    def precision(self) -> Precision:
        """Which."""
        ...


def precision_of(backbone: object) -> Precision:
    """Return the arithmetic of a backbone or of its configuration; float32 where it says nothing."""
    return backbone.precision if isinstance(backbone, HasPrecision) else "float32"


@contextmanager
def arithmetic(backbone: object) -> Iterator[None]:
    """Let convolutions use TF32, forward and backward, where the backbone says so; float32 for every other.

    Training and sampling are inside it. bf16 is the business of the backbone itself, an autocast of its generator.
    TF32 is a flag of the whole process; torch's own default is TF32.
    """
    flags = torch.backends.cudnn
    before = flags.allow_tf32
    flags.allow_tf32 = precision_of(backbone) == "tf32"
    try:
        yield
    finally:
        flags.allow_tf32 = before
