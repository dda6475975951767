"""The library that multiplies float32 matrices on a CPU: MKL, or oneDNN where it is faster and as exact.

torch multiplies by MKL, which takes a slower path on AMD. Its setting for products in bf16 sends them to oneDNN, which
rounds to bf16 on a CPU with AMX and has the error of float32 elsewhere. A recipe measures the milliseconds of both once
for each processor and build of torch, and oneDNN's error at every start. A training writes its library into its
checkpoint and keeps it; a row made through oneDNN says so among its versions. `JLEBM_PRODUCTS=mkl` measures nothing.
"""

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from jlebm.errors import UserError, nearest
from jlebm.files import write_text

Library: TypeAlias = Literal["mkl", "onednn"]
MKL: Library = "mkl"
ONEDNN: Library = "onednn"
VARIABLE = "JLEBM_PRODUCTS"  # mkl or onednn: the library for new trainings, without a measurement
EXACT = 1e-6  # relative error in float32; a library above it rounds to less
FASTER = 1.1  # how many times as fast oneDNN must be: less is within the scatter of a busy machine
ROWS, WIDTH = 100, 200  # of the layers that the paper's prior chain multiplies by
REPETITIONS = 30
KEPT = "products.json"
ELSEWHERE = "take the processor that the training began on, or another --runs"

_library: dict[str, Library] = {"new": MKL, "used": MKL}


def decide(cache: Path) -> None:
    """Choose the library of new trainings, by the measurement that a folder keeps for this processor and torch.

    Args:
        cache: the folder of `products.json`; one that cannot be written costs a measurement at the next start.

    Raises:
        UserError: `JLEBM_PRODUCTS` names no library, or oneDNN where its products are not exact.
    """
    asked = os.environ.get(VARIABLE, "")
    if asked:
        _library["new"] = named(asked, f"{VARIABLE}={asked}")
        refuse_inexact(_library["new"], f"{VARIABLE}={asked}", "unset it, or set it to mkl")
        return
    _library["new"] = MKL
    if not is_exact():
        return
    path, machine = cache / KEPT, f"{processor()}, torch {torch.__version__}"
    known = _read(path)
    if known.get(machine) not in get_args(Library):
        known[machine] = measured()
        try:
            cache.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(known, indent=1) + "\n")
        except (OSError, UserError):
            pass  # measured again at the next start
    _library["new"] = known[machine]


def _read(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def of_new_trainings() -> Library:
    """Return what `decide` chose; MKL without it."""
    return _library["new"]


def use(library: Library, where: str = "a training") -> None:
    """Let `in_force` switch this library on, for a training and what is drawn and measured after it.

    Raises:
        UserError: its products are not those of float32 here; the sentence begins with `where`.
    """
    refuse_inexact(library, where, ELSEWHERE)
    _library["used"] = library


def used() -> dict[str, str]:
    """Return the entry of a row's versions: none for MKL, torch's own choice."""
    return {"products": _library["used"]} if _library["used"] != MKL else {}


def named(name: object, where: str) -> Library:
    """Return a library by its name, as a checkpoint or the environment gives it.

    Raises:
        UserError: there is no such library.
    """
    for library in get_args(Library):
        if name == library:
            return library
    raise UserError(f"{where}: unknown library of products{nearest(str(name), get_args(Library))}")


def refuse_inexact(library: Library, where: str, advice: str) -> None:
    """Refuse oneDNN where its products are not those of float32.

    Raises:
        UserError: they are not there, or round to less.
    """
    if library == ONEDNN and not is_exact():
        raise UserError(
            f"{where} takes oneDNN's products, which are not there or round to less than float32 on this processor; "
            f"{advice}"
        )


@contextmanager
def in_force() -> Iterator[None]:
    """Multiply through the library of `use`."""
    if _library["used"] == MKL:
        yield
        return
    with through_onednn():
        yield


@contextmanager
def through_onednn() -> Iterator[None]:
    """Send torch's products of float32 matrices to oneDNN, which may make them in bf16."""
    switch: Any = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue] # set at run time
    before, switch.fp32_precision = switch.fp32_precision, "bf16"
    try:
        yield
    finally:
        switch.fp32_precision = before


def product(first: Tensor, second: Tensor) -> Tensor:
    """Return a product of float32 matrices that oneDNN may make in bf16; on a CPU without AMX it is one in float32."""
    with through_onednn():
        return first @ second


def is_exact() -> bool:
    """Whether oneDNN is there and its products have the error of float32, measured now."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.backends.mkldnn, "matmul"):
        return False
    first, second = _pair(256, 256)
    exact = first.double() @ second.double()
    return bool((product(first, second) - exact).abs().max() <= EXACT * exact.abs().max())


def measured() -> Library:
    """Return the faster library on a layer of the paper's prior, both timed in turn; MKL unless oneDNN is clearly."""
    first, second = _pair(ROWS, WIDTH)
    seconds: dict[Library, list[float]] = {MKL: [], ONEDNN: []}
    for _ in range(REPETITIONS):
        seconds[MKL].append(_seconds(first, second))
        with through_onednn():
            seconds[ONEDNN].append(_seconds(first, second))
    return ONEDNN if min(seconds[MKL]) >= FASTER * min(seconds[ONEDNN]) else MKL


def _seconds(first: Tensor, second: Tensor) -> float:
    started = time.perf_counter()
    for _ in range(10):
        torch.mm(first, second)
    return time.perf_counter() - started


def _pair(rows: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, width, generator=generator), torch.randn(width, width, generator=generator)


def processor() -> str:
    """Return the CPU's name, model and AMX as Linux gives them, "AMD EPYC 9V74, 25, 17"; else what Python knows of it.

    Virtual machines on one model may have AMX or not, and oneDNN's bf16 depends on it.
    """
    path, known = Path("/proc/cpuinfo"), dict[str, str]()
    for line in path.read_text().splitlines() if path.exists() else ():
        name, _, value = line.partition(":")
        known.setdefault(name.strip(), value.strip())
    words = [known[key] for key in ("model name", "cpu family", "model") if known.get(key)]
    words += ["AMX"] if "amx_bf16" in known.get("flags", "").split() else []
    return ", ".join(words) or platform.processor() or platform.machine()
