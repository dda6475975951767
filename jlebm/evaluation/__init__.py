"""Evaluation: image fidelity through torch-fidelity, two-sample tests of latents, copies, detection scores.

A module is imported when one of its names is first used: torch-fidelity loads CLIP's code with its own, and detection
scores need none of it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jlebm.evaluation.copying import Copying, copying
    from jlebm.evaluation.extractor import Extractor, ExtractorNotFound, find_extractor, open_extractor
    from jlebm.evaluation.fidelity import ALL, NEEDS, NotMeasured, Score, describe_reference, evaluate, halves
    from jlebm.evaluation.inception import self_check
    from jlebm.evaluation.judge import Fitting, fitted_auc
    from jlebm.evaluation.latent import two_sample_auc
    from jlebm.evaluation.mann_whitney import Share, share_above
    from jlebm.evaluation.neighbours import Nearest, nearest_rows
    from jlebm.evaluation.reference import ReferenceSet
    from jlebm.evaluation.sample_files import check_images
    from jlebm.evaluation.scores import Detection, detection, likelihood_ratio
    from jlebm.evaluation.training_images import TrainingImages

# The module that defines each name. Type checkers read the block above; a test keeps both in step.
_NAMES = {
    "copying": ("Copying", "copying"),
    "extractor": ("Extractor", "ExtractorNotFound", "find_extractor", "open_extractor"),
    "fidelity": ("ALL", "NEEDS", "NotMeasured", "Score", "describe_reference", "evaluate", "halves"),
    "inception": ("self_check",),
    "judge": ("Fitting", "fitted_auc"),
    "latent": ("two_sample_auc",),
    "mann_whitney": ("Share", "share_above"),
    "neighbours": ("Nearest", "nearest_rows"),
    "reference": ("ReferenceSet",),
    "sample_files": ("check_images",),
    "scores": ("Detection", "detection", "likelihood_ratio"),
    "training_images": ("TrainingImages",),
}
_HOMES = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}

__all__ = [
    "ALL",
    "NEEDS",
    "Copying",
    "Detection",
    "Extractor",
    "ExtractorNotFound",
    "Fitting",
    "Nearest",
    "NotMeasured",
    "ReferenceSet",
    "Score",
    "Share",
    "TrainingImages",
    "check_images",
    "copying",
    "describe_reference",
    "detection",
    "evaluate",
    "find_extractor",
    "fitted_auc",
    "halves",
    "likelihood_ratio",
    "nearest_rows",
    "open_extractor",
    "self_check",
    "share_above",
    "two_sample_auc",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
