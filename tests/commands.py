"""Command lines of tests: what all calls have, and what one of them says instead."""

from collections.abc import Sequence


def instead(usual: Sequence[str], said: Sequence[str]) -> list[str]:
    """Return the usual words without the options that `said` names, and then those: an option is given once."""
    named, kept, dropping = {word for word in said if word.startswith("--")}, [], False
    for word in usual:
        dropping = word in named if word.startswith("--") else dropping
        if not dropping:
            kept.append(word)
    return [*kept, *said]
