"""Rows of the benchmark: stored apart from measurements, and said in the table with what was missed."""

import dataclasses
from pathlib import Path

import pytest

from jlebm.errors import UserError
from reproduce.results import TIMINGS, Timing, append, read_all, timing
from reproduce.results.rows import read

ROW = Timing(
    kind="speed",
    metric="prior chain",
    setting="60 steps, batch 100",
    device="cpu-avx2",
    threads=2,
    plain=0.3,
    ours=0.1,
    repetitions=7,
    floor=0.05,
    ceiling=1.3e11,
    agreement=1e-15,
    goal=2.0,
    bound="",
    commit="d" * 40,
    dirty=False,
    versions={"python": "3.11"},
    date="2026-01-31T12:00:00+00:00",
)


def make(**changes) -> Timing:
    return dataclasses.replace(ROW, **changes)


def test_ratio_and_share() -> None:
    """Plain over ours, and the floor over ours."""
    assert ROW.ratio == pytest.approx(3.0)
    assert ROW.share == pytest.approx(0.5)
    assert make(plain=None, floor=None).ratio is None


def test_timings_stand_beside_measurements(tmp_path: Path) -> None:
    """They are read back as they were, and no reader of measurements stumbles over their file."""
    append(tmp_path / TIMINGS, [ROW])
    (stored,) = read(tmp_path / TIMINGS, Timing)
    assert stored == ROW
    assert stored.intact
    assert read_all(tmp_path) == []


@pytest.mark.parametrize(
    ("field", "value", "other"), [("ceiling_kernel", "a convolution", "MKL's product"), ("clock", "processor", "")]
)
def test_a_row_without_a_later_field_keeps_its_digest(tmp_path: Path, field: str, value: str, other: str) -> None:
    """Breaks if rows stored before kernels or clocks were named are no longer intact, or one can be typed in."""
    named = make(**{field: value})
    assert named.digest != ROW.digest
    assert field not in ROW.signed()
    append(tmp_path / TIMINGS, [named])
    path = tmp_path / TIMINGS
    assert read(path, Timing)[0].intact
    path.write_text(path.read_text().replace(f'"{value}"', f'"{other}"'))
    assert not read(path, Timing)[0].intact


def test_a_timing_changed_by_hand_is_seen(tmp_path: Path) -> None:
    """A faster time typed into the file breaks the row's digest."""
    append(tmp_path / TIMINGS, [ROW])
    path = tmp_path / TIMINGS
    path.write_text(path.read_text().replace('"ours": 0.1', '"ours": 0.01'))
    assert not read(path, Timing)[0].intact


@pytest.mark.parametrize("change", [{"ours": 0.0}, {"plain": -1.0}, {"kind": "sped"}, {"floor": float("nan")}])
def test_impossible_timings_are_refused(change: dict) -> None:
    """A time that is not positive or not finite, or an unknown kind, is never stored."""
    with pytest.raises(UserError):
        make(**change)


def test_a_missed_goal_stays_visible_and_a_gpu_that_was_not_there_is_said() -> None:
    """The line of a miss carries the word, its reason is a sentence, and the GPU's line says "not measured"."""
    missed = make(plain=0.15, bound="the convolutions")
    on_a_gpu = [timing.Awaited("speed", "another part", "batch 2"), timing.Awaited("speed", "prior chain", "batch 9")]
    cells = timing.speed_cells([missed, make(metric="sampling")], on_a_gpu)
    assert cells[0][5] == "1.50x (missed)"
    assert [line[:3] for line in cells] == [  # a metric's lines together
        ("prior chain", missed.setting, "cpu-avx2, 2 threads"),
        ("prior chain", "batch 9", "GPU"),
        ("sampling", missed.setting, "cpu-avx2, 2 threads"),
        ("another part", "batch 2", "GPU"),
    ]
    assert cells[1][3:5] == ("not measured", "not measured")
    assert timing.reasons([missed]) == ["prior chain (60 steps, batch 100, cpu-avx2, 2 threads): the convolutions"]
    measured = make(device="cuda-NVIDIA H200", setting="batch 9")
    assert timing.speed_cells([measured], on_a_gpu[1:]) == timing.speed_cells([measured])
    both = timing.speed_cells([ROW, make(device="cuda-NVIDIA H200")])
    assert [line[2] for line in both] == ["cpu-avx2, 2 threads", "cuda-NVIDIA H200"]
    assert both[0][5] == "3.00x"


def test_growth_is_beside_the_line_above_of_the_same_part() -> None:
    """Another part or device begins anew."""
    rows = [make(kind="scale", metric=metric, ours=ours) for metric, ours in (("a", 1.0), ("a", 4.0), ("b", 2.0))]
    assert [line[-1] for line in timing.scale_cells(rows)] == ["-", "4.00", "-"]


def test_the_newest_of_each_line_is_shown() -> None:
    """By date, whatever the order in the file; another setting is another line."""
    old, new = make(ours=0.2, date="2025-01-31T12:00:00+00:00"), make()
    other = make(setting="batch 1")
    assert timing.newest([new, old, other]) == [new, other]


def test_a_line_that_is_not_timed_any_more_is_not_shown() -> None:
    """Breaks if the table has the help of nine commands beside that of eleven; the stored row is read as before."""
    assert timing.RETIRED
    for metric, setting in timing.RETIRED:
        assert timing.newest([make(metric=metric, setting=setting), ROW]) == [ROW]


SAID = {
    None: "-",
    2e-5: "20 µs",
    0.1623: "162 ms",
    0.9999: "1000 ms",
    4.351: "4.35 s",
    119.9: "120 s",
    3600.0: "60 min",
    8.05 * 3600: "8.05 h",
    83.1 * 86400: "83.1 d",
}


@pytest.mark.parametrize(("seconds", "said"), SAID.items())
def test_durations(seconds: float | None, said: str) -> None:
    """Three digits, in the unit that suits."""
    assert timing.duration(seconds) == said
