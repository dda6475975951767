"""Figures: the pixels are the images', the curves are the numbers', and nothing is shown."""

import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from figures.plotting import (
    GAP,
    Level,
    energy_trace,
    image_grid,
    image_panels,
    image_rows,
    recorded,
    save,
    score_histograms,
    training_curves,
    transition,
)
from jlebm.errors import UserError


def pictures(count: int, channels: int = 3, size: int = 8) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, channels, size, size), dtype=np.uint8)


@pytest.mark.parametrize(("count", "columns", "channels", "scale"), [(6, 3, 3, 2), (5, 4, 1, 3), (1, 1, 3, 1)])
def test_a_grid_is_exact(count: int, columns: int, channels: int, scale: int) -> None:
    """Would break if a rendered grid blurred, recoloured, reordered or cut an image."""
    images = pictures(count, channels)
    figure = image_grid(images, columns, scale)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[:, :, :3]
    rows = -(-count // columns)
    # make_grid puts no gap around a lone image.
    gap, shown = (0, columns) if count == 1 else (GAP, min(columns, count))
    assert drawn.shape == ((rows * (8 + gap) + gap) * scale, (shown * (8 + gap) + gap) * scale, 3)
    pixels = drawn[scale // 2 :: scale, scale // 2 :: scale]
    assert np.array_equal(drawn, pixels.repeat(scale, 0).repeat(scale, 1))
    for index, image in enumerate(images):
        top, left = gap + index // columns * (8 + gap), gap + index % columns * (8 + gap)
        wanted = np.broadcast_to(image, (3, 8, 8)).transpose(1, 2, 0)
        np.testing.assert_array_equal(pixels[top : top + 8, left : left + 8], wanted)


def test_rows_are_labelled_and_exact() -> None:
    """Would break if a group stood under another's name, a pixel were blurred, or a label were cut."""
    groups = {"decoded posterior": pictures(4), "data": pictures(6)}
    figure = image_rows(groups, columns=2)
    assert [axes.get_ylabel() for axes in figure.axes] == ["decoded posterior", "data"]
    for axes, images in zip(figure.axes, groups.values(), strict=True):
        grid = np.asarray(axes.images[0].get_array())
        np.testing.assert_array_equal(grid[GAP : GAP + 8, GAP : GAP + 8], images[0].transpose(1, 2, 0))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[:, :, :3]
    for axes in figure.axes:
        grid, box = np.asarray(axes.images[0].get_array()), axes.bbox
        top, left = drawn.shape[0] - round(box.y1), round(box.x0)
        height, width = grid.shape[0] * 2, grid.shape[1] * 2
        wanted = grid.repeat(2, 0).repeat(2, 1)
        np.testing.assert_array_equal(drawn[top : top + height, left : left + width], wanted)
        assert axes.yaxis.label.get_window_extent().x0 > 0


def test_panels_are_placed_and_exact() -> None:
    """Would break if a grid stood in another's row or column, were blurred, or letters shrank on a wide figure."""
    rows = {name: {f"layer {k}": pictures(4 + k, size=64) for k in range(3)} for name in ("EBM", "Gaussian\ntwin")}
    figure = image_panels(rows, columns=10, scale=1, notes=["a note " * 40])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[:, :, :3]
    assert figure.get_figwidth() <= 7.21
    flat = [(name, title, images) for name, panels in rows.items() for title, images in panels.items()]
    for (name, title, images), axes in zip(flat, figure.axes, strict=True):
        top, left = drawn.shape[0] - round(axes.bbox.y1), round(axes.bbox.x0)
        wanted = np.asarray(axes.images[0].get_array())
        np.testing.assert_array_equal(wanted[GAP : GAP + 64, GAP : GAP + 64], images[0].transpose(1, 2, 0))
        np.testing.assert_array_equal(drawn[top : top + wanted.shape[0], left : left + wanted.shape[1]], wanted)
        assert axes.get_title() == (title if name == "EBM" else "")
        assert axes.get_ylabel() == (name if title == "layer 0" else "")
    (note,) = figure.texts
    assert note.get_window_extent(canvas.get_renderer()).y1 <= figure.axes[-1].bbox.y0
    assert len({round(axes.bbox.x0) for axes in figure.axes}) == 3


def test_a_transition() -> None:
    """Would break if a strip were of several chains, a snapshot at another step, or a level beside another's data."""
    strips = np.stack([pictures(5), pictures(6)[1:]])
    energy = np.linspace(3, 0, 51)[:, None] * np.ones((51, 4))
    levels = {"saturated": Level(np.arange(5) / 10, 0.3), "diversity": Level(np.ones(5), 0.5)}
    strip, curve, *below = transition(strips, energy, levels).axes
    grid = np.asarray(strip.images[0].get_array())
    for chain, snapshot in ((0, 4), (1, 0)):
        top, left = GAP + chain * (8 + GAP), GAP + snapshot * (8 + GAP)
        wanted = strips[chain, snapshot].transpose(1, 2, 0)
        np.testing.assert_array_equal(grid[top : top + 8, left : left + 8], wanted)
    assert "an image every 10 steps" in strip.get_title()
    np.testing.assert_allclose(np.asarray(curve.lines[0].get_ydata()), energy[:, 0])
    assert [axes.get_ylabel() for axes in below] == list(levels)
    for axes, level in zip(below, levels.values(), strict=True):
        chains, data = axes.lines
        np.testing.assert_array_equal(np.asarray(chains.get_xdata()), [0, 10, 20, 30, 40])
        np.testing.assert_array_equal(np.asarray(chains.get_ydata()), level.values)
        assert set(np.asarray(data.get_ydata())) == {level.data}


def test_histograms_are_densities_of_all_scores() -> None:
    """Would break if counts were drawn instead of densities, so that the larger set looked likelier, or tails lost."""
    random = np.random.default_rng(0)
    inside, outside = random.normal(size=(1, 4000)), random.normal(2, 1, size=(1, 400))
    outside[0, 0] = 1e6
    (axes,) = score_histograms(inside, outside, ["L>0"], ("inside", "outside")).axes
    for stairs in axes.patches:
        heights, edges, _ = stairs.get_data()  # type: ignore[attr-defined]
        assert np.sum(heights * np.diff(edges)) == pytest.approx(1)
        assert edges[-1] < 100
    assert {patch.get_hatch() for patch in axes.patches} == {None, "/////"}
    assert [patch.get_linestyle() for patch in axes.patches[1::2]] == ["-", "--"]


def test_the_energy_trace() -> None:
    """Would break if steps and chains were swapped, the band were not over chains, or the axis hid its sign."""
    traces = np.array([[1.0, 3.0], [0.0, 4.0], [5.0, 5.0]])
    (axes,) = energy_trace(traces).axes
    np.testing.assert_array_equal(np.asarray(axes.lines[0].get_ydata()), [2.0, 2.0, 5.0])
    band = axes.collections[0].get_paths()[0].vertices
    assert np.asarray(band)[:, 1].min() == 0.0
    assert "lower is more likely" in axes.get_ylabel()


def test_the_energy_trace_of_layers() -> None:
    """Would break if the top layer (index 0) got the bottom one's name, or the sum left a layer out."""
    traces = np.stack([np.full((3, 2), 10.0), np.full((3, 2), 1.0)], axis=2)
    (axes,) = energy_trace(traces).axes
    levels = {str(line.get_label()): float(np.asarray(line.get_ydata())[0]) for line in axes.lines}
    assert levels == {"all layers": 11.0, "z2": 10.0, "z1": 1.0}


def test_training_curves() -> None:
    """Would break if an event without a step, a flag or a text were drawn, or a value at another step."""
    events = [
        {"event": "start", "seed": 1},
        {"event": "step", "step": 10, "loss": 3.0, "ok": True, "time": "12:00"},
        {"event": "step", "step": 20, "loss": 2.0, "gap": 0.5},
    ]
    figure = training_curves(events)
    drawn = {axes.get_title(): np.asarray(axes.lines[0].get_xydata()).tolist() for axes in figure.axes}
    assert drawn == {"loss": [[10.0, 3.0], [20.0, 2.0]], "gap": [[20.0, 0.5]]}
    assert [axes.get_title() for axes in training_curves(events, ["gap"]).axes] == ["gap"]


def test_what_a_run_recorded() -> None:
    """Would break if the clock were a curve, a figure of fewer records were stretched, or the order were another."""
    events = [{"step": 1, "seconds": 0.5, "loss": 3, "gap": 0.5}, {"step": 11, "seconds": 1.0, "loss": 2.0}]
    curves = {name: array.tolist() for name, array in recorded(events).items()}
    assert list(curves.items()) == [("gap", [[1.0], [0.5]]), ("loss", [[1.0, 11.0], [3.0, 2.0]])]


def test_training_curves_leave_no_empty_panel() -> None:
    """Would break if the spare panels of the last row stayed, one or two of them."""
    for count in (4, 5, 6):
        figure = training_curves([{"step": 1, **{f"figure{index}": 1.0 for index in range(count)}}])
        assert [axes.get_title() for axes in figure.axes] == [f"figure{index}" for index in range(count)]


def test_bad_input_gets_a_sentence() -> None:
    """Would break if nothing, or something infinite, were drawn as an empty figure."""
    for draw, sentence in (
        (lambda: image_grid(pictures(0), 2), "no images"),
        (lambda: image_grid(pictures(2), 0), "at least one column"),
        (lambda: image_grid(pictures(2), 1, 0), "scale is 0"),
        (lambda: image_rows({}, 2), "no groups"),
        (lambda: image_panels({"a": {"x": pictures(1)}, "b": {"y": pictures(1)}}, 1), "'b' has the grids"),
        (
            lambda: transition(pictures(4)[None], np.zeros((5, 1)), {"a": Level(np.ones(3), 1.0)}),
            "the level 'a' needs a finite number",
        ),
        (lambda: score_histograms(np.ones((1, 2)), np.ones((1, 2)), [], ("a", "b")), "have 0 titles"),
        (lambda: score_histograms(np.ones((1, 2)), np.ones((1, 0)), ["L"], ("a", "b")), "'L' are empty"),
        (lambda: energy_trace(np.zeros((0, 2))), "empty"),
        (lambda: energy_trace(np.array([[1.0], [np.inf]])), "not finite from step 1"),
        (lambda: training_curves([]), "no event"),
        (lambda: training_curves([{"step": 1, "loss": 1.0}], ["los"]), "nearest known one is 'loss'"),
    ):
        with pytest.raises(UserError, match=sentence):
            draw()


def test_saving(tmp_path: Path) -> None:
    """Would break if the PNG were rescaled, the PDF not written, or two drawings of one figure differed."""
    images = pictures(2)
    paths = save(image_grid(images, 2), tmp_path / "v1.0")
    assert [path.name for path in paths] == ["v1.0.pdf", "v1.0.png"]
    assert paths[0].read_bytes().startswith(b"%PDF")
    with Image.open(paths[1]) as picture:
        pixels = np.asarray(picture.convert("RGB"))[::2, ::2]
    np.testing.assert_array_equal(pixels[GAP : GAP + 8, GAP : GAP + 8], images[0].transpose(1, 2, 0))
    again = save(image_grid(images, 2), tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_notes_stand_below_the_trace_whole() -> None:
    """Would break if a chain's diagnosis were cut off, or drawn over the curves."""
    notes = ["z2 has not moved: " + "very " * 60 + "long", "z1 moved"]
    figure = energy_trace(np.zeros((3, 4, 2)), notes=notes)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (text,) = [each for each in figure.texts if "z2" in each.get_text()]
    assert " ".join(text.get_text().split()) == " ".join(notes)
    box = text.get_window_extent(canvas.get_renderer())
    assert box.x1 <= figure.bbox.x1
    assert box.y1 <= figure.axes[0].xaxis.get_tightbbox(canvas.get_renderer()).y0  # type: ignore[union-attr]
