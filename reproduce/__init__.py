"""The paper's artifact suite: recipes, their measurements and the benchmark. Used from a checkout.

Threads of OpenMP that wait for each other sleep instead of spinning: on a machine with other work, two spinning threads
took ten times as long as one for the same samples. That is set here, since OpenMP reads it when torch is loaded; a
setting of the user's own stays.

Freed memory stays with the process (`jlebm.engines.allocation`).
"""

import os

from jlebm.engines.allocation import keep_freed_memory

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # variables that say how OpenMP's threads wait

if not any(name in os.environ for name in WAITING):
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
keep_freed_memory()
