"""One pass of two images through a model of your own: what does not fit is a sentence, before any training."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from jlebm.backbones.protocol import NoEncoder
from jlebm.engines.precision import arithmetic
from jlebm.errors import UserError
from jlebm.latents import LatentShapes, layer_names
from jlebm.model import JointModel
from jlebm.randomness import PerImageNoise

COUNT = 2
T = TypeVar("T")
PROTOCOL = "see jlebm.backbones.protocol.Backbone"


def check_model(model: JointModel, x: Tensor | None = None) -> None:
    """Check what a backbone and energies of your own return: shapes, finite values, and that energies act.

    Two samples go through every method that training and sampling call, in eval mode; weights and statistics stay as
    they are. It costs two forward passes.

    Args:
        model: the backbone and its energies.
        x: images as a learning scheme takes them, floating point, (batch, ...); at least two. Without them the
            posterior and the size of the decoded images are not checked.

    Raises:
        UserError: a method is missing or fails, a result has another shape or is not finite, the energies do not depend
            on the latents, or the images are no finite floating-point values.
    """
    mode = model.training
    model.eval()
    try:
        _check(model, x)
    finally:
        model.train(mode)


def _check(model: JointModel, x: Tensor | None) -> None:
    backbone, shapes = model.backbone, model.backbone.latent_shapes
    for name in ("prior_log_prob", "push", "decode", "posterior"):
        if not callable(getattr(backbone, name, None)):
            raise UserError(f"{type(backbone).__name__} has no method {name}; {PROTOCOL}")
    noise = PerImageNoise("sample", range(COUNT))
    with torch.no_grad(), arithmetic(backbone):
        z = _attempt("push", lambda: backbone.push(model.noise(COUNT, noise)))
    _refuse_latents(z, shapes, "push")
    _refuse(_attempt("prior_log_prob", lambda: backbone.prior_log_prob(z)), (COUNT,), "prior_log_prob", "log p0(z)")
    at = tuple(layer.detach().requires_grad_() for layer in z)
    energy = _attempt("the energy", lambda: model.energy.at(backbone, at))
    _refuse(energy, (COUNT, len(shapes)), "the energy", "one value for each sample and layer")
    reached = torch.autograd.grad(energy.sum(), at, allow_unused=True) if energy.requires_grad else ()
    if any(True for _ in model.energy.parameters()) and all(gradient is None for gradient in reached):
        raise UserError("the energies do not depend on the latents, so chains would ignore them; leave out detach()")
    likelihood = _attempt("decode", lambda: backbone.decode(z))
    image = likelihood.mean
    if x is None:
        return
    if not isinstance(x, Tensor) or not x.is_floating_point() or len(x) < COUNT or not bool(torch.isfinite(x).all()):
        raise UserError("x must be a tensor of at least two finite floating-point images; jlebm.to_float makes it")
    some = x[:COUNT]
    _refuse(image, tuple(some.shape), "decode", "the mean of p(x|z), of the images' shape")
    _refuse(_attempt("decode", lambda: likelihood.log_prob(some)), (COUNT,), "decode's log_prob", "log p(x|z)")
    try:
        posterior = _attempt("posterior", lambda: backbone.posterior(some, noise))
    except NoEncoder:
        return
    _refuse_latents(posterior.latents, shapes, "posterior")
    _refuse(posterior.log_prob, (COUNT,), "posterior's log_prob", "log q(z|x)")


def _attempt(what: str, compute: Callable[[], T]) -> T:
    try:
        return compute()
    except (UserError, NoEncoder):
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise UserError(f"{what} fails on {COUNT} samples ({type(error).__name__}: {said}); {PROTOCOL}") from error


def _refuse(value: object, shape: tuple[int, ...], what: str, meaning: str) -> None:
    found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    if found != shape:
        raise UserError(f"{what} returns {found} for {COUNT} samples, not {shape}: {meaning}")
    assert isinstance(value, Tensor)
    if not bool(torch.isfinite(value).all()):
        raise UserError(f"{what} returns values that are not finite: {meaning}")


def _refuse_latents(z: object, shapes: LatentShapes, what: str) -> None:
    if not isinstance(z, tuple) or len(z) != len(shapes):
        found = f"{len(z)} layers" if isinstance(z, tuple) else type(z).__name__
        raise UserError(f"{what} returns {found}, not a tuple of {len(shapes)} layers, top first")
    for name, layer, shape in zip(layer_names(len(shapes)), z, shapes, strict=True):
        _refuse(layer, (COUNT, *shape), what, f"{name}, whose shape latent_shapes names")
