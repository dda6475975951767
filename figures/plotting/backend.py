"""matplotlib, even if a notebook's environment names a backend that is not installed here.

Figures are only written to files, for which none is needed; a backend that matplotlib knows stays the user's choice.
"""

import os
import sys
from contextlib import suppress

# matplotlib cannot be imported beside a name that it does not know.
_named = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)

import matplotlib  # noqa: E402

if _named is not None:
    os.environ["MPLBACKEND"] = _named
if _named:
    with suppress(ValueError):
        matplotlib.rcParams["backend"] = _named

__all__ = ["matplotlib"]
