"""The benchmark's newest rows: speed beside a plain implementation, how cost grows, what the authors report."""

from figures.stored import Stored
from reproduce.results import timing
from reproduce.results.rendering import escape_markdown, markdown, number


def performance(stored: Stored) -> str:
    """Return the Markdown of both tables, with a sentence for each missed goal and one for the authors' times."""
    rows = stored.timings
    parts = [markdown(timing.SPEED_HEADER, timing.speed_cells(rows, stored.awaited))]
    for sentence in timing.reasons(rows):
        parts.append(f"- missed: {escape_markdown(sentence)}\n")
    parts.append(_beside_the_authors(stored))
    parts.append(markdown(timing.SCALE_HEADER, timing.scale_cells(rows)))
    return "\n".join(filter(None, parts))


def _beside_the_authors(stored: Stored) -> str:
    said = []
    for way in ("mcmc", "variational"):
        one = stored.paper.get(f"table5.cifar10.{way}.seconds")
        if one is not None:
            said.append(f"{number(one.value, one.metric)} s ({one.system})")
    extrapolated = [row for row in stored.timings if row.kind == "extrapolated"]
    if not said or not extrapolated:
        return ""
    ours = "; ".join(f"{row.device}: {timing.duration(row.ours)} for {row.setting}" for row in extrapolated)
    return (
        f"The authors report {' and '.join(said)} per iteration of 100 images on an unnamed GPU. "
        f"Extrapolated from one iteration; not run: {ours}.\n"
    )
