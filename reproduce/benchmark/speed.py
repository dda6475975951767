"""Parts of joint training and sampling, each with its plain implementation."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from jlebm.engines.precision import Precision, arithmetic, convolutions, precision_of
from jlebm.experiment import Experiment
from jlebm.langevin import Chain
from jlebm.latents import Latents
from jlebm.learning.joint_mle import JointMLE
from jlebm.model import JointModel
from jlebm.sampling import Sampler, generate
from jlebm.training import initial_state
from reproduce.benchmark.part import EXACT, SEED, Part, noise, relative, steps_of
from reproduce.benchmark.plain import Plain


@dataclass(frozen=True)
class Workload:
    """Joint training and sampling of one experiment, at sizes that a device can time."""

    experiment: Experiment
    """Joint maximum likelihood on a two-layer model."""
    size: str
    """Description of the sizes: "the paper's sizes"."""
    few: int
    """Batch size of whole iterations; with the paper's 100 images, one takes minutes on a CPU."""
    count: int
    """Number of images sampled."""
    steps: int = 1
    """Steps of the posterior chain; more than one on a GPU, where preparing a chain costs the host time."""
    whole: bool = False
    """Whether the paper's whole training is extrapolated from these sizes."""
    iteration_goal: float = 2.0
    """Ratio that an iteration is to reach on a CPU."""

    @property
    def batch(self) -> int:
        """Batch size of the chains."""
        return self.experiment.training.batch_size

    @property
    def precision(self) -> Precision:
        """Arithmetic of the generator."""
        return precision_of(self.experiment.model)

    def settings(self) -> dict[str, str]:
        """Return the setting of each part by its metric; the prior's chain is timed in float32 only."""
        one, size = self.experiment, self.size if self.precision == "float32" else f"{self.size}, {self.precision}"
        prior, posterior, batch = one.prior_chain.steps, one.posterior_chain.steps, self.batch
        chain = {"prior chain": f"{prior} steps, batch {batch}, {size}"} if self.precision == "float32" else {}
        iteration = f"{prior} prior and {posterior} posterior steps and the update, batch {self.few}, {size}"
        return chain | {
            "posterior step": f"{steps_of(self.steps)}batch {batch}, {size}",
            "training iteration": iteration,
            "sampling": f"{self.count} images of the EBM prior, {size}",
        }

    def whole_training(self) -> str | None:
        """Return the setting of the training extrapolated from an iteration; None if there is none."""
        training = self.experiment.training
        arithmetic = "" if self.precision == "float32" else f", {self.precision}"
        said = f"{training.steps} iterations of {training.batch_size} images, from one of {self.few}{arithmetic}"
        return said if self.whole else None


def parts(workload: Workload, device: torch.device) -> Iterator[Part]:
    """Yield the parts of one experiment's joint training that have a setting.

    Plain runs in full float32 if ours does; otherwise with torch's default, TF32 in convolutions, as the released code
    would on such a GPU.
    """
    settings = workload.settings()
    for part in _parts(workload, device):
        if part.metric in settings:
            yield replace(part, setting=settings[part.metric], precision=workload.precision)


def _parts(workload: Workload, device: torch.device) -> Iterator[Part]:
    experiment, few, count = workload.experiment, workload.few, workload.count
    batch = workload.batch
    by_default = nullcontext if workload.precision == "float32" else _torchs_default
    state = initial_state(experiment, SEED, device)
    model, plain = state.model, Plain(state.model)
    double = copy.deepcopy(model).double()
    plain_double = Plain(double)
    chains = experiment.prior_chain, experiment.posterior_chain
    learning = experiment.scheme()
    assert isinstance(learning, JointMLE)

    def images(count: int, like: JointModel = model) -> Tensor:
        shape = (count, *experiment.model.image_shape)
        return torch.rand(shape, generator=torch.Generator().manual_seed(2)).to(next(like.parameters())) * 2 - 1

    def prior_of(of: JointModel, count: int) -> Latents:
        return of.sample_prior(count, chains[0], noise(device))

    yield Part(
        "prior chain",
        "",
        lambda: plain.chain(start(model, batch, device), chains[0], noise(device)),
        lambda: model.sample_prior(batch, chains[0], noise(device)),
        lambda: relative(
            prior_of(double, batch),
            (lambda n: plain_double.chain(plain_double.start(batch, n), chains[0], n))(noise(device)),
        ),
        EXACT,
        {"cpu": 2.5, "cuda": 5.0},
        lambda: model.sample_prior(batch, chains[0], noise(device)),
        bound="matrix products of few rows, which are two thirds of it, and the noise",
    )

    some_steps, one_step = (Chain(steps, chains[1].epsilon) for steps in (workload.steps, 1))
    few_steps = Chain(3, chains[1].epsilon)
    x, pair = images(batch), images(2, double)

    def plain_step() -> None:
        with by_default():
            plain.chain(start(model, batch, device), some_steps, noise(device), x)

    yield Part(
        "posterior step",
        "",
        plain_step,
        lambda: model.sample_posterior(x, some_steps, noise(device)),
        lambda: relative(
            double.sample_posterior(pair, few_steps, noise(device)),
            (lambda n: plain_double.chain(plain_double.start(2, n), few_steps, n, pair))(noise(device)),
        ),
        EXACT,
        {"cpu": 1.2, "cuda, tf32": 1.5, "cuda, bf16": 2.5},
        lambda: model.sample_posterior(x[:1], one_step, noise(device)),
        times=batch * workload.steps,
        bound="transposed convolutions of torch's library, which plain takes as well",
    )

    some = images(few)

    def iterate(on: JointModel, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
        with arithmetic(on.backbone):
            update = learning.update(on, x, noise(device))
            optimizer.zero_grad(set_to_none=True)
            update.loss().backward()
            optimizer.step()

    def plain_iteration() -> None:
        with by_default():
            plain.iteration(some, (chains[1], chains[0]), (noise(device), noise(device)))

    yield Part(
        "training iteration",
        "",
        plain_iteration,
        lambda: iterate(model, state.optimisation.optimizer, some),
        lambda: gradients_agree(double, plain_double, pair, learning),
        EXACT,
        {"cpu": workload.iteration_goal, "cuda, tf32": 2.0, "cuda, bf16": 3.0},
        lambda: iterate(model, state.optimisation.optimizer, some),
        bound="the posterior chain's transposed convolutions, of torch's library as in plain",
        whole=workload.whole_training(),
        iterations=experiment.training.steps * batch / few,
    )

    def plain_samples() -> None:
        with by_default():
            plain.sample(count, chains[0], noise(device), batch=min(100, count))

    yield Part(
        "sampling",
        "",
        plain_samples,
        lambda: list(generate(model, "ebm-prior", range(count), Sampler(chains[0]))),
        lambda: images_agree(double, plain_double, chains[0], device),
        EXACT,
        {"cpu": 3.0, "cuda": 20.0, "cuda, tf32": 20.0, "cuda, bf16": 20.0},
        lambda: list(generate(model, "ebm-prior", range(1), Sampler(chains[0]))),
        times=count,
        bound="the decoder's convolutions, of torch's library as in plain, and the chain's matrix products",
    )


@contextmanager
def _torchs_default() -> Iterator[None]:
    """Let convolutions use TF32, torch's default."""
    with convolutions(tf32=True):
        yield


def start(model: JointModel, count: int, device: torch.device) -> Latents:
    """Return N(0, I) in both layers."""
    return model.noise(count, noise(device))


def gradients_agree(model: JointModel, plain: Plain, x: Tensor, learning: JointMLE) -> float:
    """Return the largest relative difference of any weight's gradient in one update, both chains included."""
    short = JointMLE(learning.prior_chain, Chain(3, learning.posterior_chain.epsilon))
    model.zero_grad(set_to_none=True)
    short.update(model, x, noise(x.device)).loss().backward()
    # Ours draws the prior's chain first, all from one stream: the posterior's noise is what follows in that stream.
    of_prior, of_posterior = noise(x.device), noise(x.device)
    for _ in range(1 + short.prior_chain.steps):
        plain.start(len(x), of_posterior)
    posterior, prior = plain.samples(x, (short.posterior_chain, short.prior_chain), (of_posterior, of_prior))
    plain.gradients(x, posterior, prior)
    backbone = model.backbone
    networks = (backbone.generator, backbone.conditionals[0], *reversed(model.energy.networks))  # pyright: ignore
    return relative(_gradients(networks), _gradients(plain.networks))


def _gradients(networks: Iterable[nn.Module]) -> tuple[Tensor, ...]:
    found = [parameter.grad for network in networks for parameter in network.parameters()]
    assert all(gradient is not None for gradient in found)
    return tuple(gradient for gradient in found if gradient is not None)


def images_agree(model: JointModel, plain: Plain, chain: Chain, device: torch.device) -> float:
    """Return the largest relative difference of decoded samples, before rounding, with the same noise."""
    latents = model.sample_prior(4, chain, noise(device))
    stream = noise(device)
    _, z1 = plain.chain(plain.start(4, stream), chain, stream)
    with torch.no_grad():
        return relative((model.backbone.decode(latents).mean,), (plain.generator(z1),))
