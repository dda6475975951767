"""What makes pixels a density: each sees only those before it, and all probabilities together are one."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from jlebm.errors import UserError
from jlebm.randomness import PerImageNoise, SharedNoise
from reproduce.systems.levels import from_levels
from reproduce.systems.pixelcnn import Network, PixelCNN, PixelCNNConfig, chosen

SMALL = PixelCNNConfig((3, 5, 6), channels=6, layers=3, first_reach=2, hidden=7, bits=3)


def network(config: PixelCNNConfig = SMALL) -> Network:
    """Return random weights in float64, large enough for every input to matter."""
    torch.manual_seed(0)
    made = Network(config).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(2)
    return made


def images(count: int, config: PixelCNNConfig = SMALL) -> Tensor:
    """Return random levels as images in float64."""
    generator = torch.Generator().manual_seed(1)
    levels = torch.randint(0, 2**config.bits, (count, *config.image_shape), generator=generator)
    return from_levels(levels, config.bits).double()


def test_logits_depend_on_what_comes_before_and_on_all_of_it() -> None:
    """By gradient, at every position and colour: none from later ones, and no blind spot within the reach.

    A mask that is off by one, a padding on the wrong side or a stack that loses the pixels above and to the right
    breaks this.
    """
    colours, height, width = SMALL.image_shape
    made, x = network(), images(1).requires_grad_()
    logits = made(x)
    order = {key: index for index, key in enumerate(itertools.product(range(height), range(width), range(colours)))}
    for (row, column, colour), index in order.items():
        value = logits[0, :, colour, row, column].square().sum()
        (gradient,) = torch.autograd.grad(value, x, retain_graph=True)
        for (other_row, other_column, other_colour), other in order.items():
            reached = float(gradient[0, other_colour, other_row, other_column].abs())
            if other >= index:
                assert reached == 0, (row, column, colour, other_row, other_column, other_colour)
            elif row - other_row <= 2 and abs(column - other_column) <= 2:
                assert reached > 0, (row, column, colour, other_row, other_column, other_colour)


@pytest.mark.parametrize("shape", [(1, 2, 3), (3, 1, 2)])
@torch.no_grad()
def test_probabilities_of_all_images_sum_to_one(shape: tuple[int, int, int]) -> None:
    """Over all 64 images of two levels; a position or colour that sees itself breaks this."""
    config = PixelCNNConfig(shape, channels=6, layers=2, first_reach=2, hidden=7, bits=1)
    system = PixelCNN(config)
    system.network = network(config)
    every = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=math.prod(shape)))).double().reshape(-1, *shape)
    log_prob = system.log_prob(every)
    assert log_prob.std() > 0.1
    torch.testing.assert_close(torch.logsumexp(log_prob, 0), torch.zeros(()).double(), atol=1e-12, rtol=0)


@torch.no_grad()
def test_cached_sampling_is_naive_sampling() -> None:
    """Level by level the images that whole passes of the network give for the same uniform noise.

    A cache that is read a row or a column off, or from the row before, breaks this.
    """
    made = network()
    u = torch.rand(4, *SMALL.image_shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = torch.zeros_like(u)
    colours, height, width = SMALL.image_shape
    for row, column, colour in itertools.product(range(height), range(width), range(colours)):
        level = chosen(made(x)[:, :, colour, row, column], u[:, colour, row, column])
        x[:, colour, row, column] = from_levels(level, SMALL.bits)
    assert torch.equal(made.sampled(u), x)
    assert len(x.unique()) > 4


def test_levels_are_chosen_by_their_probabilities() -> None:
    """The share of u between two cumulative probabilities is the level's; an off-by-one in the sum breaks this."""
    probabilities = torch.tensor([0.1, 0.0, 0.6, 0.3], dtype=torch.float64)
    u = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    levels = chosen(probabilities.log().expand(1000, -1), u)
    assert torch.bincount(levels, minlength=4).tolist() == [100, 0, 600, 300]
    assert chosen(probabilities.log()[None], torch.ones(1).double()).tolist() == [3]


@torch.no_grad()
def test_the_loss_is_the_bits_of_a_dimension() -> None:
    """A network that knows nothing needs as many bits as a level has; with what it knows, the mean of log p says it."""
    system = PixelCNN(SMALL)
    for head in system.network.heads:
        last = head[-1]
        last.weight.zero_()
        last.bias.zero_()
    x = images(2).float()
    (turn,) = system.turns(x, None, SharedNoise(torch.Generator().manual_seed(0)), 0)
    torch.testing.assert_close(turn.loss, torch.tensor(float(SMALL.bits)))
    system.network = network()
    x = images(3)
    bits = -system.log_prob(x).mean() / math.log(2) / x[0].numel()
    mirrored = -system.log_prob(x.flip(3)).mean() / math.log(2) / x[0].numel()
    system.config = PixelCNNConfig(SMALL.image_shape, bits=SMALL.bits, flip=False)
    (turn,) = system.turns(x, None, SharedNoise(torch.Generator().manual_seed(0)), 0)
    torch.testing.assert_close(turn.figures["bits_per_dim"], bits)
    assert (bits - mirrored).abs() > 1e-4


def test_images_are_levels() -> None:
    """What is sampled has the 2^bits colours that the likelihood is of, and no others."""
    torch.manual_seed(0)
    drawn = PixelCNN(SMALL).draw(6, PerImageNoise("sample", range(6)))
    torch.testing.assert_close(drawn.unique(), from_levels(torch.arange(8), 3))


def test_a_network_of_nothing_is_refused() -> None:
    """The message names the keys."""
    with pytest.raises(UserError, match="must all be positive"):
        PixelCNNConfig(layers=0)
    with pytest.raises(UserError, match="bits"):
        PixelCNNConfig(bits=9)
