"""Memory that a process keeps: pages are asked for once, and a user's own settings stay."""

import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from jlebm.engines import allocation
from jlebm.engines.allocation import SETTINGS, TUNABLES, keep_freed_memory

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is another one")
HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
small_pages = pytest.mark.skipif(HUGE.exists() and "[always]" in HUGE.read_text(), reason="pages of 2 MB hide faults")

# Sixteen blocks of 4 MB are written and freed together, forty times, and nothing small lies among them that would hold
# them where they are. What is printed is the faults of the last thirty rounds.
ROUNDS = """
import ctypes
import resource
import sys
from jlebm.engines.allocation import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.malloc.argtypes = [ctypes.c_size_t]
library.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]
faults = []
for _ in range(40):
    blocks = [library.malloc(2**22) for _ in range(16)]
    for block in blocks:
        library.memset(block, 1, 2**22)
    for block in blocks:
        library.free(block)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[9])
"""
PAGES = 30 * 16 * 2**10  # of 4 KB, in those thirty rounds


def faults(how: str) -> int:
    theirs = {TUNABLES, "LD_PRELOAD", *(variable for _, variable in SETTINGS.values())}
    clean = {name: value for name, value in os.environ.items() if name not in theirs}
    done = subprocess.run([sys.executable, "-c", ROUNDS, how], env=clean, capture_output=True, text=True, check=True)
    return int(done.stdout)


@glibc
@small_pages
def test_pages_are_asked_for_once() -> None:
    """Breaks if freed tensors go back to the kernel all the same; by default nearly all pages are asked for again."""
    assert faults("keep") < 0.01 * PAGES
    assert faults("leave") > 0.5 * PAGES, "then there is nothing to gain here, and this engine can go"


class Recorded:
    """A C library that records what it is asked for."""

    def __init__(self, answer: int = 1):
        self.asked: dict[int, int] = {}
        self.answer = answer

    def mallopt(self, name: int, value: int) -> int:
        """Record a setting."""
        self.asked[name] = value
        return self.answer


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    recorded = Recorded()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: recorded)
    monkeypatch.setattr(allocation.platform, "libc_ver", lambda: ("glibc", "2.36"))
    for name in (*(variable for _, variable in SETTINGS.values()), TUNABLES, "LD_PRELOAD"):
        monkeypatch.delenv(name, raising=False)
    return recorded


def test_all_three_settings(library: Recorded) -> None:
    """Breaks if one of them, without which pages still go back, is left out or refused in silence."""
    assert keep_freed_memory()
    assert library.asked == {name: value for name, (value, _) in SETTINGS.items()}
    assert all(0 < value < 2**31 for value in library.asked.values()), "mallopt takes an int"
    library.answer = 0
    assert not keep_freed_memory()


@pytest.mark.parametrize("name", [*(variable for _, variable in SETTINGS.values()), TUNABLES, "LD_PRELOAD"])
def test_settings_of_the_user_stay(library: Recorded, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Breaks if a recipe overrides what a user set, or tunes an allocator that is preloaded."""
    monkeypatch.setenv(name, "131072")
    assert not keep_freed_memory()
    assert not library.asked


def test_another_library_is_left_alone(library: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks on musl, macOS and Windows, where there is no mallopt with these numbers."""
    monkeypatch.setattr(allocation.platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
    assert not library.asked
