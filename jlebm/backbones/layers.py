"""Layers next to the image that the backbones of vector latents share."""

from jaxtyping import Float
from torch import Tensor, nn

from jlebm.errors import UserError


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
