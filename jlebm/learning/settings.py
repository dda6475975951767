"""Settings that the learnings of `jlebm.experiment.Experiment` share, and how a scheme is made from them."""

from typing import Any, Protocol, runtime_checkable

from jlebm.energies import EnergyConfig
from jlebm.errors import UserError
from jlebm.langevin import Chain
from jlebm.objectives import ConditionalGradient


@runtime_checkable
class JointSettings(Protocol):
    """Configuration of a joint training, as a scheme reads it."""

    @property
    def model(self) -> Any:
        """Configuration of the networks."""
        ...

    @property
    def optimizer(self) -> Any:
        """Configuration of the optimiser, with an `energy_l2`."""
        ...

    @property
    def energy_hidden(self) -> tuple[tuple[int, ...], ...]:
        """Hidden units of each layer's energy."""
        ...

    @property
    def energy(self) -> EnergyConfig | None:
        """Energy networks of another kind."""
        ...

    @property
    def prior_chain(self) -> Chain:
        """Chain of the prior."""
        ...

    @property
    def posterior_chain(self) -> Chain:
        """Chain of the posterior."""
        ...

    @property
    def kl_warmup(self) -> int:
        """Updates over which the weight of the KL rises."""
        ...

    @property
    def kl_weight(self) -> float:
        """Full weight of the KL."""
        ...

    @property
    def free_bits(self) -> tuple[float, ...]:
        """Nats below which a layer's KL is not reduced."""
        ...

    @property
    def conditional_gradient(self) -> ConditionalGradient:
        """Gradient of the conditionals."""
        ...


def refuse_without_inference(learning: str, settings: JointSettings) -> None:
    """Refuse a model without an inference network.

    Raises:
        UserError: the model has none.
    """
    if not getattr(settings.model, "inference_network", True):
        raise UserError(f"model.inference_network must be true for learning {learning!r}, and false for joint-mle")


def refuse_free_bits(learning: str, settings: JointSettings) -> None:
    """Refuse free bits outside Gaussian learning.

    Raises:
        UserError: there are some.
    """
    if settings.free_bits:
        raise UserError(f"free_bits belong to learning 'gaussian'; leave them empty for {learning}")


def refuse_conditional_gradient(learning: str, settings: JointSettings) -> None:
    """Refuse another gradient of the conditionals than the exact one.

    Raises:
        UserError: `conditional_gradient` is not "exact".
    """
    if settings.conditional_gradient != "exact":
        raise UserError(f"conditional_gradient belongs to variational learning; leave it exact for {learning}")
