"""Evaluation: fidelity of images through torch-fidelity, and a two-sample test of latents."""

from jlebm.evaluation.fidelity import ALL, NEEDS, NotMeasured, Score, check_images, evaluate, halves
from jlebm.evaluation.inception import (
    Extractor,
    ExtractorNotFound,
    find_extractor,
    open_extractor,
    self_check,
)
from jlebm.evaluation.latent import two_sample_auc

__all__ = [
    "ALL",
    "NEEDS",
    "Extractor",
    "ExtractorNotFound",
    "NotMeasured",
    "Score",
    "check_images",
    "evaluate",
    "find_extractor",
    "halves",
    "open_extractor",
    "self_check",
    "two_sample_auc",
]
