"""Golden curves of the tiny recipes: which class of processor they are of, and how a run is held to them.

Training is chaotic: rounding that differs by 1e-7 grows to 3e-3 relative within 21 steps and to several per cent
within 150 (measured between AVX2 and SSE4 on one machine). So whole curves are compared on the class of processor that
they were written on, with one thread; on any other class their first three records are, at a looser tolerance.
"""

import json
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from jlebm.devices import device_class
from reproduce import results

GOLDEN = Path(__file__).resolve().parents[1] / "results/golden"
COMMAND = "nox -s regression -- --write-golden"
SAME_CLASS = {"rtol": 1e-3, "atol": 1e-3}
OTHER_CLASS = {"rtol": 2e-2, "atol": 2e-2}
EARLY = 3  # records: steps 1, 11 and 21


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread: sums that are split over threads are rounded differently on every number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def processor_class() -> str:
    """The device class and the processor's maker, family and model: matrix products round differently on each."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    said = dict(tuple(part.strip() for part in line.split(":", 1)) for line in lines if ":" in line)
    known = [said[name] for name in ("vendor_id", "cpu family", "model") if name in said] or [platform.machine()]
    return "-".join([device_class(torch.device("cpu")), *known])


def curves_of(run: Path, names: Sequence[str], diagnosed: bool = True) -> dict[str, list[float]]:
    """Return the recorded curves of a run; the chains of a trained model are diagnosed, once, in its last event."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert ["diagnostics" in event for event in events].count(True) == diagnosed
    assert ("diagnostics" in events[-1]) == diagnosed
    return {name: [event[name] for event in events if "diagnostics" not in event] for name in names}


def hold(curves: dict[str, list[float]], name: str, tmp_path: Path, write: bool) -> None:
    """Hold curves to the golden ones of this class of processor, or their beginnings to another's."""
    path, ours = GOLDEN / f"{name}.json", processor_class()
    if write:
        results.write_golden(curves, path, ours)
    known = json.loads(path.read_text())
    if ours in known:
        verdict = results.compare_golden(curves, path, ours, **SAME_CLASS, command=COMMAND)
    else:
        other = next(iter(known))
        early = tmp_path / "early.json"
        results.write_golden({name: values[:EARLY] for name, values in known[other].items()}, early, other)
        begun = {name: values[:EARLY] for name, values in curves.items()}
        verdict = results.compare_golden(begun, early, other, **OTHER_CLASS, command=COMMAND)
    assert verdict.status == "PASS", verdict.reason
