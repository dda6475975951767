"""What each process of `test_parallel` does: `python -m tests.parallel_worker JOB FOLDER`, alone or under torchrun."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import torch

from jlebm import sampling, training
from jlebm.data import Dataset
from jlebm.engines import parallel
from jlebm.evaluation import inception, reference
from jlebm.evaluation.extractor import open_extractor
from jlebm.evaluation.moments import Moments
from jlebm.images import to_float
from jlebm.langevin import Chain
from jlebm.learning.step_sizes import Adaptation
from jlebm.learning.trainable import TrainingConfig
from jlebm.run import open_run
from jlebm.training import LoopControl, fit
from tests.small import COLOURED, IMAGES, backbone, backbone_experiment, experiment, two_stage_experiment

CPU = torch.device("cpu")
COUNT = 2000


def sample(folder: Path) -> None:
    """Draw 2,000 images of the EBM prior and decode posterior samples, in batches that do not divide them."""
    torch.manual_seed(0)
    model = experiment().build()
    chain = Chain(6, 0.02)
    sampling.write(
        folder / "prior.npy", sampling.generate(model, "ebm-prior", range(COUNT), sampling.Sampler(chain), 300), COUNT
    )
    decoded = sampling.reconstruct(model, IMAGES, range(len(IMAGES)), chain, batch_size=9)
    sampling.write(folder / "posterior.npy", decoded, len(IMAGES))


def learn(folder: Path, learning: str, stop_after: int) -> None:
    """Train a small model, or go on from its checkpoint, in float64."""
    torch.set_default_dtype(torch.float64)
    training.to_float = lambda images: to_float(images).double()
    length, given, images = TrainingConfig(12, 6), None, COLOURED[:36]
    if learning == "backbone":
        one = backbone_experiment(training=length)
    elif learning == "two-stage":
        one, given = two_stage_experiment(training=length), backbone()
    elif learning == "two-stage, adapted":
        chain = Chain(3, 0.3, start="ancestral", space="noise", discretisation="crank-nicolson", sizes="adapted")
        following = Adaptation(acceptance=0.99, every=1)
        one, given = two_stage_experiment(training=length, prior_chain=chain, adaptation=following), backbone()
    else:
        one, images = experiment(learning, training=length), IMAGES[:36]  # type: ignore[arg-type]
    control = LoopControl(checkpoint_seconds=1e9, stop=lambda step: step == stop_after)
    with open_run(folder, one, 1) as run:
        state = fit(run, images, CPU, control, given)
        digests = parallel.everywhere([digest(state.model), digest(state.ema)])
        if parallel.first():
            torch.save(state.state_dict(), folder / "state.pt")
            (folder / "digests.json").write_text(json.dumps(digests))


def digest(module: torch.nn.Module) -> str:
    """Digest all weights and statistics of a module."""
    found = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        found.update(name.encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()


def evaluate(folder: Path) -> None:
    """Compute reference statistics through Inception, and those of 2,000 images through the same way of dealing."""
    extractor = open_extractor(folder / "weights.pth")
    images = np.random.default_rng(0).integers(0, 256, (26, 3, 75, 75), dtype=np.uint8)
    dataset = Dataset("noise", "train", images, None, "made", "d" * 64)
    compared = reference.ReferenceSet(dataset, folder / "cache")
    found = reference.load_reference(compared, extractor, ("64",), CPU).moments["64"].statistics()
    means = {"inception": found["mu"], "covariance": found["sigma"]}

    class Pixels:
        """A network whose features are pixels."""

        batch_size, device = 8, CPU

        def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"pixels": images.flatten(1).float()}

    many = np.random.default_rng(1).integers(0, 256, (COUNT, 1, 4, 4), dtype=np.uint8)
    moments = Moments.zero(16, CPU)
    for first, features in inception.features_of(Pixels(), many):  # type: ignore[arg-type]
        moments.add(features["pixels"], first)
    statistics = moments.statistics()
    if parallel.first():
        np.savez(folder / "statistics.npz", mu=statistics["mu"], sigma=statistics["sigma"], **means)


def main() -> None:
    """Run one job in this process's world."""
    job, folder, *rest = sys.argv[1:]
    torch.set_num_threads(1)
    with parallel.world(CPU):
        if job == "sample":
            sample(Path(folder))
        elif job == "evaluate":
            evaluate(Path(folder))
        else:
            learn(Path(folder), rest[0], int(rest[1]))


if __name__ == "__main__":
    main()
