"""What a checkpoint holds, compared with what the run that takes it over has: entry by entry, before any is taken."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jlebm.archives import safe_name
from jlebm.errors import UserError


def compare(given: Any, wanted: Any, name: str) -> None:
    """See that a value out of a checkpoint is of the kind that one like it has.

    Tensors have the same shape and kind of numbers, dictionaries the same names and lists the same length, all the way
    down. A number may be any number.

    Args:
        given: out of the checkpoint.
        wanted: what stands in its place in the run.
        name: of it, for the sentence.

    Raises:
        UserError: it is of another kind.
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
            fits = True  # what is not known before the first step
    if not fits:
        raise unfit(f"its {name} is {_told(given, wanted)}")
    if isinstance(wanted, Mapping):
        for key, value in wanted.items():
            compare(given[key], value, f"{name}/{key}")
    elif isinstance(wanted, list | tuple):
        for index, (one, other) in enumerate(zip(given, wanted, strict=True)):
            compare(one, other, f"{name}/{index}")


def compare_optimizer(given: Any, optimizer: torch.optim.Optimizer) -> None:
    """See that an optimiser's state is one of this optimiser after some steps.

    A parameter that has had no gradient has no state. Settings that other versions of torch add or leave out are
    torch's own matter.

    Raises:
        UserError: it is of other parameters, or what it keeps of one is missing or of another shape.
    """
    wanted = optimizer.state_dict()["param_groups"]
    groups, states = (_entry(given, name, "optimizer") for name in ("param_groups", "state"))
    compare(groups, [None] * len(wanted), "optimizer/param_groups")
    for index, group in enumerate(wanted):
        name = f"optimizer/param_groups/{index}"
        _compare_numbers(_entry(groups[index], "params", name), group["params"], name)
        compare_settings(groups[index], group, name)
    if not isinstance(states, dict):
        raise unfit("its optimizer/state is no dictionary")
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
    """See that settings are of the kinds that there are, where both have them: versions of torch differ in some.

    Raises:
        UserError: one of them is of another kind.
    """
    if not isinstance(given, dict):
        raise unfit(f"its {name} is {_told(given, wanted)}")
    shared = given.keys() & wanted.keys()
    compare({key: given[key] for key in shared}, {key: wanted[key] for key in shared}, name)


def unfit(reason: str) -> UserError:
    """Return the sentence for a checkpoint that is whole and of another run."""
    return UserError(
        f"the checkpoint.pt of this run does not fit it: {reason}; take another --runs, or delete it to start anew"
    )


def _told(given: Any, wanted: Any) -> str:
    if isinstance(given, Tensor) and isinstance(wanted, Tensor):
        return f"{tuple(given.shape)} of {given.dtype}, and {tuple(wanted.shape)} of {wanted.dtype} is meant"
    if isinstance(given, dict) and isinstance(wanted, Mapping):
        if lacking := sorted(map(str, wanted.keys() - given.keys())):
            return f"without {lacking[0]!r}"
        return f"with {safe_name(min(map(str, given.keys() - wanted.keys())))} besides"
    if isinstance(given, Sequence) and isinstance(wanted, Sequence):
        return f"of {len(given)} parts, and {len(wanted)} are meant"
    return f"a {type(given).__name__}, and a {type(wanted).__name__} is meant"


def _entry(given: Any, key: str, name: str) -> Any:
    if not isinstance(given, dict) or key not in given:
        raise unfit(f"its {name} has no {key!r}")
    return given[key]


def _compare_numbers(given: Any, wanted: list[int], name: str) -> None:
    if not isinstance(given, list) or any(type(number) is not int for number in given) or given != wanted:
        raise unfit(f"its {name} is of other parameters")


def _kept(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> dict[str, Tensor]:
    """Return what an optimiser keeps of a parameter of one number, found by a step of another one of its kind."""
    one = nn.Parameter(torch.zeros(1, device=group["params"][0].device if group["params"] else "cpu"))
    one.grad = torch.zeros_like(one)
    trial = type(optimizer)([group | {"params": [one]}])  # pyright: ignore
    trial.step()
    return dict(trial.state[one])
