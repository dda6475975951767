"""BigGAN's layers: spectrally normalised weights, conditional batch norm, residual blocks of both networks."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu
from torch.nn.utils.parametrizations import spectral_norm


def normed(module: nn.Module) -> nn.Module:
    """Initialise a weight as an orthogonal matrix and normalise it by its largest singular value."""
    nn.init.orthogonal_(module.get_parameter("weight"))
    return spectral_norm(module)


class ConditionalBatchNorm(nn.Module):
    """Conditional batch norm, with gains and biases linear in the condition."""

    def __init__(self, channels: int, condition_dim: int, momentum: float):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False, momentum=momentum)
        self.gain = normed(nn.Linear(condition_dim, channels, bias=False))
        self.bias = normed(nn.Linear(condition_dim, channels, bias=False))

    def forward(
        self, x: Float[Tensor, "batch channels height width"], condition: Float[Tensor, "batch conditions"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return (1 + gain) x + bias of the normalised x."""
        return (1 + self.gain(condition)[..., None, None]) * self.norm(x) + self.bias(condition)[..., None, None]


class GeneratorBlock(nn.Module):
    """Residual block of the generator: doubles the resolution by norm, ReLU and convolution, twice.

    The convolutions have no biases, which the norms after them would remove.
    """

    def __init__(self, inputs: int, outputs: int, condition_dim: int, momentum: float):
        super().__init__()
        self.first_norm = ConditionalBatchNorm(inputs, condition_dim, momentum)
        self.first = normed(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))
        self.second_norm = ConditionalBatchNorm(outputs, condition_dim, momentum)
        self.second = normed(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False))
        self.around = normed(nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(
        self, x: Float[Tensor, "batch inputs height width"], condition: Float[Tensor, "batch conditions"]
    ) -> Float[Tensor, "batch outputs _ _"]:
        """Return feature maps of twice the height and width."""
        h = self.first(interpolate(relu(self.first_norm(x, condition)), scale_factor=2.0))
        h = self.second(relu(self.second_norm(h, condition)))
        return h + interpolate(self.around(x), scale_factor=2.0)


class DiscriminatorBlock(nn.Module):
    """Residual block of the discriminator: ReLU and convolution, twice; may halve the resolution by averaging."""

    def __init__(self, inputs: int, outputs: int, halves: bool, first: bool):
        super().__init__()
        self.halves, self.first_of_all = halves, first
        self.first = normed(nn.Conv2d(inputs, outputs, 3, padding=1))
        self.second = normed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.around = normed(nn.Conv2d(inputs, outputs, 1))

    def forward(self, x: Float[Tensor, "batch inputs height width"]) -> Float[Tensor, "batch outputs _ _"]:
        """Return feature maps; on an image itself there is no first ReLU, which would cut off its dark half."""
        h = self.second(relu(self.first(x if self.first_of_all else relu(x))))
        return avg_pool2d(h, 2) + self.around(avg_pool2d(x, 2)) if self.halves else h + self.around(x)
