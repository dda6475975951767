"""A classifier two-sample test of latents, without decoding to images."""

import warnings

import numpy as np
from jaxtyping import Float

from jlebm.errors import UserError

FEWEST = 50  # least size of each sample; with fewer the held-out AUC is meaningless


def two_sample_auc(
    first: Float[np.ndarray, "n dimension"], second: Float[np.ndarray, "m dimension_of_second"], seed: int
) -> float:
    """Train a classifier to tell two samples apart; return its AUC on held-out halves.

    A classifier two-sample test (Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample Tests", ICLR 2017): 0.5 when
    the samples cannot be told apart, 1 when they can without fail. Half of each sample, chosen by `seed`, trains a
    standardised network with one hidden layer; the other half is scored. Under equality the standard error is
    sqrt((n + m + 1) / (12 n m)) with the held-out numbers n and m.

    Args:
        first: latents (n, dimension), such as prior samples.
        second: latents (m, dimension), such as posterior samples.
        seed: chooses the halves and the classifier's initial weights; the result depends on the samples and the seed.

    Raises:
        UserError: the dimensions differ, a sample is too small, or a value is not finite.
    """
    if first.shape[1] != second.shape[1]:
        raise UserError(f"samples of {first.shape[1]} and of {second.shape[1]} dimensions cannot be compared")
    if min(len(first), len(second)) < FEWEST:
        raise UserError(f"the two-sample test needs {FEWEST} of each and got {len(first)} and {len(second)}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise UserError("the two-sample test got values that are not finite; look at the chain that made them")
    # Here, where it is used: scikit-learn takes a second to import.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import roc_auc_score
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    generator = np.random.default_rng(seed)
    shuffled = [generator.permutation(sample).astype(np.float32) for sample in (first, second)]
    train, held_out = (
        [sample[part(len(sample) // 2)] for sample in shuffled]
        for part in (lambda half: slice(None, half), lambda half: slice(half, None))
    )
    classifier = make_pipeline(
        StandardScaler(),
        MLPClassifier((256,), alpha=1.0, early_stopping=True, max_iter=60, random_state=seed),
    )
    with warnings.catch_warnings():
        # Reaching `max_iter` is not an error: the held-out AUC is then that of the classifier so far.
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(np.concatenate(train), _labels(train))
    scores = classifier.predict_proba(np.concatenate(held_out))[:, 1]
    return float(roc_auc_score(_labels(held_out), scores))


def _labels(samples: list[np.ndarray]) -> np.ndarray:
    return np.repeat((0, 1), [len(sample) for sample in samples])
