"""Golden curves: recorded losses and energies of a tiny recipe, step by step, for each class of device."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jlebm.errors import UserError
from jlebm.files import open_regular, write_text

Curves = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class GoldenVerdict:
    """Result of `compare`; `reason` names the first step and curve outside the tolerance, or what is missing."""

    status: Literal["PASS", "FAIL", "NOT RUN"]
    reason: str = ""
    command: str = ""
    curve: str = ""
    step: int | None = None


def compare(curves: Curves, path: Path, device: str, *, rtol: float, atol: float, command: str) -> GoldenVerdict:
    """Compare curves with the golden ones of a device class; index i of a curve is its i-th recorded step.

    A value agrees where |value - golden| <= atol + rtol * |golden|; NaN and infinities never do.

    Args:
        curves: measured curves by name.
        path: `results/golden/<name>.json`.
        device: the device class, "cpu-avx2".
        rtol: relative tolerance.
        atol: absolute tolerance, in the curves' own units.
        command: writes the curves of this device class; named if there are none.

    Raises:
        UserError: the file is damaged.
    """
    stored = read(path)
    if device not in stored:
        others = f"; it has {', '.join(sorted(stored))}" if stored else ""
        return GoldenVerdict("NOT RUN", f"{path} has no curves for the device class {device}{others}", command)
    golden = stored[device]
    for name in sorted(golden.keys() ^ curves.keys()):
        missing = "was not measured" if name in golden else "is not among the golden curves"
        return GoldenVerdict("FAIL", f"the curve {name!r} {missing}", command, name)
    off: list[tuple[int, str]] = []
    for name, values in sorted(curves.items()):
        pairs = zip(values, golden[name], strict=False)
        steps = (i for i, (a, b) in enumerate(pairs) if not abs(a - b) <= atol + rtol * abs(b))
        shorter = min(len(values), len(golden[name])) if len(values) != len(golden[name]) else None
        if (step := next(steps, shorter)) is not None:
            off.append((step, name))
    if not off:
        return GoldenVerdict("PASS")
    step, name = min(off)
    pair = [f"{curve[step]:.9g}" if step < len(curve) else "nothing" for curve in (curves[name], golden[name])]
    reason = f"the curve {name!r} leaves the tolerance first, at step {step}: {pair[0]}, golden {pair[1]}"
    return GoldenVerdict("FAIL", reason, command, name, step)


def write(curves: Curves, path: Path, device: str) -> None:
    """Store the golden curves of a device class, on an explicit command; those of other classes are kept.

    Raises:
        UserError: a value is not finite, or the stored file is damaged.
    """
    for name, values in curves.items():
        for step, value in enumerate(values):
            if not math.isfinite(value):
                raise UserError(f"the curve {name!r} is {value} at step {step}; a golden run has finite values alone")
    content = {**read(path), device: {name: [float(value) for value in values] for name, values in curves.items()}}
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text)


def read(path: Path) -> dict[str, dict[str, list[float]]]:
    """Return the golden curves of each device class by name; empty without a file.

    Raises:
        UserError: the file is damaged.
    """
    if not path.exists():
        return {}
    damaged = f"{path} is damaged ({{}}); restore it from the repository"
    with open_regular(path) as file:
        try:
            content = json.load(file)
        except (ValueError, RecursionError) as error:
            raise UserError(damaged.format("it is no JSON in UTF-8")) from error
    if not isinstance(content, dict) or not all(isinstance(curves, dict) for curves in content.values()):
        raise UserError(damaged.format("it does not hold curves by device class"))
    for device, curves in content.items():
        for name, values in curves.items():
            if not isinstance(values, list) or not all(_is_finite(value) for value in values):
                raise UserError(damaged.format(f"its curve {name!r} of {device!r} is no list of finite numbers"))
    return {
        device: {name: [float(value) for value in values] for name, values in curves.items()}
        for device, curves in content.items()
    }


def _is_finite(value: object) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # pyright: ignore
