"""What several tests of reliability stand on."""

from pathlib import Path

import pytest

from figures import plotting
from jlebm.files import write_text


@pytest.fixture
def _pictures_in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a word where a figure would be drawn."""

    def save(figure: object, stem: Path) -> list[Path]:
        paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("pdf", "png")]
        for path in paths:
            write_text(path, "a figure")
        return paths

    monkeypatch.setattr(plotting, "save", save)
