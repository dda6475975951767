"""Evaluation: fidelity of images through torch-fidelity, and a two-sample test of latents."""

from jlebm.evaluation.extractor import Extractor, ExtractorNotFound, find_extractor, open_extractor
from jlebm.evaluation.fidelity import (
    ALL,
    NEEDS,
    NotMeasured,
    Score,
    describe_reference,
    evaluate,
    halves,
)
from jlebm.evaluation.images import check_images
from jlebm.evaluation.inception import self_check
from jlebm.evaluation.latent import two_sample_auc

__all__ = [
    "ALL",
    "NEEDS",
    "Extractor",
    "ExtractorNotFound",
    "NotMeasured",
    "Score",
    "check_images",
    "describe_reference",
    "evaluate",
    "find_extractor",
    "halves",
    "open_extractor",
    "self_check",
    "two_sample_auc",
]
