"""The lines of the benchmark: timed in the order of the table, stored and printed."""

import datetime
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from jlebm.data import data_root
from jlebm.devices import resolve_device
from jlebm.engines.precision import Precision
from jlebm.engines.products import processor
from jlebm.errors import UserError
from jlebm.evaluation.extractor import ExtractorNotFound
from jlebm.progress import Reporter
from jlebm.text import printable
from reproduce.benchmark import (
    ceilings,
    commands,
    deep_chain,
    inception_peer,
    lines,
    noise_schemes,
    peers,
    scale,
    speed,
    stopwatch,
    throughput,
    untaken,
)
from reproduce.benchmark.options import Arguments
from reproduce.benchmark.part import Part, agreed
from reproduce.measuring.provenance import provenance
from reproduce.results import TIMINGS, Timing, append, timing
from reproduce.terminal.console import ConsoleReporter


def run_benchmark(arguments: Arguments) -> int:
    """Time, print and store; return the exit code."""
    if arguments.write_awaited:
        timing.write_awaited(arguments.results, lines.awaited())
        return 0
    device = resolve_device(arguments.device)
    if arguments.peers and device.type != "cpu":
        raise UserError("other libraries are timed on a CPU alone; add --device cpu to --peers")
    report = ConsoleReporter()
    known = provenance(device)
    known["versions"]["processor"] = processor()
    tops = ceilings.Ceilings(device)
    top = tops["float32"]
    fastest = f"{top.kernel} is the fastest kernel, at {top.flops / 1e9:.0f} GFLOP/s"
    threads = torch.get_num_threads()
    report.line(f"{known['device']}, {threads} thread{'' if threads == 1 else 's'}: {fastest}")
    rows: list[Timing] = []
    for row in measured(arguments, device, tops, known, report):
        rows.append(row)
        if arguments.store:
            append(arguments.results / "measured" / TIMINGS, [row])
        report.line(f"{row.metric}, {row.setting}: {timing.duration(row.plain)} -> {timing.duration(row.ours)}")
    if not rows:
        raise UserError(f"no line begins with {' or '.join(arguments.only)}; leave --only out to see all lines")
    sys.stdout.write(_render(rows))
    return 0


def measured(
    arguments: Arguments, device: torch.device, tops: ceilings.Ceilings, known: dict[str, Any], report: Reporter
) -> Iterator[Timing]:
    """Yield the rows in the order of the table."""

    def wanted(metric: str, setting: str) -> bool:
        return not arguments.only or f"{metric}, {setting}".startswith(arguments.only)

    def row(
        kind: str, metric: str, setting: str, medians: stopwatch.Medians, precision: Precision = "float32", **rest: Any
    ) -> Timing:
        fields = {"floor": None, "agreement": None, "goal": None, "bound": "", "repetitions": medians.repetitions}
        versions = known["versions"] | rest.pop("versions", {})
        return Timing(
            kind=kind,
            metric=metric,
            setting=setting,
            threads=torch.get_num_threads(),
            plain=medians.plain,
            ours=medians.ours,
            ceiling=tops[precision].flops,
            ceiling_kernel=tops[precision].kernel,
            clock=stopwatch.clock(device),
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **(known | {"versions": versions} | fields | rest),
        )

    for part in _parts(arguments, device, report):
        if not wanted(part.metric, part.setting):
            continue
        agreement = agreed(part)
        counted = None if part.counted is None else part.times * stopwatch.operations(part.counted)
        floor = None if counted is None else counted / tops[part.precision].flops
        medians = stopwatch.interleaved(part.plain, part.ours, arguments.repetitions, device)
        goal = part.goal.get(device.type if part.precision == "float32" else f"{device.type}, {part.precision}")
        missed = goal is not None and medians.plain is not None and medians.plain / medians.ours < goal
        bound = part.bound if missed else ""
        held = {"floor": floor, "agreement": agreement, "goal": goal, "bound": bound, "versions": part.versions}
        yield row("speed", part.metric, part.setting, medians, part.precision, **held)
        if part.whole is not None:
            yield row("extrapolated", lines.WHOLE_TRAINING, part.whole, _whole_training(part, medians), part.precision)
    with tempfile.TemporaryDirectory() as scratch:
        paper, small = (workload.experiment for workload in lines.workloads("cpu"))
        for point in scale.points(paper, small, device, Path(scratch)):
            if wanted(point.metric, point.setting):
                medians = stopwatch.interleaved(None, point.run, arguments.repetitions, device)
                yield row("scale", point.metric, point.setting, medians)
    if any(_may_begin(word, metric) for word in arguments.only or ("",) for metric in commands.METRICS):
        with tempfile.TemporaryDirectory() as scratch:
            for line in commands.lines(arguments.results, Path(scratch)):
                if wanted(line.metric, line.setting):
                    medians = commands.timed(line, arguments.repetitions)
                    yield row(line.kind, line.metric, line.setting, medians, goal=line.goal)


def _may_begin(word: str, metric: str) -> bool:
    """Whether a line of this metric may begin with a word."""
    return metric.startswith(word) or word.startswith(metric)


def _whole_training(part: Part, medians: stopwatch.Medians) -> stopwatch.Medians:
    """Extrapolate the paper's whole training from one iteration; it is not run."""
    plain = None if medians.plain is None else part.iterations * medians.plain
    return medians._replace(plain=plain, ours=part.iterations * medians.ours)


def _parts(arguments: Arguments, device: torch.device, report: Reporter) -> Iterator[Part]:
    for workload in lines.workloads(device.type):
        yield from speed.parts(workload, device)
    if arguments.peers:
        yield from peers.parts(lines.workloads("cpu")[0], report)
    yield deep_chain.part(*deep_chain.SIZES[device.type], device)
    yield from noise_schemes.parts(device)
    if device.type == "cpu":
        yield from untaken.parts(lines.workloads("cpu"))
    yield throughput.data_part(device)
    try:
        root = data_root(arguments.data_root)
        yield throughput.inception_part(root, device)
        if arguments.peers and not inception_peer.missing(report):
            yield inception_peer.part(root, device)
    except ExtractorNotFound as missing:
        report.line(f"Inception is not timed: {missing}")


def _render(rows: Sequence[Timing]) -> str:
    shown = {row.metric for row in rows}
    gpus = [line for line in lines.awaited() if line.metric in shown]
    console = Console(width=max(shutil.get_terminal_size().columns, 160), markup=False)
    with console.capture() as captured:
        for title, header, cells in (
            ("against a plain implementation", timing.SPEED_HEADER, timing.speed_cells(rows, gpus)),
            ("how cost grows", timing.SCALE_HEADER, timing.scale_cells(rows)),
        ):
            if cells:
                table = Table(*header, title=title, title_justify="left")
                for line in cells:
                    table.add_row(*map(printable, line))
                console.print(table)
        for sentence in timing.reasons(rows):
            console.print(printable(f"missed: {sentence}"))
    return captured.get()
