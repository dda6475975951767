"""Compare what a device computes with what a CPU computes: arithmetic, recorded chains, noise, training."""

import copy
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jlebm import langevin, philox, sampling
from jlebm.backbones.conv import ConvBackbone, ConvConfig
from jlebm.backbones.ladder import LadderBackbone, LadderConfig
from jlebm.backbones.nvae import NVAE, NVAEConfig, frozen_copy
from jlebm.densities import LogDensity, Posterior, PriorInLatents, PriorInNoise
from jlebm.energies import conv_energy, mlp_energy
from jlebm.engines import graphs
from jlebm.engines.precision import Precision, arithmetic
from jlebm.experiment import Experiment, OptimizerConfig
from jlebm.langevin import Chain
from jlebm.latents import Latents
from jlebm.learning.trainable import TrainingConfig
from jlebm.model import JointModel
from jlebm.randomness import SCHEMES, SharedNoise, image_noise, role_word
from jlebm.run import open_run
from jlebm.sampling import Sampler
from jlebm.training import Batches, LoopControl, TrainState, fit, initial_state

BATCH = 3
CHAIN = Chain(12, 0.02)
BUSY = 20_000_000  # cycles of a GPU that has other work
VECTORS = ConvConfig((1, 8, 8), (3, 4), channels=(6, 5), conditional_hidden=(8,))
RUNGS = LadderConfig((1, 8, 8), (2, 3, 4), channels=(6, 5), conditional_hidden=(7,), features=9)
MAPS = NVAEConfig(16, 4, 4, 1, 2, 2, 1, 1, 1, 1, num_mixture_dec=1)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
TRAINED = Experiment(
    protocol="gpu-check/1",
    preset="small",
    dataset="noise",
    model=VECTORS,
    energy_hidden=((6,), (6, 6)),
    prior_chain=Chain.from_joint_paper(4, 0.4),
    posterior_chain=Chain.from_joint_paper(3, 0.1),
    optimizer=OptimizerConfig(1e-3, 1e-3, energy_l2=1e-3, ema_decay=0.9),
    training=TrainingConfig(steps=24, batch_size=5),
)


class Finding(NamedTuple):
    """One thing that was checked."""

    ok: bool
    what: str
    detail: str = ""


class Arithmetic(NamedTuple):
    """A backbone that asks for an arithmetic."""

    precision: Precision


class FromCPU(SharedNoise):
    """The numbers of a CPU's generator, on any device."""

    def _draw(self, layer: Tensor) -> Tensor:
        return torch.randn(layer.shape, generator=self.generator).to(layer)


def noise(seed: int = 5) -> FromCPU:
    """Return noise that is the same on every device."""
    return FromCPU(torch.Generator().manual_seed(seed))


def apart(found: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    """Return the largest difference, relative to the largest entry of its tensor."""
    pairs = ((a.double().cpu(), b.double().cpu()) for a, b in zip(found, right, strict=True))
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) for a, b in pairs)


def arithmetic_is_what_is_asked(device: torch.device) -> Iterator[Finding]:
    """Products and transposed convolutions in float32, TF32 and bf16: each has the error of its own rounding."""
    generator = torch.Generator().manual_seed(0)
    a, x, w = (
        torch.randn(shape, generator=generator).to(device) for shape in ((512, 512), (4, 64, 16, 16), (64, 32, 4, 4))
    )
    error = apart((a @ a,), (a.double() @ a.double(),))
    yield Finding(error < 5e-6, "float32 products are float32", f"{error:.1e}")
    right = F.conv_transpose2d(x.double(), w.double(), None, 2, 1)
    bounds: dict[Precision, tuple[float, float]] = {"float32": (0, 5e-6), "tf32": (1e-5, 5e-3), "bf16": (5e-4, 5e-2)}
    for precision, (least, most) in bounds.items():
        if precision == "tf32" and device.type != "cuda":
            yield Finding(True, "TF32 convolutions: skipped, a CPU has none")
            continue
        autocast = torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
        with arithmetic(Arithmetic(precision)), autocast:
            error = apart((F.conv_transpose2d(x, w, None, 2, 1),), (right,))
        yield Finding(least <= error < most, f"{precision} convolutions are {precision}", f"{error:.1e}")


# ---- recorded chains


def vectors() -> JointModel:
    """Return a two-layer model."""
    return JointModel(ConvBackbone(VECTORS), mlp_energy((3, 4), ((6,), (6, 6))))


def _ladder() -> JointModel:
    return JointModel(LadderBackbone(RUNGS), mlp_energy((2, 3, 4), ((6,), (6,), (6, 6))))


def _maps() -> JointModel:
    network = frozen_copy(NVAE(MAPS).eval())
    return JointModel(network, conv_energy(network.latent_shapes, 4, 6))


def prior(model: JointModel) -> PriorInLatents:
    """Return the density of latents."""
    return PriorInLatents(model.backbone, model.energy)


def _posterior(model: JointModel) -> Posterior:
    x = torch.rand(BATCH, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Posterior(model.backbone, model.energy, x.to(next(model.parameters())))


DENSITIES: dict[str, tuple[Callable[[], JointModel], Callable[[JointModel], LogDensity]]] = {
    "prior, gradient written out": (vectors, prior),
    "prior, by autograd": (_ladder, prior),
    "posterior": (vectors, _posterior),
    "posterior of a ladder": (_ladder, _posterior),
    "noise of a deep hierarchy": (_maps, lambda model: PriorInNoise(model.backbone, model.energy)),
    "released drift": (_maps, lambda model: PriorInNoise(model.backbone, model.energy, "released")),
}


def run(model: JointModel, density: LogDensity) -> Latents:
    """Run a chain with noise that is always the same."""
    return langevin.run(model.noise(BATCH, noise()), density, CHAIN, noise(6))


def recordings_are_their_steps(device: torch.device) -> Iterator[Finding]:
    """Compare recorded chains with stepwise ones, in float64 and float32, also after the weights have changed."""
    for name, (make, density_of) in DENSITIES.items():
        torch.manual_seed(0)
        for dtype, limit in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
            model = make().to(device, dtype)
            density, errors = density_of(model), []
            for _ in range(2):
                recorded = run(model, density)
                with graphs.step_by_step():
                    errors.append(apart(recorded, run(model, density)))
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter.mul_(1.1)
            kind = str(dtype).removeprefix("torch.")
            yield Finding(max(errors) < limit, f"{name}, {kind}: recorded = stepwise", f"{max(errors):.1e}")
    yield Finding(not graphs.given_up(), "no recording was given up")


def recordings_outlive_others(device: torch.device) -> Iterator[Finding]:
    """Check that an old recording gives the same bits after others have gone, and writes in its own memory alone.

    A workspace of the matrix library that is shared by recordings and freed with the first of them would show here.
    """
    graphs.forget()
    full = device.type == "cuda"
    width = 100 if full else 20
    config = ConvConfig(latent_dims=(width, width), channels=(8, 8, 8))
    model = JointModel(ConvBackbone(config), mlp_energy((width, width), ((width,), (width, width)))).to(device)

    def chain(on: JointModel, batch: int) -> Latents:
        return langevin.run(on.noise(batch, noise(1)), prior(on), Chain(20, 1e-3), noise(2))

    others = [copy.deepcopy(model) for _ in range(2)]
    chain(others[0], 100)  # the first owner of whatever is shared
    right = chain(model, 100)
    for batch in (10, 20, 30, 40):
        chain(model, batch)
        chain(model, 100)
    del others[0]
    chain(others[0], 64)  # the first owner is gone, and a new recording empties the allocator's cache
    sentinels = [torch.full((2**20,), 7.0, device=device) for _ in range(200 if full else 4)]
    again = chain(model, 100)
    yield Finding(apart(again, right) == 0, "a recording gives the same bits after others have gone")
    intact = all(bool((each == 7).all()) for each in sentinels)
    yield Finding(intact and not graphs.given_up(), "a recording writes in its own memory alone")


# ---- noise


def noise_is_the_cpus(device: torch.device) -> Iterator[Finding]:
    """Check both schemes of noise to the bit behind a busy queue; images of other batches and of a CPU to one level."""
    here = (torch.empty(64, 100, device=device), torch.empty(64, 128, device=device))
    there = tuple(torch.empty_like(layer, device="cpu") for layer in here)
    for scheme in SCHEMES:
        ours, theirs = (image_noise("sample", range(64), scheme) for _ in range(2))
        same = True
        for _ in range(20):
            if device.type == "cuda":
                torch.cuda._sleep(BUSY)
            same &= all(torch.equal(a.cpu(), b) for a, b in zip(ours(here), theirs(there), strict=True))
        yield Finding(same, f"noise {scheme} has the bits of a CPU")
    if device.type == "cuda":
        seeds, word = torch.tensor([0, 7, philox.LARGEST_SEED], device=device), role_word("sample")
        by_torch = philox.by_operations(seeds, word, range(3), 1001)
        same = torch.equal(philox.normals(seeds, word, range(3), 1001), by_torch)
        found = "Triton's kernel" if philox.kernel(device) else "torch's operations, without a kernel"
        yield Finding(same, "noise philox/1 has the bits of torch's operations", found)
    torch.manual_seed(0)
    model = vectors().to(device)
    host = copy.deepcopy(model).cpu()
    for scheme in SCHEMES:
        sampler = Sampler(Chain.from_joint_paper(20, 0.1), noise=scheme)
        images = [
            sampling.gathered(sampling.generate(on, "ebm-prior", range(60), sampler, batch)).astype(int)
            for on, batch in ((model, 20), (model, 60), (host, 60))
        ]
        level = max(int(np.abs(images[0] - other).max()) for other in images[1:])
        yield Finding(level <= 1, f"images by {scheme} are those of other batches and of a CPU", f"{level} grey levels")


# ---- training


def training_is_the_cpus(device: torch.device) -> Iterator[Finding]:
    """Check that 24 updates end where a CPU's do with the same noise, and a resumed run where a whole one does."""
    ends = []
    for where in (torch.device("cpu"), device):
        state = initial_state(TRAINED, 1, where)
        _update(state, where)
        ends.append(_weights(state.learned))
    error = apart(ends[1], ends[0])
    yield Finding(error < 2e-3, "24 updates end where a CPU's do", f"{error:.1e}")
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for name, stops in (("whole", (None,)), ("stopped", (9, None))):
            for cut in stops:
                with open_run(Path(folder) / name, TRAINED, 1) as opened:
                    control = LoopControl(stop=lambda step, cut=cut: step == cut)
                    state = fit(opened, IMAGES, device, control)
            found.append(_weights(state.learned))
    error = apart(found[1], found[0])
    yield Finding(error < 1e-3, "a run that was stopped and resumed ends where a whole one does", f"{error:.1e}")


def _update(state: TrainState, device: torch.device) -> None:
    scheme, source = TRAINED.scheme(), noise(11)
    batches = Batches(IMAGES, TRAINED.training.batch_size, 1, device)
    for step in range(TRAINED.training.steps):
        with arithmetic(state.model.backbone):
            for update, moved in scheme.updates(state.model, batches(step), None, source, step):
                state.optimisation.optimizer.zero_grad(set_to_none=True)
                update.loss().backward(inputs=moved)
                state.move()
        state.end_step()


def _weights(learned: nn.Module) -> list[Tensor]:
    return [value for value in learned.state_dict().values() if value.is_floating_point()]


def smaller(config: NVAEConfig) -> NVAEConfig:
    """Return a hierarchy that a CPU evaluates in a moment, for a trial of the checks themselves."""
    return dataclasses.replace(config, num_channels_enc=8, num_channels_dec=8, num_groups_per_scale=2)
