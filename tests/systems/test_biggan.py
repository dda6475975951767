"""BigGAN: its conditional norm, its projection, its hinge and its spectral norms, each against its definition."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from jlebm.errors import UserError
from jlebm.randomness import SharedNoise, generator
from reproduce.results.table_lines import BASELINES
from reproduce.systems.biggan import BigGAN, BigGANConfig, Discriminator, Generator
from reproduce.systems.normed import ConditionalBatchNorm

SMALL = BigGANConfig(
    (1, 8, 8),
    classes=3,
    latent_dim=6,
    embedding_dim=3,
    generator_channels=(4, 4),
    discriminator_channels=(4, 5),
    halvings=1,
    discriminator_steps=2,
)
DRAWS = torch.Generator().manual_seed(8)


class Stub(nn.Module):
    """A discriminator of an image's mean alone, which keeps what it was shown."""

    def __init__(self, weight: float, bias: float):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.tensor(weight)), nn.Parameter(torch.tensor(bias))
        self.shown: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, classes: Tensor) -> Tensor:
        """Return weight mean(x) + bias."""
        self.shown.append((x.detach(), classes))
        return self.weight * x.mean((1, 2, 3)) + self.bias


class Black(nn.Module):
    """A generator of images of zeros."""

    def forward(self, z: Tensor, classes: Tensor) -> Tensor:
        """Return images."""
        return z.new_zeros(len(z), *SMALL.image_shape)


def stubbed(weight: float, bias: float) -> BigGAN:
    system = BigGAN(SMALL)
    system.generator, system.discriminator = Black(), Stub(weight, bias)
    return system


def test_conditional_norm_is_batch_norm_with_each_image_its_own_gain() -> None:
    """Gains of another image, or statistics of one condition alone, would be another layer."""
    torch.manual_seed(1)
    layer = ConditionalBatchNorm(5, 7, momentum=0.1)
    layer.gain.eval()
    layer.bias.eval()
    x = 2 + 3 * torch.randn(6, 5, 4, 4, generator=DRAWS)
    condition = torch.randn(6, 7, generator=DRAWS)
    normalised = batch_norm(x, None, None, training=True)
    gain, bias = (condition @ each.weight.T for each in (layer.gain, layer.bias))
    expected = torch.stack(
        [one * (1 + gain[index, :, None, None]) + bias[index, :, None, None] for index, one in enumerate(normalised)]
    )
    torch.testing.assert_close(layer(x, condition), expected)
    assert layer.norm.running_mean is not None
    torch.testing.assert_close(layer.norm.running_mean, 0.1 * x.mean((0, 2, 3)))


def test_discriminator_projects_features_on_the_class() -> None:
    """Between two classes, an image's logits differ by the product of its features and the embeddings' difference."""
    torch.manual_seed(2)
    network = Discriminator(SMALL).eval()
    x = torch.randn(4, 1, 8, 8, generator=DRAWS)
    first, second = torch.zeros(4, dtype=torch.long), torch.full((4,), 2)
    table = network.embedding.weight
    expected = network.features(x) @ (table[2] - table[0])
    torch.testing.assert_close(network(x, second) - network(x, first), expected)
    assert expected.abs().min() > 1e-4


@pytest.mark.parametrize(
    ("weight", "bias", "loss"),
    [(3.0, -2.0, 0.0), (0.0, 0.0, 2.0), (-1.0, 0.5, 3.0), (0.0, 4.0, 5.0)],
    ids=["both beyond their margins", "indifferent", "wrong on both", "wrong on samples"],
)
def test_loss_is_the_hinge(weight: float, bias: float, loss: float) -> None:
    """max(0, 1 - D(x)) + max(0, 1 + D(G(z))) for the discriminator, -D(G(z)) for the generator."""
    system = stubbed(weight, bias)
    turns = list(
        system.turns(torch.ones(4, 1, 8, 8), torch.tensor([0, 1, 2, 1]), SharedNoise(generator("sample", 1)), 0)
    )
    assert [turn.part for turn in turns] == ["discriminator", "discriminator", "generator"]
    assert [float(turn.loss.detach()) for turn in turns] == [loss, loss, -bias]


def test_discriminator_moves_share_the_batch_with_its_classes() -> None:
    """Images that are seen twice in a step, or beside another's class, break this."""
    system = stubbed(1.0, 0.0)
    x, labels = torch.randn(6, 1, 8, 8, generator=DRAWS), torch.tensor([0, 1, 2, 2, 1, 0])
    list(system.turns(x, labels, SharedNoise(generator("sample", 1)), 0))
    data = system.discriminator.shown[0:4:2]
    assert torch.equal(torch.cat([images for images, _ in data]), x)
    assert torch.equal(torch.cat([classes for _, classes in data]), labels)


def test_weights_have_spectral_norm_one() -> None:
    """A convolution, linear layer or embedding that was forgotten keeps the norm of its parameters."""
    torch.manual_seed(3)
    system = BigGAN(SMALL)
    kinds = (nn.Conv2d, nn.Linear, nn.Embedding)
    plain = {
        name
        for name, each in system.named_modules()
        if isinstance(each, kinds) and not hasattr(each, "parametrizations")
    }
    assert plain == {"generator.embedding"}
    for module in (each for each in system.modules() if isinstance(each, kinds) and hasattr(each, "parametrizations")):
        with torch.no_grad():
            module.parametrizations.weight.original.mul_(3).add_(0.3)
            for _ in range(100):  # of a power iteration each
                weight = module.weight
        assert float(torch.linalg.matrix_norm(weight.flatten(1), 2)) == pytest.approx(1, rel=1e-3)


def test_an_image_is_of_its_class_and_the_row_says_so() -> None:
    """A generator that forgets the class would be an unconditional one under a conditional name."""
    torch.manual_seed(4)
    network = Generator(SMALL).eval()
    z = torch.randn(1, 6, generator=DRAWS).expand(3, -1)
    images = network(z, torch.arange(3))
    assert (images[0] - images[1]).abs().max() > 1e-3
    (row,) = (system for system in BASELINES if system.name == "biggan")
    assert row.conditional
    with pytest.raises(UserError, match="classes"):
        next(BigGAN(SMALL).turns(torch.zeros(2, 1, 8, 8), None, SharedNoise(generator("sample", 1)), 0))


def test_sizes_that_do_not_fit_are_refused() -> None:
    """Bad input is one sentence before anything is built."""
    with pytest.raises(UserError, match="chunks"):
        BigGANConfig(latent_dim=7)
    with pytest.raises(UserError, match="halvings"):
        BigGANConfig(halvings=5)
    with pytest.raises(UserError, match="norm_momentum"):
        BigGANConfig(norm_momentum=0.0)
    with pytest.raises(UserError, match="divisible"):
        BigGANConfig((3, 20, 20))
