"""The training loop of all learning schemes: resumable to the bit, guarded, within a wall-clock budget."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from jlebm import checkpoints, guard, resuming, sizes
from jlebm.backbones.protocol import Backbone
from jlebm.devices import layout, released, resolve_device, within_memory
from jlebm.energies import JointEnergy
from jlebm.engines import graphs, parallel, products
from jlebm.engines.precision import arithmetic
from jlebm.errors import UserError
from jlebm.images import to_float
from jlebm.learning.accumulation import ADVICE, in_parts, together
from jlebm.learning.scheme import Update
from jlebm.learning.trainable import LOG_EVERY, Optimisation, Trainable
from jlebm.model import JointModel
from jlebm.persistence import PersistentChains
from jlebm.progress import SILENT, Reporter
from jlebm.randomness import SharedNoise, derive_seed, generator
from jlebm.run import Run

LARGEST_COPY = 2**32  # bytes; a dataset up to this size is copied to the device, a larger one stays memory-mapped


@dataclass
class TrainState:
    """The state that a training step reads and writes."""

    model: Any
    """The whole model: a `JointModel`; in stage one a `RegularisedNVAE`; for another system a `System`."""
    learned: nn.Module
    """The part of the model that learns and is stored."""
    optimisation: Optimisation
    ema: AveragedModel | None
    noise: torch.Generator
    step: int = 0
    seconds: float = 0.0
    """Wall-clock time spent on the steps so far, over all processes."""
    multiplied_by: products.Library = products.MKL  # of a CPU's matrix products, from the first step to the last

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors and numbers."""
        schedule = self.optimisation.schedule
        return {
            "model": self.learned.state_dict(),
            "optimizer": self.optimisation.optimizer.state_dict(),
            "schedule": None if schedule is None else schedule.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "noise": self.noise.get_state(),
            "step": self.step,
            "seconds": self.seconds,
            **({} if self.chains is None else {"chains": self.chains.state_dict()}),
            **({} if self.multiplied_by == products.MKL else {"products": self.multiplied_by}),
        }

    @property
    def chains(self) -> PersistentChains | None:
        """The chains that training keeps between updates."""
        return self.model.chains if isinstance(self.model, JointModel) else None

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned, after checking every entry.

        Raises:
            UserError: an entry is missing or of another type or shape, or its noise is from another kind of device.
        """
        own = self.state_dict()
        kept = ["model", "noise", "step", "seconds"]
        kept += [name for name, value in (("ema", self.ema), ("chains", self.chains)) if value is not None]
        if missing := [name for name in own if name not in state]:
            raise resuming.unfit(f"it has no {missing[0]!r}")
        noise = state["noise"]
        if isinstance(noise, Tensor) and noise.dtype == own["noise"].dtype and noise.shape != own["noise"].shape:
            raise UserError(
                f"the checkpoint was written on another kind of device, whose noise a {self.noise.device.type.upper()} "
                "cannot continue; take the earlier --device, or another --runs"
            )
        for name in kept:
            resuming.compare(state[name], own[name], name)
        resuming.compare_optimizer(state["optimizer"], self.optimisation.optimizer)
        if self.optimisation.schedule is not None:
            resuming.compare_settings(state["schedule"], own["schedule"], "schedule")
        if type(state["step"]) is not int or state["step"] < 0 or not 0 <= state["seconds"] < math.inf:
            raise resuming.unfit(f"its step {state['step']} or its seconds {state['seconds']} are invalid")
        library = products.named(state.get("products", products.MKL), "the checkpoint's products")
        try:
            self.noise.set_state(noise)
        except RuntimeError as error:
            raise resuming.unfit("its noise is not the state of a random generator") from error
        self.learned.load_state_dict(state["model"])
        self.optimisation.optimizer.load_state_dict(state["optimizer"])
        if self.optimisation.schedule is not None:
            self.optimisation.schedule.load_state_dict(state["schedule"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        if self.chains is not None:
            self.chains.load_state_dict(state["chains"])
        self.step, self.seconds, self.multiplied_by = state["step"], state["seconds"], library

    def move(self) -> None:
        """Take an optimiser step; parameters without a gradient stay where they are."""
        limit = self.optimisation.largest_gradient
        if limit is not None:
            nn.utils.clip_grad_norm_(self.learned.parameters(), limit)
        self.optimisation.optimizer.step()

    def end_step(self) -> None:
        """End a training step: advance learning rates, moving average and step count."""
        if self.optimisation.schedule is not None:
            self.optimisation.schedule.step()
        if self.ema is not None:
            self.ema.update_parameters(self.learned)
        self.step += 1

    def evaluated_model(self) -> Any:
        """Return the model to evaluate: the moving average if there is one, else the current weights."""
        if self.ema is None:
            return self.model
        averaged = self.ema.module
        return averaged if self.learned is self.model else JointModel(self.model.backbone, cast(JointEnergy, averaged))

    def done(self, experiment: Trainable) -> bool:
        """Whether the last step was made or the budget is spent."""
        budget = experiment.training.budget_seconds
        return self.step >= experiment.training.steps or (budget is not None and self.seconds >= budget)


def initial_state(
    experiment: Trainable, seed: int, device: torch.device, backbone: Backbone | None = None
) -> TrainState:
    """Build the state before the first step; torch's global generator is left unchanged.

    Raises:
        UserError: the model is larger than the device's memory.
    """
    sizes.refuse_what_does_not_fit(lambda: experiment.build(backbone), experiment.to_json(), device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("initialisation", seed))
        model = experiment.build(backbone).to(device).to(memory_format=layout(device))
        experiment.begin(model, device)
    learned = experiment.learned(model)
    noise = generator("training noise", seed, device=device)
    ema = experiment.average(learned)
    return TrainState(model, learned, experiment.optimisation(model), ema, noise)


class Batches:
    """The batch of training step t: each epoch has an order that depends on the seed and the epoch alone."""

    def __init__(
        self,
        images: np.ndarray,
        batch_size: int,
        seed: int,
        device: torch.device,
        labels: np.ndarray | None = None,
    ):
        if len(images) < batch_size:
            raise UserError(f"a batch of {batch_size} images was asked for, but the dataset holds {len(images)}")
        # Copy a small dataset: the loop then never waits for a disk or, on a GPU, for a transfer.
        small = images.nbytes <= LARGEST_COPY
        self.copy = torch.from_numpy(np.array(images)).to(device) if small else None
        self.images, self.device = images, device
        self.classes = None if labels is None else torch.from_numpy(np.array(labels, np.int64)).to(device)
        self.batch_size, self.seed = batch_size, seed
        self.epoch, self.order = -1, torch.empty(0, dtype=torch.long)

    def __call__(self, step: int) -> Float[Tensor, "batch channels height width"]:
        """Return the batch of this step, in [-1, 1]."""
        return to_float(self._images(self._chosen(step)))

    def labels(self, step: int) -> Int64[Tensor, " batch"] | None:
        """Return the classes of this step's batch; None if the dataset has none."""
        return None if self.classes is None else self.classes[self._chosen(step)]

    def _chosen(self, step: int) -> Int64[Tensor, " batch"]:
        epoch, index = divmod(step, len(self.images) // self.batch_size)
        if epoch != self.epoch:
            order = torch.randperm(len(self.images), generator=generator("data", self.seed, epoch))
            self.epoch, self.order = epoch, order.to(self.device)
        return self.order[index * self.batch_size : (index + 1) * self.batch_size]

    def _images(self, chosen: Int64[Tensor, " batch"]) -> UInt8[Tensor, "batch channels height width"]:
        if self.copy is not None:
            return self.copy[chosen]
        return torch.from_numpy(self.images[chosen.cpu().numpy()]).to(self.device)


@dataclass(frozen=True)
class LoopControl:
    """How the training loop reports, saves and stops; nothing here changes a number that it computes."""

    report: Reporter = SILENT
    """Receives the step and the energies."""
    checkpoint_seconds: float = 120.0
    """Wall-clock time between two checkpoints, the most that a crash can lose."""
    stop: Callable[[int], bool] = lambda step: False
    """Called with the number of each finished step: True ends the training early, with a checkpoint (Ctrl-C)."""
    until: int | float = math.inf
    """The step after which training pauses, with a checkpoint; a run that is there already makes no other one."""


UNATTENDED = LoopControl()


def fit(
    run: Run,
    images: np.ndarray,
    device: torch.device | str,
    control: LoopControl = UNATTENDED,
    backbone: Backbone | None = None,
    labels: np.ndarray | None = None,
) -> TrainState:
    """Train a run to its end, from its checkpoint if it has one.

    Several processes (`jlebm.engines.parallel`) share every batch, and a checkpoint can be resumed by any number of
    them. The result is the same up to rounding, except where batch norms, free bits or the balance of KLs see a
    process's part of a batch alone: weights of such a backbone depend on the number of processes.

    Args:
        run: the open folder; events.jsonl and checkpoint.pt are written into it.
        images: uint8 (N, C, H, W).
        device: where to train; names are those of `jlebm.devices.resolve_device`.
        control: how the loop reports, saves and stops.
        backbone: the trained backbone of stage two, on the same device, in eval mode; else None.
        labels: the images' classes, int64 (N,), for a class-conditional system; else None.

    Raises:
        UserError: the checkpoint is unusable, the images do not fit or are others than the run was begun with, or the
            disk is full.
        Diverged: an energy diverged or a value is not finite.
    """
    experiment, device = run.experiment, resolve_device(device) if isinstance(device, str) else device
    parallel.after_first(lambda: run.check_images(images))
    state = initial_state(experiment, run.seed, device, backbone)
    digest = experiment.digest()
    if run.checkpoint.exists():
        state.load_state_dict(checkpoints.load(run.checkpoint, digest, run.seed))
        control.report.line(f"resumed at step {state.step} of {experiment.training.steps} from {run.checkpoint}")
    elif device.type == "cpu":
        state.multiplied_by = parallel.agreed(products.of_new_trainings())
    products.use(state.multiplied_by, f"{run.checkpoint}: its training")
    if state.done(experiment) or state.step >= control.until:
        return state
    if parallel.first():
        run.forget_after(state.step)
    learning = experiment.scheme()
    batches = Batches(images, experiment.training.batch_size, run.seed, device, labels)
    part, parts = parallel.share(experiment.training.batch_size, "a batch"), experiment.training.parts
    noise = SharedNoise(state.noise, parallel.rank(), parallel.size())
    tick = saved = time.monotonic()
    leaving = False
    with control.report.task("training", experiment.training.steps) as task:
        task.advance(state.step)
        while not leaving:
            seen = {} if state.step % LOG_EVERY == 0 else None
            batch = batches(state.step)[part], batches.labels(state.step)
            with arithmetic(getattr(state.model, "backbone", None)), within_memory(ADVICE):
                for updates, moved in in_parts(learning, state.model, batch, noise, state.step, parts):
                    state.optimisation.optimizer.zero_grad(set_to_none=True)
                    numbers = []
                    for update in updates:
                        if seen is not None:
                            numbers.append(_numbers(update))
                        (update.loss() / parts).backward(inputs=moved)
                    if seen is not None:
                        seen |= together(parallel.everywhere(together(numbers)))
                    parallel.average([parameter.grad for parameter in state.learned.parameters()])
                    state.move()
            # Batch norm sees this process's part of a batch; its running statistics are averaged over processes.
            parallel.average([buffer for buffer in state.learned.buffers() if buffer.is_floating_point()])
            state.end_step()
            now = time.monotonic()
            state.seconds, tick = state.seconds + now - tick, now
            # The first process's clock decides; a request to stop counts in any.
            there = state.step >= control.until or (parallel.first() and state.done(experiment))
            leaving = parallel.anywhere(there or control.stop(state.step))
            if seen is not None:
                guard.check(state.step, seen, state.learned, run.checkpoint.exists())
                if parallel.first():
                    run.append_event({"step": state.step, "seconds": round(state.seconds, 3), **seen})
                task.advance(0, _note(seen))
            if leaving or now - saved >= control.checkpoint_seconds:
                guard.check_weights(state.step, state.learned, run.checkpoint.exists())
                if parallel.first():
                    checkpoints.save(run.checkpoint, state.state_dict(), digest, run.seed)
                saved = time.monotonic()
            task.advance()
    state.seconds = parallel.agreed(state.seconds)
    graphs.forget()  # sampling needs the memory for recordings of its own
    released(device)
    return state


def _numbers(update: Update) -> dict[str, float]:
    # One transfer for all figures: on a GPU each .item() would wait for the whole queue.
    figures = update.figures()
    return dict(zip(figures, torch.stack([value.double() for value in figures.values()]).tolist(), strict=True))


def _note(seen: dict[str, float]) -> str:
    gaps = [
        f"{name.partition('/')[2]} {value - seen[name.replace('posterior', 'prior')]:+.2f}"
        for name, value in seen.items()
        if name.startswith("energy_posterior/")
    ]
    shown = {"-ELBO": seen.get("negative_elbo"), "reconstruction": seen.get("reconstruction") or None}
    said = [f"{name} {value:.0f}" for name, value in shown.items() if value is not None]
    said = said or [f"{name} {value:.4g}" for name, value in seen.items()]
    return ", ".join(said + ([f"energy posterior - prior: {', '.join(gaps)}"] if gaps else []))
