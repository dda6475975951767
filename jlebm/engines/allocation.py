"""Memory of freed tensors, kept by the process for the next ones instead of going back to the kernel.

glibc returns the free end of its heap to the kernel, and gives each large block a mapping of its own. A chain frees and
asks for the same tensors of a few megabytes at every step, so every step waits for the kernel to zero the same pages
and hand them out again. A process that keeps them computes the same bits sooner, and stays as large as it once was.
"""

import ctypes
import os
import platform

# Parameters of mallopt (glibc's malloc.h), their values here, and the variables by which a user sets them.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
KEPT = 2**31 - 1  # bytes that may lie free at the end of the heap: the largest number that mallopt takes
AHEAD = 2**24  # bytes by which a heap grows beyond what is asked for: a quarter of what a thread's can hold
OWN_MAPPING = 2**25  # bytes from which a block has a mapping of its own: the largest threshold of glibc
SETTINGS = {
    TRIM_THRESHOLD: (KEPT, "MALLOC_TRIM_THRESHOLD_"),
    TOP_PAD: (AHEAD, "MALLOC_TOP_PAD_"),
    MMAP_THRESHOLD: (OWN_MAPPING, "MALLOC_MMAP_THRESHOLD_"),
}
TUNABLES = "GLIBC_TUNABLES"


def keep_freed_memory() -> bool:
    """Let glibc keep what this process frees; return whether all settings for that are in force.

    Call it once, before the first tensor. Importing `reproduce` does; the library alone changes nothing of the process.
    Another C library, an allocator that is preloaded, and settings of the user's own stay as they are.
    """
    theirs = [name for _, name in SETTINGS.values()] + [TUNABLES, "LD_PRELOAD"]
    if platform.libc_ver()[0] != "glibc" or any(os.environ.get(name) for name in theirs):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and {mallopt(name, value) for name, (value, _) in SETTINGS.items()} == {1}
