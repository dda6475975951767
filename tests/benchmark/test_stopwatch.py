"""Counted operations: those of the chain, whether or not its steps are recorded."""

from collections.abc import Callable

import pytest
from torch.utils._python_dispatch import _disable_current_modes

from jlebm.engines import graphs
from reproduce.benchmark import stopwatch
from tests import tape
from tests.test_graphs import conv, prior, recordings, run, step_by_step

__all__ = ["recordings"]


def test_operations_are_counted_whatever_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph hides what it launches; a floor that is read from what is left of the count breaks it."""

    def hidden(work: Callable[[], None]) -> Callable[[], None]:
        play = tape.record(work)

        def launch() -> None:
            with _disable_current_modes():
                play()

        return launch

    model = conv()
    density = prior(model)
    expected = stopwatch.operations(lambda: step_by_step(density, model))
    assert expected > 0
    monkeypatch.setattr(graphs, "recorder", lambda device: hidden)
    assert stopwatch.operations(lambda: run(density, model)) == expected
    run(density, model)
    assert len(graphs._kept) == 1
    assert stopwatch.operations(lambda: run(density, model)) == expected
