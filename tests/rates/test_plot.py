import warnings

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgb
from PIL import Image

from figure_checks import build as build_figure
from zoo._figures import LINES, MOST_POINTS, look
from zoo.errors import InputError
from zoo.rates import plot as plan_plot
from zoo.rates.plot import draw_plan
from zoo.rates.plot_rows import Part

TITLE = "Which part learns when"


def cosine(peak, steps=120, start=0.0, warm=0):
    step = np.arange(steps)
    rates = peak * (0.01 + 0.495 * (1 + np.cos(np.pi * step / steps))) * np.minimum(1, (step + 1) / (warm + 1))
    return [0.0] * round(start * steps) + list(rates[round(start * steps) :])


def frozen(name, parameters=1000, tensors=1, steps=120):
    return Part(name, parameters, tensors, [0.0] * steps, "frozen")


def trained(name, rate=0.01, parameters=1000, note="", **shape):
    return Part(name, parameters, 2, cosine(rate, **shape), "from the start", note)


def head_only():
    sizes = {"conv1": 9408, "bn1": 128, "layer1": 215808, "layer2": 1219584, "layer3": 7098368, "layer4": 14964736}
    return [frozen(name, size, 20) for name, size in sizes.items()] + [trained("fc", parameters=20490)]


def gradual(peak=0.01):
    states = {"conv1": 0.75, "layer1": 0.5, "layer2": 0.25, "fc": 0.0}
    return [
        Part(name, 1000, 5, cosine(peak, start=start), f"from epoch {12 * start:g}" if start else "from the start")
        for name, start in states.items()
    ]


def build(parts, epochs=12, title=TITLE):
    """The axes (sheet, strips, lines and perhaps the key), after all was found to be inside the edges."""
    return build_figure(plan_plot._draw_plan, parts, epochs, 10, title).axes


def texts(axes):
    return [text.get_text() for text in axes.texts if text.get_text()]


def named(axes, text):
    (found,) = (each for each in axes.texts if each.get_text() == text)
    return found


def pixels(strips):
    (image,) = strips.images
    return image.get_array()


def colours(strips):
    """What is seen of each row: its colours, or None where the hatching shows."""
    (image,) = strips.images
    rows = image.to_rgba(pixels(strips))
    return [[to_hex(pixel) if pixel[3] else None for pixel in row] for row in rows]


def lightness(colour):
    return sum(to_rgb(colour))


def drawn(lines):
    return [line for line in lines.lines if line.get_marker() == "None"]


def is_drawn(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width == 1500
        assert 500 <= image.height <= 2100
        return len(image.convert("L").getcolors(256)) > 3  # more than an empty sheet


def test_the_network_stands_in_order_with_bars_as_long_as_its_shares():
    sheet, strips, *_ = build(head_only())
    names = [part.name for part in head_only()]
    heights = [named(sheet, name).get_position()[1] for name in names]
    assert heights == sorted(heights, reverse=True)
    written = texts(sheet)
    assert written.index("input") < written.index("output")
    for share, number in [("63.6 %", "15.0 M"), ("30.2 %", "7.10 M"), ("0.9 %", "216 k"), ("< 0.1 %", "20.5 k")]:
        assert share in written
        assert number in written
    assert pixels(strips).shape == (7, MOST_POINTS)
    sheet, *_ = build([trained("a", parameters=300), trained("b", 0.02, parameters=100), trained("c", parameters=0)])
    bars = [patch.get_width() for patch in sheet.patches if to_hex(patch.get_facecolor()) == "#8a8a8a"]
    assert bars == pytest.approx([0.6, 0.2, 0.008])  # the last is a hair, so that the row is seen to have none


def test_a_frozen_part_is_hatched_from_the_beginning_to_the_end():
    _, strips, lines, *_ = build(head_only())
    seen = colours(strips)
    assert all(set(row) == {None} for row in seen[:6])
    assert None not in seen[6]
    assert texts(strips) == ["frozen"] * 6
    assert strips.patches[0].get_hatch()
    assert len(drawn(lines)) == 1
    never = Part("late", 10, 1, [0.0] * 120, "from epoch 40")
    _, strips, lines, *_ = build([never, trained("head")])
    assert set(colours(strips)[0]) == {None}
    assert texts(strips) == ["from epoch 40"]
    assert len(drawn(lines)) == 1
    with look():
        assert [text.get_text() for text in plan_plot._draw_plan([], 1, 1, TITLE).texts] == [TITLE, "no parts"]
    sheet, strips, lines = build([frozen("a"), Part("b", 1, 1, [0.0], "from the start")])
    assert texts(lines) == ["nothing is trained"]
    assert texts(strips) == ["frozen", "rate 0"]
    assert "learning rate" not in texts(sheet)


def test_the_darkest_is_the_highest_rate():
    _, strips, *_ = build([trained("body", 0.001), trained("head", 0.01)])
    body, head = colours(strips)
    assert lightness(head[0]) < lightness(body[0])
    assert lightness(head[0]) < lightness(head[1000]) < lightness(head[-1])
    assert head[0] == to_hex(plan_plot.DEPTHS(1.0))


def test_a_part_that_starts_later_is_hatched_until_then_and_marked():
    _, strips, lines, *_ = build(gradual())
    seen = colours(strips)
    assert [row.count(None) / len(row) for row in seen] == [0.75, 0.5, 0.25, 0]
    marks = [line for line in strips.collections if isinstance(line, LineCollection)][1:]  # the first are the gaps
    assert [mark.get_segments()[0][0][0] for mark in marks] == [9, 6, 3]
    assert texts(strips) == [" from epoch 9 ", " from epoch 6 ", " from epoch 3 "]
    starts = [line for line in lines.lines if line.get_marker() == "o"]
    assert sorted(float(line.get_xdata()[0]) for line in starts) == [3, 6, 9]


@pytest.mark.parametrize(("start", "aligned"), [(0.01, "left"), (0.99, "right")])
def test_the_state_is_written_on_the_side_that_has_room(start, aligned):
    late = Part("late", 10, 1, cosine(0.01, 300, start), "from some epoch")
    _, strips, *_ = build([late, trained("head", steps=300)], epochs=300)
    assert named(strips, " from some epoch ").get_ha() == aligned


def test_marks_beside_the_rows_have_the_colours_of_the_lines():
    sheet, _, lines, *_ = build(gradual())
    marks = [to_hex(patch.get_facecolor()) for patch in sheet.patches if patch.get_width() == 0.09]
    assert marks == [colour.lower() for colour in LINES[:4]]
    assert {to_hex(line.get_color()) for line in drawn(lines)} == set(marks)


def test_equal_curves_share_one_line_and_one_line_needs_no_name():
    sheet, strips, lines, *_ = build([trained("a", 0.01), trained("b", 0.001), trained("c", 0.01)])
    assert len(drawn(lines)) == 2
    assert len(pixels(strips)) == 3
    assert "a, c" in texts(sheet)
    assert texts(build([trained("alone")])[0]).count("alone") == 1


@pytest.mark.parametrize(("low", "scale"), [(0.01, "linear"), (0.001, "linear"), (1e-4, "log"), (1e-9, "log")])
def test_the_axis_is_logarithmic_only_if_parts_are_far_apart(low, scale):
    _, _, lines, *_ = build([trained("body", low), trained("head", 0.01)])
    assert lines.get_yscale() == scale
    assert lines.get_ylim()[1] > 0.01
    low_end, high_end = lines.get_ylim()
    ticks = [tick for tick in lines.get_yticks() if low_end <= tick <= high_end]
    assert 2 <= len(ticks) <= 12


def test_rates_that_warm_up_from_zero_or_reach_it_are_drawn():
    parts = [Part("a", 1, 1, [0.0, 0.01, 0.0], "from the start"), Part("b", 1, 1, [0.0, 1e-5, 0.0], "from the start")]
    _, strips, lines, *_ = build(parts)
    assert lines.get_yscale() == "log"
    assert 1e-8 < lines.get_ylim()[0] < 1e-5
    assert None not in colours(strips)[1]
    rates = [0.0, 0.005, 0.01, 0.0]
    _, strips, lines, *_ = build([Part("head", 10, 1, rates, "from the start")], epochs=2)
    assert None not in colours(strips)[0]
    assert drawn(lines)[0].get_ydata()[[0, 500, 1000, 1999]].tolist() == rates


def test_the_halves_of_a_key_share_a_row_only_if_their_rates_are_equal():
    parts = [trained("a", parameters=900), frozen("b"), trained("a (no decay)", parameters=100)]
    sheet, strips, *_ = build(parts)
    assert len(pixels(strips)) == 2
    assert texts(sheet).count("1.00 k") == 2
    assert "a (no decay)" not in texts(sheet)
    assert "3 groups in 2 rows" in texts(sheet)[0]
    sheet, strips, *_ = build([trained("a", 0.01), trained("a (no decay)", 0.02)])
    assert len(pixels(strips)) == 2
    assert "a (no decay)" in texts(sheet)


@pytest.mark.parametrize(("peak", "note"), [(0.01, "0.01 × 1"), (2.5e-7, "")])
def test_the_highest_rate_and_its_reason_are_written(peak, note):
    sheet, *_ = build([trained("head", peak, note=note)])
    assert {"0.01": "0.01", "2.5e-07": "2.5e-7"}[str(peak)] in texts(sheet)
    assert ("why" in texts(sheet)) == (note in texts(sheet)) == bool(note)


def test_beyond_24_rows_equal_neighbours_are_one_but_frozen_ones():
    parts = [frozen(f"layer{i}") for i in range(29)] + [trained("neck", 0.001), trained("head")]
    sheet, strips, *_ = build(parts)
    assert len(pixels(strips)) == 3
    assert {"layer0 … layer28", "neck", "head"} < set(texts(sheet))
    assert "29.0 k" in texts(sheet)
    _, strips, *_ = build([frozen(f"layer{i}") for i in range(24)])
    assert len(pixels(strips)) == 24


def test_beyond_60_rows_neighbours_are_one_and_frozen_parts_stay_apart():
    parts = [trained(f"backbone.model.stages.{i}.attention.projection.weight", 0.01 * 0.9**i) for i in range(60)]
    sheet, strips, lines, *_ = build(parts)
    assert len(pixels(strips)) == len(drawn(lines)) == 60
    labels = [text for text in texts(sheet) if text.endswith(".attention.projection.weight")]
    assert len(labels) == 60
    assert all(label.startswith("..") for label in labels)
    assert named(sheet, labels[0]).get_fontsize() >= 7
    parts = [frozen(f"stem{i}") for i in range(50)] + [trained(f"block{i}", 0.01 * 0.97**i) for i in range(110)]
    sheet, strips, *_ = build(parts)
    seen = colours(strips)
    assert len(seen) == 56
    assert set(seen[0]) == {None}
    assert all(None not in row for row in seen[1:])
    assert "block0 … block1" in texts(sheet)
    assert "0.0097 … 0.01" in texts(sheet)


def test_parts_that_alternate_are_merged_and_it_is_said():
    parts = [frozen(f"{i}") if i % 2 else trained(f"{i}", 0.01 + i / 1000) for i in range(300)]
    sheet, strips, *_ = build(parts)
    assert len(pixels(strips)) == 60
    assert texts(sheet).count("some are frozen") == 60
    assert "0 … 0.014" in texts(sheet)


@pytest.mark.parametrize("epochs", [1, 2, 12, 300, 10_000])
def test_both_axes_count_whole_epochs(epochs):
    _, strips, lines, *_ = build(gradual(), epochs=epochs)
    for axes in (strips, lines):
        assert axes.get_xlim() == (0, epochs)
        ticks = [tick for tick in axes.get_xticks() if 0 <= tick <= epochs]
        assert 2 <= len(ticks) <= 9
        assert all(float(tick).is_integer() for tick in ticks)
    boxes = [axes.get_position() for axes in (strips, lines)]
    assert boxes[0].x0 == pytest.approx(boxes[1].x0)
    assert boxes[0].x1 == pytest.approx(boxes[1].x1)
    assert boxes[0].width > 0.4


@pytest.mark.parametrize(
    ("part", "total", "text"),
    [
        (0, 10, "0 %"),
        (10, 10, "100 %"),
        (0, 0, "0 %"),
        (1, 10_000, "< 0.1 %"),
        (9_999, 10_000, "> 99.9 %"),
        (1, 3, "33.3 %"),
    ],
)
def test_shares(part, total, text):
    assert plan_plot._percent(part, total) == text


def test_long_names_lose_their_front_and_long_reasons_their_end():
    long = trained("backbone." * 20 + "conv1", note="because " * 20)
    sheet, strips, *_ = build([long, trained("W" * 200, 0.02, note="W" * 200)], title="A title " * 40)
    cut = [text for text in texts(sheet) if text.startswith("..")]
    assert any(text.endswith(".conv1") for text in cut)
    assert any(text.startswith("because") and text.endswith("..") for text in texts(sheet))
    assert strips.get_position().width > 0.25


def test_texts_do_not_run_into_each_other():
    rates = [
        trained(f"backbone.stages.{i}.attention.qkv", 0.0123 * 0.9**i, 10**i, f"0.0123 × 0.9^{i}") for i in range(9)
    ]
    with look():
        figure = plan_plot._draw_plan(rates, 300, 10, TITLE)
        boxes = [text.get_window_extent() for axes in figure.axes for text in axes.texts if text.get_text()]
    boxes = [box.shrunk(0.98, 0.8) for box in boxes]
    assert not [1 for i, box in enumerate(boxes) for other in boxes[i + 1 :] if box.overlaps(other)]


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [Part("one", 640, 2, [0.01], "from the start")],
        [Part("none", 0, 0, [0.0], "from the start")],
        [Part("default", 10, 1, [0.0], "frozen")],
        head_only(),
        gradual(),
        [trained(f"{i}", 10.0**-i) for i in range(9)],
        [trained(f"{i}", 10 * 0.99**i) for i in range(161)],
    ],
    ids=["empty", "one step", "no rate", "frozen", "head", "gradual", "nine decades", "161 rates"],
)
def test_plans_of_all_kinds_are_drawn(parts, tmp_path):
    path = tmp_path / "plan.png"
    assert draw_plan(parts, str(path), epochs=2, steps_per_epoch=1) == path
    assert is_drawn(path)


def test_the_key_shows_only_what_there_is():
    key = {"learning rate", "frozen", "unfrozen"}
    for parts, there in [
        ([trained("a")], {"learning rate"}),
        (head_only(), {"learning rate", "frozen"}),
        (gradual(), key),
    ]:
        assert key & set(texts(build(parts)[0])) == there
    written = texts(build(head_only())[0])
    assert "12 epochs of 10 optimizer steps  ·  7 groups  ·  23.5 M parameters in 122 tensors  ·  < 0.1 % trained" in (
        next(text for text in written if "epochs of" in text)
    )


def test_any_name_is_drawn_as_it_is_without_warnings(tmp_path):
    names = ["$x_1$", "$", "a\nb", "日本", "🐶", "قطة", "हिन्दी", "\udc80", "\x07", "", "a%b", "\\frac{1}"]
    parts = [trained(name, 0.01 / (i + 1), note=name) for i, name in enumerate(names)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_drawn(draw_plan(parts, tmp_path / "plan.png", epochs=3, steps_per_epoch=4, title="$\\alpha$"))
    sheet, *_ = build([trained("$x_1$")])
    assert named(sheet, "$x_1$").get_parse_math() is False


@pytest.mark.parametrize("rates", [[], [-0.1], [float("nan")], [float("inf")], [[0.1]]])
def test_rates_that_cannot_be_are_an_error(rates, tmp_path):
    with pytest.raises(InputError, match=r"part 'fc' has invalid learning rates; expected one or more finite numbers"):
        draw_plan([Part("fc", 1, 1, rates, "from the start")], tmp_path / "a.png", epochs=1, steps_per_epoch=1)
    assert not list(tmp_path.iterdir())


def test_a_frozen_part_with_a_rate_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"part 'fc' is frozen, but has rates above 0"):
        draw_plan([Part("fc", 1, 1, [0.0, 0.1], "frozen")], tmp_path / "a.png", epochs=1, steps_per_epoch=1)


@pytest.mark.parametrize(("epochs", "steps"), [(0, 1), (1, 0), (-1, 1)])
def test_a_run_without_steps_is_an_error(epochs, steps, tmp_path):
    with pytest.raises(InputError, match=rf"{epochs} epochs of {steps} steps; expected 1 or more"):
        draw_plan(gradual(), tmp_path / "a.png", epochs=epochs, steps_per_epoch=steps)


@pytest.mark.parametrize("name", ["a.pdf", "a", "missing/a.png", "folder.png"])
def test_a_path_that_cannot_be_a_png_is_an_error(name, tmp_path):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match=r"expected a \.png file in an existing folder"):
        draw_plan(gradual(), tmp_path / name, epochs=1, steps_per_epoch=1)


def test_the_same_plan_is_the_same_plot(tmp_path):
    paths = [draw_plan(gradual(), tmp_path / f"{i}.png", epochs=3, steps_per_epoch=4) for i in range(2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
