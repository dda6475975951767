"""Arithmetic of a generator's convolutions: full float32, TF32 or bf16, as set in the configuration.

Latents, weights, energies and densities are float32 in all three, and convolutions accumulate in float32. TF32 rounds
the factors to 10 bits after the point, bf16 to 7; a CPU has no TF32, and computes in float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import torch

from jlebm.engines import products

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

    A CPU's products go through the library of `jlebm.engines.products`.

    Training and sampling run inside this context. For bf16 the backbone itself runs its generator under autocast.
    TF32 is a flag of the whole process; torch switches it on by default.
    """
    with convolutions(tf32=precision_of(backbone) == "tf32"), products.in_force():
        yield


@contextmanager
def convolutions(tf32: bool) -> Iterator[None]:
    """Compute cuDNN's convolutions in TF32 or in full float32.

    The switch is the operation's own, `fp32_precision`, to which settings for all operations give way. Torch's older
    `allow_tf32` does not override those, and reading it raises an error where operations differ.
    """
    switch = _switches()[0]
    before = switch.fp32_precision
    switch.fp32_precision = "tf32" if tf32 else "ieee"
    try:
        yield
    finally:
        switch.fp32_precision = "none"  # follows the setting for all operations,
        if switch.fp32_precision != before:  # unless it had one of its own
            switch.fp32_precision = before


def in_bf16(device: torch.device) -> torch.autocast:
    """Return the context in which layers compute in bf16: a generator's, or all networks of a chain's density.

    Casts of weights are not cached, each is used once: a recorded step would keep using the cast that it saw.
    """
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


def full_float32() -> None:
    """Switch TF32 off for the whole process, in products, convolutions and recurrent networks."""
    torch.backends.cudnn.allow_tf32 = False  # can then be read by other libraries
    for switch in _switches():
        switch.fp32_precision = "ieee"


def in_force() -> tuple[str, str]:
    """Return the settings for float32 in force: of convolutions and of matrix products."""
    convolutions, products, _ = _switches()
    return convolutions.fp32_precision, products.fp32_precision


def _switches() -> tuple[Any, Any, Any]:
    """Return torch's settings of convolutions, of matrix products and of recurrent networks."""
    backends: Any = torch.backends  # whose types leave these out
    return backends.cudnn.conv, backends.cuda.matmul, backends.cudnn.rnn
