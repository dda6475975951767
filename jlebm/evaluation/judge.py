"""A two-sample test of latents by classifiers that fit them, cross-fitted, with the standard error of its AUC."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from jlebm.errors import UserError
from jlebm.evaluation.judge_network import classifiers
from jlebm.evaluation.mann_whitney import Share, share_above

FEWEST = 500  # least size of each sample: a half then learns from 200 of each and stops by 50
CHUNK = 2**27  # most numbers that are looked at together
SCALED = 2_000  # most samples of each kind whose quantiles scale the latents
FARTHEST = 8.0  # half the distance of the 16 % and 84 % quantiles, times this, is where latents are clamped
SCORED = 500  # samples that are scored together

Latents = Float[np.ndarray, "_samples _latents"]
Orders = Sequence[Int[np.ndarray, " _samples"]]


@dataclass(frozen=True)
class Fitting:
    """How each classifier is fitted."""

    updates: int = 600
    """Most updates."""
    every: int = 25
    """Updates from one look at the held-out part to the next."""
    patience: int = 4
    """Looks without a smaller loss after which a classifier is done."""
    held_out: float = 0.2
    """Share of each training half that decides when to stop, and how the classifiers' logits are weighted."""
    batch_size: int = 128
    """Samples of an update, of both kinds."""
    rate: float = 2e-3
    """Learning rate of AdamW."""
    decay: float = 0.02
    """Its decoupled weight decay."""


def fitted_auc(
    first: Latents,
    second: Latents,
    shapes: Sequence[tuple[int, ...]],
    seed: int,
    fitting: Fitting = Fitting(),
    device: torch.device | None = None,
) -> Share:
    """Return the AUC of fitted classifiers between two samples of latents, and its standard error.

    A classifier two-sample test (Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample Tests", ICLR 2017): 0.5 when
    the samples cannot be told apart, 1 when they can without fail. Two or three classifiers look at the latents in
    different ways (`jlebm.evaluation.judge_network`), convolutional ones at maps and a perceptron at vectors; a
    logistic regression weights their logits. The test is cross-fitted: each half of both samples is scored by
    classifiers trained on the other half, so every sample is scored, and none by a classifier that has seen it. A fifth
    of the training half decides when each classifier stops, and the weights. The AUC is the mean over both halves.

    The standard error is the mean of the halves' own (DeLong's, `share_above`), not smaller by sqrt(2): each half
    trains the classifiers that score the other, so both err in one direction; those of a linear classifier have
    nearly one error under equality. It holds for the fitted classifiers: a better one may see more.

    A sample's half depends on its own values and the seed, so the order of the samples changes nothing.

    Args:
        first: latents (samples, latents), all layers side by side, such as posterior samples; may be memory-mapped.
        second: the same of other samples, such as prior samples.
        shapes: shape of each layer, (dimension,) or (channels, height, width).
        seed: chooses halves, initial weights and batches.
        fitting: length and rate of the training.
        device: where the classifiers are trained; None for the CPU.

    Raises:
        UserError: the shapes do not fit the samples, a sample is too small, a value is not finite, or the seed is
            negative.
    """
    if seed < 0:
        raise UserError(f"the seed of classifiers must not be negative, as {seed} is")
    _check(first, second, shapes)
    orders = [in_order(sample, seed) for sample in (first, second)]
    halves = []
    for number in (0, 1):
        training, scored = ([order[part::2] for order in orders] for part in (1 - number, number))
        half = _Half((first, second), training, fitting, device or torch.device("cpu"))
        ours, theirs = half.scores(half.fitted(shapes, seed + number), scored)
        halves.append(share_above(theirs, ours))
    return Share(*(float(np.mean(each)) for each in zip(*halves, strict=True)))


def in_order(sample: Latents, seed: int) -> Int[np.ndarray, " _samples"]:
    """Return an order of the samples that depends on their values and the seed alone: that of their keyed digests."""
    key = int(seed).to_bytes(16, "little", signed=True)
    rows = (np.ascontiguousarray(row, np.float32).tobytes() for row in sample)
    return np.argsort([hashlib.blake2b(row, digest_size=16, key=key).digest() for row in rows], kind="stable")


class _Half:
    """The half of both samples that classifiers are trained on, in units of its own quantiles."""

    def __init__(self, samples: Sequence[Latents], training: Orders, fitting: Fitting, device: torch.device):
        self.samples, self.fitting, self.device = samples, fitting, device
        kept = [round(len(order) * fitting.held_out) for order in training]
        self.stops = [order[:number] for order, number in zip(training, kept, strict=True)]
        self.learns = [order[number:] for order, number in zip(training, kept, strict=True)]
        most = max(1, min(SCALED, CHUNK // samples[0].shape[1]))
        some = np.concatenate([sample[order[:most]] for sample, order in zip(samples, training, strict=True)])
        low, self.middle, high = np.quantile(some, (0.16, 0.5, 0.84), axis=0)
        self.scale = np.where(high > low, (high - low) / 2, 1.0)

    def standardised(self, kind: int, some: Int[np.ndarray, " chosen"]) -> Float[Tensor, "chosen _latents"]:
        """Return chosen latents of one of the two samples."""
        rows = (self.samples[kind][some] - self.middle) / self.scale
        return torch.from_numpy(rows.astype(np.float32)).clamp_(-FARTHEST, FARTHEST).to(self.device)

    def logits(self, network: nn.Module, orders: Orders) -> list[Float[np.ndarray, " _chosen"]]:
        """Return a classifier's logits of chosen latents of both samples."""
        found: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        with torch.no_grad():
            for kind, order in enumerate(orders):
                for part in _parts(order):
                    found[kind].append(network(self.standardised(kind, part)).double().cpu().numpy())
        return [np.concatenate(each) for each in found]

    def fitted(self, shapes: Sequence[tuple[int, ...]], seed: int) -> list[nn.Module]:
        """Return the classifiers, trained on this half."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            networks = [network.to(self.device) for network in classifiers(shapes)]
        for number, network in enumerate(networks):
            self._fit(network, np.random.default_rng([seed, number]))
        return networks

    def scores(self, networks: Sequence[nn.Module], scored: Orders) -> list[Float[np.ndarray, " _scored"]]:
        """Return the logits of samples of the other half, weighted by a logistic regression on the held-out part."""
        from sklearn.linear_model import LogisticRegression  # here: scikit-learn takes a second to import

        held_out, asked = (
            [np.stack(each, 1) for each in zip(*(self.logits(network, orders) for network in networks), strict=True)]
            for orders in (self.stops, scored)
        )
        labels = np.repeat((0, 1), [len(some) for some in held_out])
        weights = LogisticRegression(max_iter=1_000).fit(np.concatenate(held_out), labels)
        return [weights.decision_function(some) for some in asked]

    def _fit(self, network: nn.Module, generator: np.random.Generator) -> None:
        fitting = self.fitting
        optimizer = torch.optim.AdamW(network.parameters(), lr=fitting.rate, weight_decay=fitting.decay)
        best, state, waited = math.inf, {}, 0
        labels = torch.arange(2, device=self.device).repeat_interleave(fitting.batch_size // 2).float()
        for update in range(fitting.updates + 1):
            if update % fitting.every == 0:
                loss = self._held_out_loss(network)
                waited += 1
                if loss < best:
                    best, waited = loss, 0
                    state = {name: value.clone() for name, value in network.state_dict().items()}
                if waited == fitting.patience:
                    break
            chosen = [generator.choice(order, fitting.batch_size // 2) for order in self.learns]
            x = torch.cat([self.standardised(kind, some) for kind, some in enumerate(chosen)])
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(network(x), labels).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        network.load_state_dict(state)

    def _held_out_loss(self, network: nn.Module) -> float:
        ours, theirs = self.logits(network, self.stops)
        return float(np.logaddexp(0, ours).mean() + np.logaddexp(0, -theirs).mean())


def _parts(order: Int[np.ndarray, " samples"]) -> Iterator[Int[np.ndarray, " _part"]]:
    return (order[start : start + SCORED] for start in range(0, len(order), SCORED))


def _check(first: Latents, second: Latents, shapes: Sequence[tuple[int, ...]]) -> None:
    wide = sum(math.prod(shape) for shape in shapes)
    if not first.shape[1] == second.shape[1] == wide:
        raise UserError(
            f"samples of {first.shape[1]} and of {second.shape[1]} latents cannot be compared as layers of {wide}"
        )
    if min(len(first), len(second)) < FEWEST:
        raise UserError(f"the fitted two-sample test needs {FEWEST} of each and got {len(first)} and {len(second)}")
    step = max(1, CHUNK // wide)
    for sample in (first, second):
        if not all(np.isfinite(sample[start : start + step]).all() for start in range(0, len(sample), step)):
            raise UserError("the fitted two-sample test got values that are not finite; look at the chain behind them")
