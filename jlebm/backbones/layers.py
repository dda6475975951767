"""Layers next to the image that the backbones of vector latents share."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jlebm.errors import UserError

MANY_WEIGHTS = 2**22
"""Weights of a layer that no core's own cache holds: 16 MB in float32."""
FEW_PIXELS = 64
"""Pixels of a map, each of which uses every weight once: of more, a convolution is as fast as a product."""
AT_ONCE = 16  # images whose products are in memory together, 33 MB at the paper's sizes


def smallest_side(image_shape: tuple[int, int, int], channels: tuple[int, ...]) -> int:
    """Return the side of the smallest feature maps, if each entry of `channels` after the first doubles it.

    Raises:
        UserError: images of this shape cannot be halved that often, or `channels` is empty.
    """
    if not channels:
        raise UserError("a network of images needs at least one number of channels")
    _, height, width = image_shape
    halvings = 2 ** (len(channels) - 1)
    if height != width or height % halvings:
        raise UserError(
            f"image_shape {image_shape} does not fit {len(channels)} channels: "
            f"height and width must be equal and divisible by {halvings}"
        )
    return height // halvings


class FromPoint(nn.ConvTranspose2d):
    """A transposed convolution of a 1x1 input, computed as one matrix product."""

    def forward(self, input: Float[Tensor, "batch inputs 1 1"], output_size: list[int] | None = None) -> Tensor:
        """Return (batch, outputs, kernel, kernel), channels-last if the weights are.

        Raises:
            ValueError: an output size is given; the kernel alone decides it here.
        """
        if output_size is not None:
            raise ValueError("a transposed convolution of a point has the size of its kernel")
        weight = self.weight.permute(0, 2, 3, 1)  # channels-last weights are not copied
        bias = None if self.bias is None else self.bias.repeat(weight[0, ..., 0].numel())
        pixels = nn.functional.linear(input.flatten(1), weight.flatten(1).T, bias)
        return pixels.unflatten(1, weight.shape[1:]).permute(0, 3, 1, 2)


class Doubling(nn.ConvTranspose2d):
    """A transposed convolution that doubles the side of its maps: kernel 4, stride 2, padding 1.

    Where maps are small and weights are many, a CPU computes it as a matrix product, whose columns are added up where
    they overlap. oneDNN's convolution reads the weights from memory too often there (docs/performance). Shapes, device
    and autograd decide, and no measurement. Sums have another order than the convolution's, so other last bits.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 4, stride=2, padding=1)

    def is_a_product(self, input: Tensor) -> bool:
        """Whether this input goes through a product: on a CPU, without autograd, few pixels and many weights."""
        many = input.dim() == 4 and self.weight.numel() >= MANY_WEIGHTS
        small = many and input.shape[2] * input.shape[3] <= FEW_PIXELS
        same = input.device.type == "cpu" and input.dtype == self.weight.dtype and not torch.is_autocast_enabled("cpu")
        recorded = torch.is_grad_enabled() and (input.requires_grad or self.weight.requires_grad)
        return small and same and not recorded

    def forward(
        self, input: Float[Tensor, "batch inputs height width"], output_size: list[int] | None = None
    ) -> Float[Tensor, "batch outputs twice_height twice_width"]:
        """Return the maps at twice the side."""
        if output_size is not None or not self.is_a_product(input):
            return super().forward(input, output_size)
        height, width = input.shape[2:]
        padded = input.new_zeros(len(input), 2 * height + 2, 2 * width + 2, self.out_channels)
        for some, out in zip(input.permute(0, 2, 3, 1).split(AT_ONCE), padded.split(AT_ONCE), strict=True):
            columns = (some.flatten(0, 2) @ self._matrix()).view(*some.shape[:3], 4, 4, self.out_channels)
            for row in range(4):
                for column in range(4):
                    there = out[:, row : row + 2 * height : 2, column : column + 2 * width : 2]
                    there.add_(columns[:, :, :, row, column])
        inner = padded[:, 1:-1, 1:-1]
        return (inner.contiguous() if self.bias is None else inner + self.bias).permute(0, 3, 1, 2)

    def through(
        self, outer: Float[Tensor, "batch outputs twice_height twice_width"]
    ) -> Float[Tensor, "batch inputs height width"]:
        """Return the gradient in an input that `is_a_product`, from the gradient in what it gave."""
        parts = []
        for some in outer.permute(0, 2, 3, 1).split(AT_ONCE):
            padded = nn.functional.pad(some, (0, 0, 1, 1, 1, 1))
            patches = padded.unfold(1, 4, 2).unfold(2, 4, 2).permute(0, 1, 2, 4, 5, 3)
            parts.append(patches.flatten(3) @ self._matrix().t())
        return torch.cat(parts).permute(0, 3, 1, 2)

    def _matrix(self) -> Float[Tensor, "inputs columns"]:
        """Return the weights, outputs of every tap side by side; channels-last weights are not copied."""
        return self.weight.permute(0, 2, 3, 1).flatten(1)
