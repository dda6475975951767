"""Compare a checkpoint with the run that resumes from it, entry by entry, before anything is loaded."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jlebm.archives import safe_name
from jlebm.errors import UserError


def compare(given: Any, wanted: Any, name: str) -> None:
    """Check that a value from a checkpoint has the structure of the run's own.

    Tensors must have the same shape and dtype, dictionaries the same names and lists the same length, at every depth.
    A number may be any number.

    Args:
        given: the value in the checkpoint.
        wanted: the run's own value.
        name: its name, for the message.

    Raises:
        UserError: the structures differ.
    """
    match wanted:
        case Tensor():
            fits = isinstance(given, Tensor) and (given.shape, given.dtype) == (wanted.shape, wanted.dtype)
        case Mapping():
            fits = isinstance(given, dict) and given.keys() == wanted.keys()
        case list() | tuple():
            fits = isinstance(given, list | tuple) and len(given) == len(wanted)
        case int() | float():
            fits = isinstance(given, int | float)
        case _:
            fits = True  # unknown before the first step
    if not fits:
        raise unfit(f"its {name} is {_told(given, wanted)}")
    if isinstance(wanted, Mapping):
        for key, value in wanted.items():
            compare(given[key], value, f"{name}/{key}")
    elif isinstance(wanted, list | tuple):
        for index, (one, other) in enumerate(zip(given, wanted, strict=True)):
            compare(one, other, f"{name}/{index}")


def compare_optimizer(given: Any, optimizer: torch.optim.Optimizer) -> None:
    """Check that an optimiser's state fits this optimiser after some steps.

    A parameter that has had no gradient has no state. Settings that other versions of torch add or leave out are not
    compared.

    Raises:
        UserError: it is for other parameters, or a parameter's state is missing or of another shape.
    """
    wanted = optimizer.state_dict()["param_groups"]
    groups, states = (_entry(given, name, "optimizer") for name in ("param_groups", "state"))
    compare(groups, [None] * len(wanted), "optimizer/param_groups")
    for index, group in enumerate(wanted):
        name = f"optimizer/param_groups/{index}"
        _compare_numbers(_entry(groups[index], "params", name), group["params"], name)
        compare_settings(groups[index], group, name)
    if not isinstance(states, dict):
        raise unfit("its optimizer/state is not a dictionary")
    numbers = [number for group in wanted for number in group["params"]]
    values = [(value, group) for group in optimizer.param_groups for value in group["params"]]
    trials = {id(group): _kept(optimizer, group) for group in optimizer.param_groups}
    parameters = dict(zip(numbers, values, strict=True))
    for number, state in states.items():
        if number not in parameters:
            raise unfit(f"its optimizer/state has a parameter {safe_name(str(number))}, which there is not")
        value, group = parameters[number]
        like = {name: value if kept.dim() else kept for name, kept in trials[id(group)].items()}
        compare(state, like, f"optimizer/state/{number}")


def compare_settings(given: Any, wanted: dict[str, Any], name: str) -> None:
    """Check the types of the settings that both sides have: versions of torch differ in some.

    Raises:
        UserError: a setting has another type.
    """
    if not isinstance(given, dict):
        raise unfit(f"its {name} is {_told(given, wanted)}")
    shared = given.keys() & wanted.keys()
    compare({key: given[key] for key in shared}, {key: wanted[key] for key in shared}, name)


def unfit(reason: str) -> UserError:
    """Return the error for a checkpoint that is intact but belongs to another run."""
    return UserError(
        f"the checkpoint.pt of this run does not fit it: {reason}; take another --runs, or delete it to start anew"
    )


def _told(given: Any, wanted: Any) -> str:
    if isinstance(given, Tensor) and isinstance(wanted, Tensor):
        return f"{tuple(given.shape)} of {given.dtype}, and must be {tuple(wanted.shape)} of {wanted.dtype}"
    if isinstance(given, dict) and isinstance(wanted, Mapping):
        if lacking := sorted(map(str, wanted.keys() - given.keys())):
            return f"without {lacking[0]!r}"
        return f"with {safe_name(min(map(str, given.keys() - wanted.keys())))} besides"
    if isinstance(given, Sequence) and isinstance(wanted, Sequence):
        return f"of {len(given)} parts, and must have {len(wanted)}"
    return f"a {type(given).__name__}, and must be a {type(wanted).__name__}"


def _entry(given: Any, key: str, name: str) -> Any:
    if not isinstance(given, dict) or key not in given:
        raise unfit(f"its {name} has no {key!r}")
    return given[key]


def _compare_numbers(given: Any, wanted: list[int], name: str) -> None:
    if not isinstance(given, list) or any(type(number) is not int for number in given) or given != wanted:
        raise unfit(f"its {name} is of other parameters")


def _kept(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> dict[str, Tensor]:
    """Return the state that an optimiser keeps for a one-element parameter, from one step of a second optimiser."""
    one = nn.Parameter(torch.zeros(1, device=group["params"][0].device if group["params"] else "cpu"))
    one.grad = torch.zeros_like(one)
    trial = type(optimizer)([group | {"params": [one]}])  # pyright: ignore
    trial.step()
    return dict(trial.state[one])
