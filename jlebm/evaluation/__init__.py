"""Evaluation: image fidelity through torch-fidelity, a two-sample test of latents, detection scores.

A module is imported when one of its names is first used: torch-fidelity loads CLIP's code with its own, and detection
scores need none of it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jlebm.evaluation.extractor import Extractor, ExtractorNotFound, find_extractor, open_extractor
    from jlebm.evaluation.fidelity import ALL, NEEDS, NotMeasured, Score, describe_reference, evaluate, halves
    from jlebm.evaluation.inception import self_check
    from jlebm.evaluation.latent import two_sample_auc
    from jlebm.evaluation.reference import ReferenceSet
    from jlebm.evaluation.sample_files import check_images
    from jlebm.evaluation.scores import Detection, detection, likelihood_ratio

# The module that defines each name. Type checkers read the block above; a test keeps both in step.
_NAMES = {
    "extractor": ("Extractor", "ExtractorNotFound", "find_extractor", "open_extractor"),
    "fidelity": ("ALL", "NEEDS", "NotMeasured", "Score", "describe_reference", "evaluate", "halves"),
    "inception": ("self_check",),
    "latent": ("two_sample_auc",),
    "reference": ("ReferenceSet",),
    "sample_files": ("check_images",),
    "scores": ("Detection", "detection", "likelihood_ratio"),
}
_HOMES = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}

__all__ = [
    "ALL",
    "NEEDS",
    "Detection",
    "Extractor",
    "ExtractorNotFound",
    "NotMeasured",
    "ReferenceSet",
    "Score",
    "check_images",
    "describe_reference",
    "detection",
    "evaluate",
    "find_extractor",
    "halves",
    "likelihood_ratio",
    "open_extractor",
    "self_check",
    "two_sample_auc",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
