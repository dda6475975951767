"""The checks of a GPU one after the other: what each finds is printed, and written to a file."""

import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from jlebm.devices import resolve_device
from jlebm.engines import graphs
from jlebm.errors import UserError
from jlebm.files import write_text
from reproduce.benchmark import broken_capture, device_checks, device_times
from reproduce.benchmark.device_checks import Finding
from reproduce.benchmark.device_times import Line
from reproduce.benchmark.options import CheckArguments
from reproduce.measuring.provenance import provenance

Check = Callable[[torch.device, bool], Iterable[Finding | Line]]
GIVEN_UP = ("chains are run step by step", "noise is made by torch's operations")  # warnings that are faults here
TIMEOUT = 300  # seconds for the process that breaks a recording


def _broken(device: torch.device, full: bool) -> Iterator[Finding]:
    command = [sys.executable, "-m", broken_capture.__name__, *([] if full else ["--pretend"])]
    root = Path(__file__).resolve().parents[2]
    try:
        child = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        yield Finding(False, "a recording that breaks leaves the process usable", f"it hangs for {TIMEOUT} s")
        return
    last = (child.stderr.strip().splitlines() or [""])[-1]
    usable = child.stdout.strip() == broken_capture.USABLE
    yield Finding(usable, "a recording that breaks leaves the process usable", "" if usable else last[:200])


def _only(check: Callable[[torch.device], Iterable[Finding]]) -> Check:
    return lambda device, full: check(device)


CHECKS: dict[str, Check] = {
    "arithmetic": _only(device_checks.arithmetic_is_what_is_asked),
    "recorded chains": _only(device_checks.recordings_are_their_steps),
    "recordings side by side": _only(device_checks.recordings_outlive_others),
    "noise": _only(device_checks.noise_is_the_cpus),
    "training": _only(device_checks.training_is_the_cpus),
    "the two-layer model": device_times.two_layer,
    "the two-stage model": device_times.two_stage,
    "a broken recording": _broken,
}
"""What is checked, by its name in the last line."""


def run_checks(arguments: CheckArguments) -> int:
    """Check, print and write; return the exit code.

    Raises:
        UserError: the device is no GPU, and the checks are not only pretended.
    """
    if arguments.pretend:
        from tests import tape  # a CPU's stand-in for CUDA graphs, of the checkout

        before, graphs.recorder = graphs.recorder, lambda device: tape.record
        try:
            return _run(torch.device("cpu"), False, arguments.out)
        finally:
            graphs.recorder = before
            graphs.forget()
    device = resolve_device(arguments.device)
    if device.type != "cuda":
        raise UserError("this checks a GPU; take --device cuda, or --pretend to try the checks on a CPU")
    return _run(device, True, arguments.out)


def _run(device: torch.device, full: bool, out: Path) -> int:
    versions, began = provenance(device), time.monotonic()
    _say(f"{versions['device']}; {', '.join(f'{name} {each}' for name, each in versions['versions'].items())}")
    log: list[dict[str, Any]] = []
    works: dict[str, bool] = {}
    for name, check in CHECKS.items():
        for found in _findings(check, device, full):
            spent = time.monotonic() - began
            log.append({"check": name, "seconds": round(spent, 1), **found._asdict()})
            if isinstance(found, Finding):
                works[name] = works.get(name, True) and found.ok
                _say(f"{'ok  ' if found.ok else 'BAD '} {spent:5.0f} s  {' '.join(filter(None, found[1:]))}")
            else:
                works.setdefault(name, True)
                _say(f"     {spent:5.0f} s  {found.what}: {found.milliseconds:.3g} ms, {found.gib:.2f} GiB")
    text = {**versions, "works": works, "findings": log}
    write_text(out, json.dumps(text, indent=1) + "\n")
    _say(f"written to {out}")
    _say(summary(works))
    return 0 if all(works.values()) else 1


def _findings(check: Check, device: torch.device, full: bool) -> Iterator[Finding | Line]:
    """Yield what a check finds; an error, or a warning that something was given up, is a finding too."""
    with warnings.catch_warnings():
        for beginning in GIVEN_UP:
            warnings.filterwarnings("error", beginning)
        try:
            yield from check(device, full)
        except Exception as error:
            yield Finding(False, "it ended with an error", f"{type(error).__name__}: {str(error)[:300]}")


def summary(works: dict[str, bool]) -> str:
    """Return the last line: what works, and what does not with what to do about it."""
    good, bad = ([name for name, fine in works.items() if fine == wanted] for wanted in (True, False))
    if not bad:
        return f"everything works: {', '.join(good)}"
    said = f"NOT WORKING: {', '.join(bad)}"
    if any("record" in name for name in bad):
        said += " (set JLEBM_GRAPHS=0, and chains run step by step)"
    return f"{said}; works: {', '.join(good) or 'nothing'}"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
