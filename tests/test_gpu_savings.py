"""Less memory and fewer launches on a GPU give the same numbers; shown on a CPU."""

import copy
import dataclasses
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from jlebm import randomness
from jlebm.backbones.conv import ConvBackbone, ConvConfig
from jlebm.backbones.ladder import LadderBackbone
from jlebm.backbones.nvae import NVAE
from jlebm.backbones.nvae.cells import NormalisedConv
from jlebm.backbones.nvae.regularisation import RegularisedNVAE, weights_once
from jlebm.backbones.protocol import PosteriorSample
from jlebm.devices import layout
from jlebm.engines.precision import Precision
from jlebm.errors import UserError
from jlebm.experiment import Experiment
from jlebm.hierarchy import (
    PartialPosterior,
    frozen_noise,
    posterior_terms,
    reconstruct_from,
    resampled,
    scores_above,
)
from jlebm.learning.accumulation import in_parts, together
from jlebm.learning.backbone import BackboneOnly, ELBOConfig
from jlebm.learning.scheme import ContrastiveUpdate, OneUpdate
from jlebm.learning.trainable import Optimisation, TrainingConfig
from jlebm.model import JointModel
from jlebm.objectives import variational_loss
from jlebm.randomness import Noise, PerImageNoise, SharedNoise
from jlebm.training import initial_state
from tests.small import (
    COLOURED,
    HIERARCHY,
    IMAGES,
    backbone,
    experiment,
    fit_one,
    ladder_experiment,
    train_stage,
    two_stage_experiment,
)

CPU = torch.device("cpu")


# ---- a batch in parts


def test_parts_add_up_to_the_batchs_gradient() -> None:
    """Without batch norms and with the same noise, the sum over parts of loss / parts has the whole's gradient."""
    gradients = []
    for parts in (1, 2, 4):
        state = initial_state(experiment("variational"), 1, CPU)
        x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(2)) * 2 - 1

        def still(like):
            """No noise at all, whichever part asks."""
            return tuple(torch.zeros_like(layer) for layer in like)

        scheme = experiment("variational").scheme()
        for updates, moved in in_parts(scheme, state.model, (x, None), still, 0, parts):
            assert moved is None
            count = 0
            for update in updates:
                (update.loss() / parts).backward()
                count += 1
            assert count == parts
        gradients.append([parameter.grad for parameter in state.learned.parameters() if parameter.grad is not None])
    for other in gradients[1:]:
        for one, two in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)


def test_figures_of_parts_are_those_of_the_whole() -> None:
    """Breaks if a latent that ran away in one part of a batch were averaged below the guard's limit."""
    parts: list[dict[str, float]] = [{"loss": 1.0, "range_prior/z1": 3.0}, {"loss": 2.0, "range_prior/z1": 1.0}]
    assert together(parts) == {"loss": 1.5, "range_prior/z1": 3.0}


@dataclasses.dataclass(frozen=True)
class Still(OneUpdate):
    """The variational loss at latents of zero: it takes no noise, which parts draw otherwise than a whole batch."""

    def update(self, model: JointModel, x: torch.Tensor, noise: Noise, step: int = 0) -> ContrastiveUpdate:
        """Return the loss."""
        z = tuple(x.new_zeros(len(x), *shape) for shape in model.backbone.latent_shapes)
        losses = variational_loss(model, x, PosteriorSample(z, x.new_zeros(len(x))), z)
        return ContrastiveUpdate(model, losses, z, z)


@dataclasses.dataclass(frozen=True)
class Descent(Experiment):
    """Plain gradient descent, which sees the size of a gradient; Adam divides it out."""

    def scheme(self) -> Still:
        """See `Trainable`."""
        return Still()

    def optimisation(self, model: JointModel) -> Optimisation:
        """See `Trainable`."""
        return Optimisation(torch.optim.SGD(model.parameters(), lr=1e-4))


def test_a_training_in_parts_makes_the_steps_of_the_whole(tmp_path: Path) -> None:
    """Breaks if the loop added up the gradients of parts, each a mean over its images, instead of averaging them."""
    ends = []
    for parts in (1, 5):
        one = experiment("variational", training=TrainingConfig(4, 5, parts=parts))
        descent = Descent(**{each.name: getattr(one, each.name) for each in dataclasses.fields(one)})
        _, state = fit_one(tmp_path / str(parts), descent, IMAGES)
        start = initial_state(descent, 1, CPU).learned.state_dict()
        ends.append({name: value - start[name] for name, value in state.learned.state_dict().items()})
    assert max(float(moved.abs().max()) for moved in ends[0].values()) > 1e-3
    for name, moved in ends[0].items():
        torch.testing.assert_close(ends[1][name], moved, rtol=1e-2, atol=1e-6)


@pytest.mark.slow
def test_a_training_in_parts_is_another_configuration(tmp_path: Path) -> None:
    """It learns, resumes to the bit, and has a digest of its own; at its default the digest is that of before."""
    whole, split = TrainingConfig(12, 4), TrainingConfig(12, 4, parts=2)
    one, two = (experiment(training=training) for training in (whole, split))
    assert one.digest() != two.digest()
    assert "parts" not in one.to_json()["training"]
    _, state = train_stage(tmp_path / "a", "backbone", training=split)
    train_stage(tmp_path / "b", "backbone", stop_after=5, training=split)
    _, again = train_stage(tmp_path / "b", "backbone", training=split)
    for name, value in state.learned.state_dict().items():
        assert torch.equal(value, again.learned.state_dict()[name])
    for parts in (0, 3, 8):
        with pytest.raises(UserError, match="cannot be split"):
            TrainingConfig(12, 4, parts=parts)
    assert len(COLOURED) == 40


# ---- normalised weights


def test_weights_that_are_normalised_once_are_the_same() -> None:
    """Values and gradients of an update of stage one, spectral penalty included, to rounding; nothing is held later."""
    torch.manual_seed(0)
    model = RegularisedNVAE(NVAE(HIERARCHY)).double()
    x = torch.rand(4, 3, 16, 16, dtype=torch.float64) * 2 - 1
    learning = BackboneOnly(ELBOConfig(warmup_steps=4, spectral=0.1))
    found = []
    for once in (False, True):
        on = copy.deepcopy(model)
        with weights_once(on.backbone) if once else nullcontext():
            loss = learning.update(on, x, SharedNoise(torch.Generator().manual_seed(1)), 2).loss()
        loss.backward()
        found.append([loss.detach(), *(parameter.grad for parameter in on.parameters() if parameter.grad is not None)])
        convolutions = [module for module in on.modules() if isinstance(module, NormalisedConv)]
        assert all(module.held is None for module in convolutions)
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-9, atol=1e-11)


def test_held_weights_are_let_go_after_an_error() -> None:
    """An update that fails leaves no old weight behind."""
    network = NVAE(HIERARCHY)
    with pytest.raises(ZeroDivisionError), weights_once(network):
        raise ZeroDivisionError
    assert all(module.held is None for module in network.modules() if isinstance(module, NormalisedConv))


# ---- arithmetic


@torch.no_grad()
def test_the_squashing_is_in_float32() -> None:
    """Tanh of bf16 would leave at most 256 values between 1/2 and 1; images have far more."""
    torch.manual_seed(0)
    config = ConvConfig((1, 16, 16), (3, 4), channels=(8, 6, 5), conditional_hidden=(8,), precision="bf16")
    network = ConvBackbone(config)
    means = network.decode((torch.zeros(64, 3), 3 * torch.randn(64, 4))).mean
    assert means.dtype == torch.float32
    assert (means != means.bfloat16().float()).float().mean() > 0.5
    plain = ConvBackbone(dataclasses.replace(config, precision="float32"))
    plain.load_state_dict(network.state_dict())
    z = (torch.zeros(8, 3), torch.randn(8, 4))
    torch.testing.assert_close(plain.decode(z).mean, plain.generator(z[-1]), rtol=0, atol=0)


@torch.no_grad()
def test_a_ladder_has_the_same_choice() -> None:
    """bf16 rounds its decoder and nothing else; the configuration of before keeps its digest."""
    one = ladder_experiment()
    assert "precision" not in one.to_json()["model"]
    config = one.model
    torch.manual_seed(0)
    plain = LadderBackbone(config)
    half = LadderBackbone(dataclasses.replace(config, precision="bf16"))
    half.load_state_dict(plain.state_dict())
    z = tuple(torch.randn(6, dim) for dim in config.latent_dims)
    a, b = (each.decode(z).mean for each in (plain, half))
    assert b.dtype == torch.float32
    assert 1e-5 < float((a - b).abs().max()) < 0.05
    assert torch.equal(plain.prior_log_prob(z), half.prior_log_prob(z))


def test_stage_two_says_the_arithmetic_of_its_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32 is switched on in chains of the model that it builds; the default has the digest of before."""
    one = two_stage_experiment()
    assert "precision" not in one.to_json()
    seen = []
    decode = NVAE.push

    def watched(self, *given):
        seen.append(torch.backends.cudnn.conv.fp32_precision)
        return decode(self, *given)

    monkeypatch.setattr(NVAE, "push", watched)
    for precision, switch in (("float32", "ieee"), ("tf32", "tf32")):
        model = dataclasses.replace(one, precision=precision).build(backbone())
        seen.clear()
        model.sample_noise(2, one.prior_chain, SharedNoise(torch.Generator().manual_seed(1)))
        assert set(seen) == {switch}


@pytest.mark.parametrize(("precision", "switch"), [("float32", "ieee"), ("tf32", "tf32")])
def test_every_use_of_a_backbone_has_its_arithmetic(
    monkeypatch: pytest.MonkeyPatch, precision: Precision, switch: str
) -> None:
    """Draws, layers drawn anew, reconstructions and scores; one left in torch's default, which is TF32, shows."""
    one = two_stage_experiment()
    model = dataclasses.replace(one, precision=precision).build(backbone())
    eps, chain, seen = frozen_noise(model, 1, one.prior_chain), one.prior_chain, []
    below = PartialPosterior(1, chain)
    convolve = torch.nn.Conv2d.forward

    def watched(self, *given):
        seen.append(torch.backends.cudnn.conv.fp32_precision)
        return convolve(self, *given)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", watched)
    uses = (
        lambda: model.sample_gaussian(2, SharedNoise(torch.Generator().manual_seed(1))),
        lambda: resampled(model, eps, [0], [1, 2], chain),
        lambda: list(reconstruct_from(model, COLOURED, [0, 1], below)),
        lambda: scores_above(model, COLOURED, [0, 1], below),
        lambda: posterior_terms(model, COLOURED, [0, 1]),
    )
    for use in uses:
        seen.clear()
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=precision == "float32"):
            use()
        assert set(seen) == {switch}


# ---- layout and pinned memory


def test_the_layout_is_the_cpus_own() -> None:
    """Channels-last where it was measured to be faster; golden curves are of it."""
    assert layout(CPU) == torch.channels_last
    assert layout(torch.device("cuda")) == torch.contiguous_format


class Pinned:
    """A buffer and its events in place of the GPU's: a copy has ended only when its event was waited for."""

    waiting: list["Pinned"]

    def __init__(self) -> None:
        self.pending = False
        self.waited = 0

    def record(self) -> None:
        """Note a copy that has been begun."""
        self.pending = True

    def synchronize(self) -> None:
        """Wait for it."""
        self.waited += self.pending
        self.pending = False


def test_a_ring_never_refills_a_buffer_before_its_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two buffers, whatever the number of draws; the third draw waits for the first one's copy."""
    events, made = [], []
    empty = torch.empty

    def buffer(*size, pin_memory: bool = False):
        made.append(pin_memory)
        return empty(*size)

    monkeypatch.setattr(torch.cuda, "Event", lambda: events.append(Pinned()) or events[-1])
    monkeypatch.setattr(torch, "empty", buffer)
    ring = randomness.PinnedRing(12)
    places = []
    for draw in range(6):
        drawn = ring.next(2, 6 if draw < 5 else 3)
        assert not events[ring.turn].pending
        places.append(drawn.data_ptr())
        ring.copied()
    assert made == [True, True]
    assert len(set(places)) == 2
    assert places[:2] * 3 == places
    assert sum(event.waited for event in events) == 4
    assert drawn.shape == (2, 3)


def test_the_noise_of_a_cpu_needs_no_ring() -> None:
    """The draws themselves are those of before."""
    like = (torch.empty(3, 16),)
    drawn = [each[0] for each in PerImageNoise("sample", range(3)).series(like, 4)]
    assert not any(each.is_pinned() for each in drawn)
    assert np.isfinite(torch.stack(drawn).numpy()).all()
