"""Evaluation: image fidelity through torch-fidelity, a two-sample test of latents, detection scores."""

from jlebm.evaluation.extractor import Extractor, ExtractorNotFound, find_extractor, open_extractor
from jlebm.evaluation.fidelity import ALL, NEEDS, NotMeasured, Score, describe_reference, evaluate, halves
from jlebm.evaluation.inception import self_check
from jlebm.evaluation.latent import two_sample_auc
from jlebm.evaluation.reference import ReferenceSet
from jlebm.evaluation.sample_files import check_images
from jlebm.evaluation.scores import Detection, detection, likelihood_ratio

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
