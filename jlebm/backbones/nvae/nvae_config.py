"""Sizes of an NVAE, under the names of the published checkpoints."""

import dataclasses
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jlebm.errors import UserError


@dataclass(frozen=True)
class NVAEConfig:
    """Sizes of the hierarchy, under the names of the published `args`."""

    image_size: int
    num_channels_enc: int
    num_channels_dec: int
    num_latent_scales: int
    num_groups_per_scale: int
    num_latent_per_group: int
    num_preprocess_blocks: int = field(default=2, metadata={"least": 0})
    num_preprocess_cells: int = 2
    num_postprocess_blocks: int = field(default=2, metadata={"least": 0})
    num_postprocess_cells: int = 2
    num_cell_per_cond_enc: int = field(default=1, metadata={"least": 0})
    num_cell_per_cond_dec: int = field(default=1, metadata={"least": 0})
    num_nf: int = field(default=0, metadata={"least": 0})
    num_mixture_dec: int = 10
    num_x_bits: int = 8
    ada_groups: bool = False
    min_groups_per_scale: int = 1
    res_dist: bool = True
    use_se: bool = True
    image_channels: int = 3

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.image_channels, self.image_size, self.image_size

    @property
    def top_side(self) -> int:
        """Height and width of the top group, in latents."""
        return self.image_size // 2 ** (self.num_preprocess_blocks + self.num_latent_scales - 1)

    def __post_init__(self) -> None:
        """Refuse sizes that define no hierarchy."""
        if min(self.num_latent_scales, self.num_groups_per_scale, self.num_latent_per_group) < 1:
            raise UserError("an NVAE needs at least one scale, one group per scale and one channel per group")
        sizes = ("image_size", "num_channels_enc", "num_channels_dec", "num_mixture_dec", "min_groups_per_scale")
        counts = ("num_preprocess_blocks", "num_cell_per_cond_enc", "num_cell_per_cond_dec", "num_nf")
        for least, names in ((1, sizes), (0, counts)):
            for name in names:
                if getattr(self, name) < least:
                    raise UserError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.image_channels not in (1, 3):
            raise UserError(f"images of an NVAE have 1 or 3 channels, not {self.image_channels}")
        if not 1 <= self.num_x_bits <= 8:
            raise UserError(f"num_x_bits must lie between 1 and 8, not be {self.num_x_bits}")
        if self.num_preprocess_blocks != self.num_postprocess_blocks:
            raise UserError(
                f"{self.num_preprocess_blocks} blocks before the hierarchy and {self.num_postprocess_blocks} after it "
                "make images of another size; num_preprocess_blocks and num_postprocess_blocks must be equal"
            )
        if min(self.num_preprocess_cells, self.num_postprocess_cells) < 1:
            raise UserError("num_preprocess_cells and num_postprocess_cells must be at least 1")
        halvings = self.num_preprocess_blocks + self.num_latent_scales - 1
        if halvings >= self.image_size.bit_length() or self.top_side * 2**halvings != self.image_size:
            raise UserError(f"images of {self.image_size} pixels cannot be halved {halvings} times")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "NVAEConfig":
        """Return the sizes that a file states.

        Args:
            values: the sizes by field name; fields with a default may be missing.

        Raises:
            UserError: a size is missing, unknown or of the wrong type, or they define no hierarchy.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        if unknown := [name for name in values if name not in fields]:
            raise UserError(f"{reprlib.repr(unknown[0])} is not a size that this version knows")
        for name, known in fields.items():
            value = values.get(name, known.default)
            if value is dataclasses.MISSING:
                raise UserError(f"there is no {name}")
            if known.type is bool and not (isinstance(value, int) and value in (0, 1)):
                raise UserError(f"{name} must be true or false, not {reprlib.repr(value)}")
            if known.type is int and type(value) is not int:
                raise UserError(f"{name} must be a whole number, not {reprlib.repr(value)}")
        return cls(**{name: bool(value) if fields[name].type is bool else value for name, value in values.items()})

    def groups(self) -> tuple[int, ...]:
        """Return the number of groups of each scale, from the largest resolution down."""
        counts = [self.num_groups_per_scale] * self.num_latent_scales
        if self.ada_groups:
            counts = [max(count // 2**scale, self.min_groups_per_scale) for scale, count in enumerate(counts)]
        return tuple(counts)

    @property
    def bernoulli(self) -> bool:
        """Whether pixels are Bernoulli, as for images of one channel."""
        return self.image_channels == 1

    def outputs(self) -> int:
        """Return the number of decoder outputs per pixel position."""
        if self.bernoulli:
            return 1
        return 6 if self.num_mixture_dec == 1 else 10 * self.num_mixture_dec

    def least_entries(self) -> int:
        """Return a lower bound on the number of tensors in a network of these sizes: one per module in sequence."""
        groups = sum(self.groups())
        around = self.num_preprocess_blocks * (self.num_preprocess_cells + self.num_postprocess_cells)
        cells = groups * self.num_cell_per_cond_enc + (groups - 1) * self.num_cell_per_cond_dec
        return around + cells + 4 * groups - 2 + groups * self.num_nf  # with two combiners and two samplers per group

    def least_numbers(self) -> int:
        """Return a lower bound on the number of weights in such a network: those of its widest convolutions."""
        top = self.image_size // self.top_side
        encoder, decoder = top * self.num_channels_enc, top * self.num_channels_dec
        widest = encoder**2 + decoder**2 + 2 * self.num_latent_per_group * encoder
        return widest + decoder * self.top_side**2 + self.outputs()
