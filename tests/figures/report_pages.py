"""What the tests of the report read a page by: its elements and the data in it."""

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from reproduce.results import append, write_artifact
from tests.figures.conftest import RUN, store_toys, toys
from tests.rows import ROW

HOSTILE = "</script><script>window.stolen=1</script><img src=x onerror='window.stolen=1'>\x1b[2J\u202e"
"""A text that would act if it were markup, with control characters."""
PRIORS = {"gaussian-prior": 1.5, "ebm-prior": 1.2, "posterior": 0.9}


class Elements(HTMLParser):
    """Collects every element with its attributes, and the text of styles."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element."""
        self.found.append((tag, dict(attrs)))


def elements(page: str) -> list[tuple[str, dict[str, str | None]]]:
    """Return the elements of a page with their attributes."""
    parser = Elements()
    parser.feed(page)
    return parser.found


def data_in(page: str) -> dict[str, Any]:
    """Return the JSON that the page's scripts read."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.DOTALL)
    return json.loads(text)


def toy_results(folder: Path) -> Path:
    """Make a results folder with an artifact of every kind, rows of both priors, and a row of hostile texts."""
    store_toys(folder)
    samples = toys()["samples"]
    beside = {**samples, "twin": samples["gaussian_prior"][::-1]}
    write_artifact(folder / "artifacts/mnist_ladder_cpu_samples.npz", beside, RUN)
    rows = [
        dataclasses.replace(
            ROW, preset="cpu", recipe="cifar10", model="two-layer", source=source, seed=seed, value=value + seed / 100
        )
        for source, value in PRIORS.items()
        for seed in (1, 2, 3)
    ]
    rows.append(
        dataclasses.replace(ROW, preset="cpu", recipe="cifar10", model="two-layer", metric="fid", reference=HOSTILE)
    )
    append(folder / "measured" / "cifar10.jsonl", rows)
    return folder
