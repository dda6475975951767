"""Registry of metrics: format, sources, and what computes each.

Rows, expectations, tables and recipes read this only. A new metric of images is a function of its own in
`reproduce/measuring`, and an entry here (docs/extending, "A metric").
"""

from dataclasses import dataclass

GAUSSIAN, EBM, POSTERIOR, SAMPLES = "gaussian-prior", "ebm-prior", "posterior", "samples"
DETECTION = ("anomaly", "out-of-distribution")


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        label: its name in a table.
        decimals: number that are printed.
        floor: narrowest tolerance of an expectation, in the metric's own unit, whatever the measured spread; chosen
            above the differences that rounding on another machine makes.
        of: sources that recipes measure it on; empty if only one kind of recipe does, in its own way.
        headline: whether the short table at the end of a recipe shows it.
        function: "module:name" of what computes it from a source's images and the training images, both uint8
            (count, channels, height, width), to a number; "" if `jlebm.evaluation` or a recipe does.
    """

    label: str
    decimals: int
    floor: float
    of: tuple[str, ...] = ()
    function: str = ""
    headline: bool = False


METRICS = {
    "fid768": Metric("fid768", 4, 0.005, of=(GAUSSIAN, EBM, POSTERIOR, SAMPLES), headline=True),
    "fid": Metric("FID", 2, 0.1, of=(GAUSSIAN, EBM, POSTERIOR, SAMPLES), headline=True),
    "is": Metric("IS", 2, 0.05, of=(EBM, SAMPLES)),
    "kid": Metric("KID", 5, 0.0005, of=(EBM, SAMPLES)),
    "precision": Metric("precision", 3, 0.01, of=(EBM, SAMPLES)),
    "recall": Metric("recall", 3, 0.01, of=(EBM, SAMPLES)),
    "latent_auc": Metric("latent AUC", 4, 0.005, headline=True),
    "fitted_auc": Metric("fitted latent AUC", 4, 0.01, headline=True),
    "fitted_auc_halves": Metric("fitted AUC, posterior halves", 4, 0.01),
    "fitted_auc_shifted": Metric("fitted AUC, shifted by 0.05 sd", 4, 0.01),
    "fitted_auc_mixed": Metric("fitted AUC, places mixed", 4, 0.01),
    "nearer_pixels": Metric("nearer than held-out, pixels", 3, 0.01, headline=True),
    "copied_pixels": Metric("below 1 % of held-out, pixels", 3, 0.005),
    "nearer_768": Metric("nearer than held-out, 768 features", 3, 0.01, headline=True),
    "copied_768": Metric("below 1 % of held-out, 768 features", 3, 0.005),
    "reconstruction_mse": Metric("reconstruction MSE", 5, 0.0002),
    "prior_gap_closed": Metric("prior gap closed", 3, 0.02, headline=True),
    "auprc": Metric("AUPRC", 3, 0.01, of=DETECTION, headline=True),
    "auroc": Metric("AUROC", 3, 0.01, of=DETECTION),
    "fpr80": Metric("FPR at 80 % TPR", 3, 0.01, of=DETECTION),
    "kl": Metric("KL (nats)", 2, 0.1),
    "pixel_change": Metric("pixel change", 4, 0.002),
    "feature_change": Metric("768-feature change", 4, 0.01),
    "latent_accuracy": Metric("latent classifier accuracy (%)", 2, 0.5),
    "mig": Metric("MIG", 3, 0.01),
    "bits_per_dimension": Metric("bits per dimension", 3, 0.01),
    "parameters": Metric("parameters", 0, 0.5),
    "seconds_per_iteration": Metric("seconds per iteration", 3, 0.02),
}


def measured_of(source: str) -> tuple[str, ...]:
    """Return the metrics that recipes measure on a source, in the order of `METRICS`."""
    return tuple(name for name, metric in METRICS.items() if source in metric.of)
