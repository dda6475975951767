"""Regularisation of a deep hierarchy's training: spectral norms of convolutions, scales of batch norms.

Both are penalised (arXiv 2007.03898, section 3.2): without the penalty the KL is unbounded and runs end in NaN
(docs/facts, "NVAE trainings that end in NaN"). The batch-norm statistics of training come from posterior samples; they
can be re-estimated on samples of the prior, as NVAE's public code does before it samples (docs/facts, "Sampling and
evaluation").
"""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jlebm.backbones.nvae.cells import WEIGHT_EPSILON, NormalisedConv
from jlebm.backbones.nvae.network import NVAE
from jlebm.latents import Latents

FIRST_ITERATIONS, ITERATIONS = 10, 4  # power-method iterations at the start and at every call


@contextmanager
def weights_once(network: nn.Module) -> Iterator[None]:
    """Normalise the weights of all convolutions of a network once, those of one shape together, for several uses.

    An update of a deep hierarchy needs each weight in its layer and in the spectral penalty; on a GPU most of its time
    is that of launches. The gradient is the same up to the order of its sum.
    """
    shapes: dict[tuple[int, ...], list[NormalisedConv]] = {}
    for module in network.modules():
        if isinstance(module, NormalisedConv):
            shapes.setdefault(tuple(module.weight.shape), []).append(module)
    try:
        for convolutions in shapes.values():
            weights = torch.stack([each.raw_weight() for each in convolutions])
            norms = torch.linalg.vector_norm(weights, dim=(2, 3, 4), keepdim=True)
            scales = torch.exp(torch.stack([each.log_weight_norm for each in convolutions]))
            for each, used in zip(convolutions, (scales * weights / (norms + WEIGHT_EPSILON)).unbind(), strict=True):
                each.held = used
        yield
    finally:
        for convolutions in shapes.values():
            for each in convolutions:
                each.held = None


class RegularisedNVAE(nn.Module):
    """A backbone in training with the vectors of the power method, which a checkpoint must include."""

    def __init__(self, backbone: NVAE):
        super().__init__()
        self.backbone = backbone
        with torch.no_grad():
            for index, matrices in enumerate(self._matrices()):
                u = torch.randn(matrices.shape[:2], dtype=matrices.dtype)
                self.register_buffer(f"u{index}", _iterated(matrices, u, FIRST_ITERATIONS))

    def _matrices(self) -> list[Float[Tensor, "count rows columns"]]:
        """Return the weights of all normalised convolutions as matrices, grouped by shape."""
        shapes: dict[tuple[int, ...], list[Tensor]] = {}
        for module in self.backbone.modules():
            if isinstance(module, NormalisedConv):
                matrix = module.used_weight().flatten(1)
                shapes.setdefault(tuple(matrix.shape), []).append(matrix)
        return [torch.stack(matrices) for matrices in shapes.values()]

    def spectral_norms(self) -> Float[Tensor, ""]:
        """Return the sum of the largest singular values as estimated by the power method, and advance it."""
        total = self.backbone.prior_ftr0.new_zeros(())
        for index, matrices in enumerate(self._matrices()):
            u = self.get_buffer(f"u{index}")
            with torch.no_grad():
                u.copy_(_iterated(matrices, u, ITERATIONS))
                v = nn.functional.normalize(torch.einsum("nrc,nr->nc", matrices, u), dim=1)
            total = total + torch.einsum("nr,nrc,nc->", u, matrices, v)
        return total

    def batch_norm_scales(self) -> Float[Tensor, ""]:
        """Return the sum over batch norms of their largest absolute scale."""
        norms = [module for module in self.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
        return torch.stack([norm.weight.abs().max() for norm in norms]).sum()


def _iterated(matrices: Tensor, u: Tensor, iterations: int) -> Tensor:
    """Return left singular vectors after iterations of the power method."""
    for _ in range(iterations):
        v = nn.functional.normalize(torch.einsum("nrc,nr->nc", matrices, u), dim=1)
        u = nn.functional.normalize(torch.einsum("nrc,nc->nr", matrices, v), dim=1)
    return u


@torch.no_grad()
def re_estimated(network: NVAE, noise: Iterable[Latents], temperature: float = 1.0) -> NVAE:
    """Return a copy whose batch norms have the statistics of ancestral samples, in eval mode.

    Args:
        network: the network to copy; it is not changed.
        noise: whitened noise of each pass, top first; the statistics are the mean over passes.
        temperature: temperature of the samples.
    """
    copied = copy.deepcopy(network).train()
    momenta = []
    for norm in (module for module in copied.modules() if isinstance(module, nn.BatchNorm2d)):
        momenta.append((norm, norm.momentum))
        norm.momentum = None  # a cumulative average: every pass counts alike
    sides = [copied.dec_tower, copied.post_process]
    for norm in (module for side in sides for module in side.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.reset_running_stats()
    for eps in noise:
        copied.decoder_parameters(copied.push(eps, temperature))
    for norm, momentum in momenta:
        norm.momentum = momentum
    return copied.eval()
