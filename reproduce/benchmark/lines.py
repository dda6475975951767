"""Lines of the benchmark by kind of device."""

from dataclasses import replace
from typing import get_args

from jlebm.engines.precision import Precision
from reproduce.benchmark import deep_chain, noise_schemes, throughput
from reproduce.benchmark.speed import Workload
from reproduce.cifar10 import CPU, PAPER
from reproduce.results.timing import Awaited

GPU_IMAGES = 10_000  # a fifth of what FID needs: plain takes about ten seconds and is repeated in each arithmetic
GPU_STEPS = 10  # length of a posterior chain
WHOLE_TRAINING = "training at the paper's settings"
PAPERS, SMALL = "the paper's sizes", f"the sizes of the {CPU.experiment.preset} preset"


def workloads(device_type: str) -> tuple[Workload, ...]:
    """Return the sizes of joint training: the paper's in each arithmetic on a GPU, smaller ones on a CPU."""
    small = Workload(CPU.experiment, SMALL, CPU.experiment.training.batch_size, 1000)
    if device_type == "cpu":
        return Workload(PAPER.experiment, PAPERS, 5, 200, whole=True, iteration_goal=1.8), small
    ours = [PAPER.experiment.override([f"model.precision={precision}"]) for precision in get_args(Precision)]
    papers = (Workload(one, PAPERS, one.training.batch_size, GPU_IMAGES, GPU_STEPS, whole=True) for one in ours)
    return *papers, replace(small, steps=GPU_STEPS)


def awaited() -> list[Awaited]:
    """Return the lines that a GPU has; the table names those not measured."""
    lines: list[Awaited] = []
    for workload in workloads("cuda"):
        lines += [Awaited("speed", metric, setting) for metric, setting in workload.settings().items()]
        whole = workload.whole_training()
        lines += [] if whole is None else [Awaited("extrapolated", WHOLE_TRAINING, whole)]
    lines.append(Awaited("speed", deep_chain.METRIC, deep_chain.setting(*deep_chain.SIZES["cuda"])))
    lines += [Awaited("speed", noise_schemes.METRIC, setting) for setting in noise_schemes.settings()]
    lines.append(Awaited("speed", *throughput.BATCHES))
    lines.append(Awaited("speed", *throughput.INCEPTION))
    return lines
