"""The parts that a user waits for, each beside its plain implementation and held to it before its time is taken."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from bench.plain import Plain
from jlebm.errors import UserError
from jlebm.evaluation import inception
from jlebm.evaluation.extractor import find_extractor, unchanged_module
from jlebm.experiment import Experiment
from jlebm.images import to_float
from jlebm.langevin import Chain
from jlebm.latents import Latents
from jlebm.learning.joint_mle import JointMLE
from jlebm.learning.prepare import scheme
from jlebm.model import JointModel
from jlebm.randomness import SharedNoise
from jlebm.sampling import generate
from jlebm.training import Batches, initial_state

EXACT = 1e-10  # largest relative difference in float64 with the same noise
FEATURES = 1e-4  # the budget that torch-fidelity declares for its float32 features
SEED = 1


@dataclass(frozen=True)
class Part:
    """One line of the benchmark before its numbers."""

    metric: str
    setting: str
    plain: Callable[[], object]
    ours: Callable[[], object]
    agreement: Callable[[], float]
    """Computes both results once and returns their largest relative difference."""
    limit: float
    goal: dict[str, float]
    """The ratio that is aimed at, by type of device."""
    counted: Callable[[], object] | None
    """What the floor's operations are counted in, no more than `ours` does; None where arithmetic is no bound."""
    times: float = 1.0
    """How many times `counted` the floor is."""
    bound: str = ""
    """What bounds it on a CPU, where that is known."""
    images: int = 0
    """Images of an iteration from which the paper's whole training is extrapolated; 0 for none."""


def parts(
    experiment: Experiment, size: str, device: torch.device, few: int, count: int, whole: bool = False
) -> Iterator[Part]:
    """Yield the parts of the joint training of one experiment.

    Args:
        experiment: joint maximum likelihood on a two-layer model.
        size: the words for it, "the paper's sizes".
        device: where to compute.
        few: the batch of whole iterations; a CPU takes minutes for one of the paper's 100 images.
        count: how many images are sampled.
        whole: whether these are the sizes from which the paper's whole training is extrapolated.
    """
    batch = experiment.training.batch_size
    state = initial_state(experiment, SEED, device)
    model, plain = state.model, Plain(state.model)
    double = copy.deepcopy(model).double()
    plain_double = Plain(double)
    chains = experiment.prior_chain, experiment.posterior_chain
    learning = scheme(experiment)
    assert isinstance(learning, JointMLE)

    def images(count: int, like: JointModel = model) -> Tensor:
        shape = (count, *experiment.model.image_shape)
        return torch.rand(shape, generator=torch.Generator().manual_seed(2)).to(next(like.parameters())) * 2 - 1

    def prior_of(of: JointModel, count: int) -> Latents:
        return of.sample_prior(count, chains[0], noise(device))

    yield Part(
        "prior chain",
        f"{chains[0].steps} steps, batch {batch}, {size}",
        lambda: plain.chain(start(model, batch, device), chains[0], noise(device)),
        lambda: model.sample_prior(batch, chains[0], noise(device)),
        lambda: relative(
            prior_of(double, batch),
            (lambda n: plain_double.chain(plain_double.start(batch, n), chains[0], n))(noise(device)),
        ),
        EXACT,
        {"cpu": 2.0, "cuda": 5.0},
        lambda: model.sample_prior(batch, chains[0], noise(device)),
        bound="matrix products of a hundred rows, and the noise",
    )

    one_step = Chain(1, chains[1].epsilon)
    few_steps = Chain(3, chains[1].epsilon)
    x, pair = images(batch), images(2, double)
    yield Part(
        "posterior step",
        f"batch {batch}, {size}",
        lambda: plain.chain(start(model, batch, device), one_step, noise(device), x),
        lambda: model.sample_posterior(x, one_step, noise(device)),
        lambda: relative(
            double.sample_posterior(pair, few_steps, noise(device)),
            (lambda n: plain_double.chain(plain_double.start(2, n), few_steps, n, pair))(noise(device)),
        ),
        EXACT,
        {"cpu": 1.2, "cuda": 1.5},
        lambda: model.sample_posterior(x[:1], one_step, noise(device)),
        times=batch,
        bound="the two large transposed convolutions, which both leave to the same library of torch",
    )

    some = images(few)

    def iterate(on: JointModel, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
        update = learning.update(on, x, noise(device))
        optimizer.zero_grad(set_to_none=True)
        update.loss().backward()
        optimizer.step()

    yield Part(
        "training iteration",
        f"{chains[0].steps} prior and {chains[1].steps} posterior steps and the update, batch {few}, {size}",
        lambda: plain.iteration(some, *chains, noise(device)),
        lambda: iterate(model, state.optimisation.optimizer, some),
        lambda: gradients_agree(double, plain_double, pair, learning),
        EXACT,
        {"cpu": 1.2, "cuda": 2.0},
        lambda: iterate(model, state.optimisation.optimizer, some),
        bound="the posterior chain",
        images=few if whole else 0,
    )

    yield Part(
        "sampling",
        f"{count} images of the EBM prior, {size}",
        lambda: plain.sample(count, chains[0], noise(device), batch=min(100, count)),
        lambda: list(generate(model, "ebm-prior", range(count), chains[0])),
        lambda: images_agree(double, plain_double, chains[0], device),
        EXACT,
        {"cpu": 1.3, "cuda": 20.0},
        lambda: list(generate(model, "ebm-prior", range(1), chains[0])),
        times=count,
        bound="the decoder, and the noise of a generator for each image",
    )


def data_part(device: torch.device) -> Part:
    """Return the way of a batch of 100 images into the loop: the device's uint8, or torch's loader from PIL images."""
    images = np.random.default_rng(0).integers(0, 256, (1000, 3, 32, 32), dtype=np.uint8)
    half = [0.5] * 3
    transform = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(half, half)])
    to_pil = v2.ToPILImage()

    class Images(Dataset):
        """As torchvision's own datasets do it: an array, a PIL image of it, the transforms."""

        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> Tensor:
            return transform(to_pil(torch.from_numpy(images[index])))

    batches = Batches(images, 100, SEED, device)
    loader = DataLoader(Images(), 100, shuffle=True)

    def agreement() -> float:
        theirs = torch.stack([Images()[index] for index in range(100)])
        return relative((to_float(torch.from_numpy(images[:100])),), (theirs,))

    return Part(
        "ten batches of training images",
        "10 x 100 of 32x32",
        lambda: [batch.to(device) for batch in loader],
        lambda: [batches(step) for step in range(10)],
        agreement,
        1e-6,  # float32 of numbers that both compute exactly but for the last digit
        {},
        None,
    )


def inception_part(root: Path, device: torch.device) -> Part:
    """Return the metric network: ours, and torch-fidelity's module as it is, at the batch size of its own default.

    Raises:
        ExtractorNotFound: there are no weights in the data root.
    """
    extractor = find_extractor(root, download=False)
    layer = extractor.layers[-1] if extractor.layers[-1] in ("64", "192", "768") else "2048"
    network = inception.open_network(extractor, (layer,), device)
    module = unchanged_module(extractor, (layer,)).to(device)
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 32, 32), dtype=np.uint8)

    def plain() -> Tensor:
        with torch.inference_mode():
            return module(torch.from_numpy(images).to(device))[0]

    def counted() -> Tensor:
        # The same convolutions on this thread; in inference mode they would not be seen as the operations that count.
        with torch.no_grad():
            return module(torch.from_numpy(images).to(device))[0]

    def ours() -> Tensor:
        return torch.cat([features[layer] for _, features in inception.features_of(network, images)])

    return Part(
        f"Inception, {layer} features",
        "64 images of 32x32",
        plain,
        ours,
        lambda: relative((ours(),), (plain(),)),
        FEATURES,
        {"cpu": 1.5},
        counted,
        bound="the convolutions' arithmetic",
    )


def noise(device: torch.device) -> SharedNoise:
    """Return the same stream of noise at every call."""
    return SharedNoise(torch.Generator(device).manual_seed(SEED))


def start(model: JointModel, count: int, device: torch.device) -> Latents:
    """Return N(0, I) in both layers."""
    return model.noise(count, noise(device))


def relative(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> float:
    """Return the largest difference of any entry, relative to the largest entry of its tensor."""
    pairs = zip(ours, theirs, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=torch.finfo(b.dtype).tiny)) for a, b in pairs)


def gradients_agree(model: JointModel, plain: Plain, x: Tensor, learning: JointMLE) -> float:
    """Compare the gradients of one update, chains of both included, of every weight."""
    short = JointMLE(learning.prior_chain, Chain(3, learning.posterior_chain.epsilon))
    model.zero_grad(set_to_none=True)
    short.update(model, x, noise(x.device)).loss().backward()
    stream = noise(x.device)
    prior = plain.chain(plain.start(len(x), stream), short.prior_chain, stream)
    posterior = plain.chain(plain.start(len(x), stream), short.posterior_chain, stream, x)
    plain.gradients(x, posterior, prior)
    backbone = model.backbone
    networks = (backbone.generator, backbone.conditionals[0], *reversed(model.energy.networks))  # pyright: ignore
    return relative(_gradients(networks), _gradients(plain.networks))


def _gradients(networks: Iterable[nn.Module]) -> tuple[Tensor, ...]:
    found = [parameter.grad for network in networks for parameter in network.parameters()]
    assert all(gradient is not None for gradient in found)
    return tuple(gradient for gradient in found if gradient is not None)


def images_agree(model: JointModel, plain: Plain, chain: Chain, device: torch.device) -> float:
    """Compare decoded samples, before they are rounded to uint8, of a few chains with the same noise."""
    latents = model.sample_prior(4, chain, noise(device))
    stream = noise(device)
    _, z1 = plain.chain(plain.start(4, stream), chain, stream)
    with torch.no_grad():
        return relative((model.backbone.decode(latents).mean,), (plain.generator(z1),))


def held(part: Part) -> float:
    """Return how far both results are apart.

    Raises:
        UserError: farther than the part allows: a time of it would mean nothing.
    """
    found = part.agreement()
    if not found <= part.limit or math.isnan(found):
        raise UserError(
            f"{part.metric}: ours and the plain implementation differ by {found:.1e} relative, more than "
            f"{part.limit:g}; nothing is timed that is not the same computation"
        )
    return found
