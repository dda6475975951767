"""Metrics of single layers: KL, linear accuracy, and the change of images when a layer is drawn anew.

| metric | source | what it is |
|---|---|---|
| `kl` | `posterior/z3` | KL(q|p0) of one layer in nats, averaged over held-out images |
| `latent_accuracy` | `posterior/z3`, `posterior` | accuracy of a linear classifier of latents on test images, % |
| `pixel_change` | `ebm-prior/z3` | root-mean-square change of pixels in [0, 1] when only this layer is drawn anew |
| `feature_change` | `ebm-prior/z3` | mean Euclidean change of the 768 Inception features then |
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8

from jlebm import hierarchy
from jlebm.data import Dataset
from jlebm.evaluation import fidelity
from jlebm.evaluation.inception import Network, features_of, open_network
from jlebm.langevin import Chain
from jlebm.model import JointModel
from jlebm.randomness import GENERATOR, Scheme, image_noise
from jlebm.sampling import batch_of, decoded
from reproduce.measuring.row_store import Answer, Part, Rows, Wanted
from reproduce.measuring.sample_sets import posterior_indices
from reproduce.results.identity import Of

ENCODED = 1_000  # images that a KL is averaged over
FITTED = 5_000  # training images that the classifier of latents learns from
FROZEN = 8  # full draws of the prior, in each of which one layer at a time is drawn anew
REDRAWN = 100  # times per full draw
JUDGED = 10  # redrawn images of each full draw that go through Inception
BATCH = 500  # images encoded at a time


def measure_representation(rows: Rows, model: JointModel, chain: Chain | None, held_out: Dataset) -> None:
    """Store those of these rows that the results still lack.

    Args:
        rows: of the model.
        model: trained; its inference network gives the KL of each layer.
        chain: of its EBM prior, in whitened noise; None for a Gaussian prior.
        held_out: the test split of the dataset, or its training images if there is none.
    """
    rows.fill([divergence(rows, model, held_out)])
    rows.fill(separation(rows, model, held_out))
    rows.fill(change(rows, model, chain))


def divergence(rows: Rows, model: JointModel, held_out: Dataset) -> Part:
    """Return the part of the KL of each layer from the Gaussian hierarchy that both priors share."""
    count = min(ENCODED, len(held_out.images))
    reference = fidelity.describe_reference(held_out, count)
    wanted = [Wanted("kl", Of("posterior", name), count, reference=reference) for name in model.layer_names]

    def answers(missing: Sequence[Wanted]) -> Iterator[Answer]:
        started = time.monotonic()
        _, kl = encoded(model, held_out.images, posterior_indices(len(held_out.images), count), rows.session.noise)
        for one, value in zip(wanted, kl.mean(axis=1).tolist(), strict=True):
            if one in missing:
                yield Answer(one, value, {"evaluate": time.monotonic() - started})

    return Part(wanted, answers)


def separation(rows: Rows, model: JointModel, held_out: Dataset) -> Iterator[Part]:
    """Yield the part of the test accuracy of a linear classifier of posterior latents, by layer and of all layers."""
    train = rows.session.dataset
    if train.labels is None or held_out.labels is None or held_out.split == "train":
        reason = f"{train.name} has no classes" if train.labels is None else f"{train.name} has no test split here"
        rows.session.lacks(fidelity.NotMeasured("latent_accuracy", reason, "take a dataset that has both"))
        return
    (classes, truth), count = (train.labels, held_out.labels), len(held_out.images)
    reference = fidelity.describe_reference(held_out, None)
    sources = [*(Of("posterior", name) for name in model.layer_names), Of("posterior")]
    wanted = [Wanted("latent_accuracy", source, count, reference=reference) for source in sources]

    def answers(missing: Sequence[Wanted]) -> Iterator[Answer]:
        started = time.monotonic()
        chosen = posterior_indices(len(train.images), min(FITTED, len(train.images)))
        known, _ = encoded(model, train.images, chosen, rows.session.noise)
        judged, _ = encoded(model, held_out.images, range(count), rows.session.noise)
        for index, one in enumerate(wanted):
            if one not in missing:
                continue
            parts = slice(index, index + 1) if index < len(known) else slice(None)
            fitted, tested = (np.concatenate(layers[parts], axis=1) for layers in (known, judged))
            value = accuracy(fitted, classes[chosen], tested, truth)
            yield Answer(one, value, {"evaluate": time.monotonic() - started})

    yield Part(wanted, answers)


def change(rows: Rows, model: JointModel, chain: Chain | None) -> Iterator[Part]:
    """Yield a part for each layer: the change of prior samples when it is drawn anew, in pixels and in features."""
    prior, session = "gaussian-prior" if chain is None else "ebm-prior", rows.session
    network = None
    if session.size.judged and session.extractor is not None:
        network = open_network(session.extractor, ("768",), session.device)
    for index, name in enumerate(model.layer_names):
        wanted = [Wanted("pixel_change", Of(prior, name), FROZEN * REDRAWN)]
        if network is not None:
            wanted.append(Wanted("feature_change", Of(prior, name), FROZEN * JUDGED, judged=True))
        draw = partial(_redrawn, model, index, chain, session.noise)
        yield Part(wanted, partial(_changes, draw, network))


def _changes(
    draw: Callable[[], tuple[np.ndarray, np.ndarray]], network: Network | None, missing: Sequence[Wanted]
) -> Iterator[Answer]:
    started = time.monotonic()
    frozen, redrawn = draw()
    seconds = {"sample": time.monotonic() - started}
    for one in missing:
        if network is not None and one.metric == "feature_change":
            value = feature_change(network, frozen, redrawn[:, :JUDGED])
            yield Answer(one, value, seconds | {"evaluate": time.monotonic() - started - seconds["sample"]})
        else:
            yield Answer(one, pixel_change(frozen, redrawn), seconds)


def _redrawn(model: JointModel, layer: int, chain: Chain | None, scheme: Scheme) -> tuple[np.ndarray, np.ndarray]:
    """Return images of full draws of the prior, and of each of them again with one layer drawn anew."""
    frozen, redrawn = [], []
    for seed in range(FROZEN):
        eps = hierarchy.frozen_noise(model, seed, chain, scheme)
        frozen.append(decoded(model, model.pushed(eps)).images[0].cpu().numpy())
        seeds = range(seed * REDRAWN, (seed + 1) * REDRAWN)
        drawn = hierarchy.resampled(model, eps, [layer], seeds, chain, scheme)
        redrawn.append(decoded(model, model.pushed(drawn)).images.cpu().numpy())
    return np.stack(frozen), np.stack(redrawn)


def pixel_change(
    frozen: UInt8[np.ndarray, "draws channels height width"],
    redrawn: UInt8[np.ndarray, "draws times channels height width"],
) -> float:
    """Return the mean over draws of the root-mean-square change of pixels in [0, 1]."""
    changes = (redrawn.astype(np.float64) - frozen[:, None]) / 255
    return float(np.sqrt(np.square(changes).mean(axis=(1, 2, 3, 4))).mean())


def feature_change(
    network: Network,
    frozen: UInt8[np.ndarray, "draws channels height width"],
    redrawn: UInt8[np.ndarray, "draws times channels height width"],
) -> float:
    """Return the mean Euclidean change of the 768 Inception features."""
    draws, times = redrawn.shape[:2]
    images = np.concatenate([frozen, redrawn.reshape(-1, *redrawn.shape[2:])])
    features = torch.cat([batch["768"].double().cpu() for _, batch in features_of(network, images)])
    first, again = features[:draws], features[draws:].reshape(draws, times, -1)
    return float((again - first[:, None]).norm(dim=2).mean())


@torch.no_grad()
def encoded(
    model: JointModel,
    images: UInt8[np.ndarray, "count channels height width"],
    chosen: Sequence[int],
    scheme: Scheme = GENERATOR,
) -> tuple[list[Float[np.ndarray, "chosen dimension"]], Float[np.ndarray, "layers chosen"]]:
    """Return posterior samples of the chosen images, layer by layer from the top, and the KL of each layer."""
    latents, kl = [], []
    for first in range(0, len(chosen), BATCH):
        indices, x = batch_of(model, images, chosen[first : first + BATCH])
        sample = model.backbone.posterior(x, image_noise("posterior", indices, scheme))
        assert sample.kl is not None  # a ladder always computes it
        latents.append([layer.flatten(1).cpu().numpy() for layer in sample.latents])
        kl.append(sample.kl.cpu().numpy())
    return [np.concatenate(layers) for layers in zip(*latents, strict=True)], np.concatenate(kl, axis=1)


def accuracy(
    fitted: Float[np.ndarray, "n dimension"],
    classes: Int64[np.ndarray, " n"],
    tested: Float[np.ndarray, "m dimension"],
    truth: Int64[np.ndarray, " m"],
) -> float:
    """Return the accuracy, in %, of a logistic regression fitted on some latents and tested on others."""
    from sklearn.linear_model import LogisticRegression  # here: it takes a second to import
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
    classifier.fit(fitted, classes)
    return 100 * float((classifier.predict(tested) == truth).mean())
