import subprocess
import sys
import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from zoo._figures import columns, look, shorten
from zoo.errors import InputError
from zoo.tasks.classification import plots as pictures
from zoo.tasks.classification.plots import Mistake, draw_confusion, draw_curves, draw_mistakes, draw_rates


def records(epochs, **changes):
    scores = [{"val_loss": 2 / e, "top1": 0.9 - 0.4 / e, "top5": 0.99 - 0.09 / e} for e in range(1, epochs + 1)]
    return [{"epoch": i + 1, "loss": 2.3 / (i + 1), **score, **changes} for i, score in enumerate(scores)]


def mistakes(number, size=(8, 8)):
    image = Image.effect_noise(size, 60).convert("RGB")
    return [Mistake(image, f"true {i}", f"guess {i}", i / max(number, 1), f"val/a/{i}.png") for i in range(number)]


def matrix(classes, per_class=40, right=30):
    counts = np.zeros((classes, classes), dtype=int)
    for i in range(classes):
        counts[i, i] = right
        counts[i, (i + 1) % classes] += per_class - right
    return counts


def build(draw, *args):
    """The figure, after all of it was found to be inside its edges."""
    with look():
        figure = draw(*args)
        figure.draw_without_rendering()
        width, height = figure.get_size_inches()
        box = figure.get_tightbbox()
        assert min(box.x0, box.y0, width - box.x1, height - box.y1) >= -0.01
    return figure


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


def names_on(axis):
    low, high = sorted(axis.get_view_interval())
    return [tick.label1.get_text() for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]


def is_drawn(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert 400 <= image.width <= 3000
        assert 200 <= image.height <= 3000
        return len(image.convert("L").getcolors(256)) > 3  # more than an empty sheet


@pytest.mark.parametrize("epochs", [1, 30, 300])
def test_curves_show_loss_and_accuracy(epochs):
    figure = build(pictures._draw_curves, records(epochs), pictures.ACCURACY)
    loss, accuracy = figure.axes
    assert [line.get_label() for line in loss.lines] == ["training", "validation"]
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == ["top-5", "top-1"]
    assert len(loss.lines[0].get_xdata()) == epochs
    assert (loss.get_xlabel(), loss.get_ylabel()) == ("epoch", "loss")
    assert f"Best top-1 {90 - 40 / epochs:.1f} %, epoch {epochs}" in accuracy.get_title(loc="left")
    assert all(float(name).is_integer() for name in names_on(loss.xaxis))
    assert accuracy.get_ylim()[1] <= 101


def test_curves_skip_epochs_that_were_not_evaluated():
    some = records(6)
    for record in some[::2]:
        for key in ("val_loss", "top1", "top5"):
            del record[key]
    loss, accuracy = build(pictures._draw_curves, some, pictures.ACCURACY).axes
    assert list(loss.lines[1].get_xdata()) == [2, 4, 6]
    assert list(accuracy.lines[0].get_xdata()) == [2, 4, 6]


def test_curves_without_evaluation_or_epochs_say_so():
    plain = [{"epoch": 1, "loss": 2.0, "val_loss": None, "top1": None}]
    assert "not evaluated" in texts(build(pictures._draw_curves, plain, pictures.ACCURACY))
    assert "no epochs" in texts(build(pictures._draw_curves, [], pictures.ACCURACY))


def test_curves_of_a_loss_that_is_no_number_are_drawn(tmp_path):
    assert is_drawn(draw_curves(records(3, loss=float("nan")), tmp_path / "curves.png"))


def test_equal_losses_do_not_look_far_apart():
    loss, _ = build(
        pictures._draw_curves, [{"epoch": 1, "loss": 2.001, "val_loss": 2.002, "top1": 0.1}], pictures.ACCURACY
    ).axes
    bottom, top = loss.get_ylim()
    assert top - bottom >= 0.09


def cosine(peak, steps=100):
    return list(peak * (0.01 + 0.495 * (1 + np.cos(np.pi * np.arange(steps) / steps))))


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize(("peaks", "scale"), [([0.01], "linear"), ([0.01, 0.001], "linear"), ([0.01, 1e-4], "log")])
def test_the_axis_of_rates_is_logarithmic_only_if_groups_are_far_apart(peaks, scale):
    figure = build(pictures._draw_rates, {f"g{i}": cosine(peak) for i, peak in enumerate(peaks)}, 10)
    (axes,) = figure.axes
    assert axes.get_yscale() == scale
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("optimizer step", "learning rate")
    assert legend(figure)[0] == "g0: 0.01"
    assert not any("$" in name for name in names_on(axes.yaxis))


def test_a_second_axis_counts_epochs():
    (axes,) = build(pictures._draw_rates, {"head": cosine(0.01, 200)}, 50).axes
    (top,) = axes.child_axes
    assert top.get_xlabel() == "epoch"
    assert top.get_xlim()[1] == pytest.approx(axes.get_xlim()[1] / 50)


def test_frozen_groups_are_named_and_equal_groups_share_a_line():
    rates = {"head": cosine(0.01), "head (no decay)": cosine(0.01), "stem": [0.0] * 100, "default": [0.0] * 100}
    figure = build(pictures._draw_rates, rates, 10)
    assert legend(figure) == ["head, head (no decay): 0.01", "stem, default: frozen"]


def test_rates_that_reach_zero_are_drawn_on_a_logarithmic_axis():
    rates = {"head": [0.0, 0.01, 0.005, 0.0], "default": [0.0, 1e-4, 5e-5, 0.0], "stem": [0.0] * 4}
    figure = build(pictures._draw_rates, rates, 2)
    assert figure.axes[0].get_yscale() == "log"
    assert figure.axes[0].get_ylim()[0] > 1e-7


@pytest.mark.parametrize("groups", [12, 60])
def test_many_groups_have_a_legend_that_fits(groups):
    rates = {f"blocks.{i}.a.very.long.name.of.a.group": cosine(0.01 * 0.8**i) for i in range(groups)}
    figure = build(pictures._draw_rates, rates, 10)
    assert len(legend(figure)) == min(groups, 20)
    assert ("... and 40 more" in legend(figure)[-1]) == (groups == 60)
    assert len({tuple(line.get_color()) for line in figure.axes[0].lines}) == groups


def test_long_runs_are_thinned_but_keep_their_ends():
    (axes,) = build(pictures._draw_rates, {"head": cosine(0.01, 50_000)}, 1000).axes
    steps = axes.lines[0].get_xdata()
    assert len(steps) <= pictures.MOST_POINTS
    assert (steps[0], steps[-1]) == (1, 50_000)


@pytest.mark.parametrize("rates", [{}, {"head": []}, {"head": [0.01]}, {"default": [0.0, 0.0]}])
def test_rates_of_short_runs_are_drawn(rates, tmp_path):
    assert is_drawn(draw_rates(rates, tmp_path / "rates.png", steps_per_epoch=0))


@pytest.mark.parametrize("classes", [1, 2, 10])
def test_a_small_confusion_matrix_shows_every_count(classes):
    counts = matrix(classes)
    figure = build(pictures._draw_confusion, counts.astype(float), [f"name {i}" for i in range(classes)])
    axes, key = figure.axes
    assert sorted(text.get_text() for text in axes.texts) == sorted(str(count) for count in counts.ravel())
    assert names_on(axes.yaxis) == names_on(axes.xaxis) == [f"name {i}" for i in range(classes)]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    assert "%" in key.get_ylabel()


def test_a_confusion_matrix_is_coloured_by_the_share_of_each_row():
    figure = build(pictures._draw_confusion, np.array([[9.0, 1.0], [0.0, 200.0]]), ["few", "many"])
    assert figure.axes[0].images[0].get_array().tolist() == [[90, 10], [0, 100]]
    assert "Confusion matrix: 99.5 % of 210 images right" in texts(figure)


def test_a_class_without_images_is_drawn_without_warnings(tmp_path):
    counts = matrix(4)
    counts[2] = 0
    assert is_drawn(draw_confusion(counts, list("abcd"), tmp_path / "confusion.png"))
    assert is_drawn(draw_confusion(np.zeros((3, 3), dtype=int), list("abc"), tmp_path / "none.png"))


@pytest.mark.parametrize("classes", [21, 200])
def test_a_large_confusion_matrix_thins_its_names_and_lists_the_confusions(classes):
    counts = matrix(classes)
    counts[3, 7] = 25
    figure = build(pictures._draw_confusion, counts.astype(float), [f"name {i}" for i in range(classes)])
    axes, _, pairs = figure.axes
    assert len(names_on(axes.yaxis)) <= pictures.MOST_TICKS
    assert not axes.texts
    assert len(pairs.patches) == 20
    assert names_on(pairs.yaxis)[0] == "name 3 → name 7"
    assert pairs.texts[0].get_text() == "25 (38 %)"


def test_a_large_matrix_without_mistakes_says_so():
    figure = build(pictures._draw_confusion, np.eye(30) * 5, [f"{i}" for i in range(30)])
    assert "No confusions" in texts(figure)


def test_long_names_do_not_leave_the_picture():
    names = ["W" * 80, "Staffordshire bullterrier of the neighbours", "漢字" * 30, "x"]
    for times in (1, 8):
        figure = build(pictures._draw_confusion, matrix(4 * times).astype(float), names * times)
        assert max(map(len, names_on(figure.axes[0].yaxis))) == 22


@pytest.mark.parametrize(
    "counts",
    [np.zeros((2, 3)), np.zeros((3, 3)), [[1, -1], [0, 1]], [[float("nan"), 0], [0, 1]], [["a", "b"], ["c", "d"]]],
)
def test_a_matrix_that_cannot_be_is_an_error(counts, tmp_path):
    with pytest.raises(InputError, match="confusion matrix"):
        draw_confusion(counts, ["a", "b"], tmp_path / "confusion.png")
    assert not list(tmp_path.iterdir())


def test_the_error_of_a_wrong_shape_says_both_shapes(tmp_path):
    with pytest.raises(InputError, match="is 2x3 for 2 classes; expected one row and column per class"):
        draw_confusion(np.zeros((2, 3)), ["a", "b"], tmp_path / "confusion.png")


@pytest.mark.parametrize(("number", "shown"), [(1, 1), (7, 7), (30, 24)])
def test_the_sheet_shows_the_most_confident_mistakes_first(number, shown):
    figure = build(pictures._draw_mistakes, mistakes(number))
    assert len(figure.axes[0].images) == shown
    written = texts(figure)
    assert f"Most confident mistakes: {shown}" + (f" of {number}" if number > shown else "") in written
    predictions = [text for text in written if text.startswith("guess")]
    assert len(predictions) == shown
    assert predictions[0] == f"guess {number - 1} {100 * (number - 1) / number:.0f} %"
    assert f"is true {number - 1}" in written
    assert f"{number - 1}.png" in written


def test_a_sheet_without_mistakes_says_so(tmp_path):
    assert "no mistakes" in texts(build(pictures._draw_mistakes, []))
    assert is_drawn(draw_mistakes([], tmp_path / "mistakes.png"))


def test_long_names_do_not_run_into_the_next_mistake():
    image = Image.new("RGB", (32, 32))
    long = [Mistake(image, "m" * 60, "German short-haired pointer", 0.99, f"{'n' * 90}.png")] * 6
    figure = build(pictures._draw_mistakes, long)
    assert max(text.get_window_extent().width / figure.dpi for text in figure.axes[0].texts[1:]) < 1.7


def test_tiny_images_keep_square_pixels():
    image = Image.new("RGB", (8, 8))
    image.putpixel((3, 4), (255, 0, 0))
    square = np.asarray(pictures._fit(image))
    assert square.shape == (240, 240, 3)
    assert {tuple(pixel) for pixel in square.reshape(-1, 3)} == {(0, 0, 0), (255, 0, 0)}
    assert (square[120:150, 90:120] == (255, 0, 0)).all()


@pytest.mark.parametrize("size", [(1, 1), (1000, 10), (10, 1000), (4000, 1), (640, 480)])
def test_images_of_any_shape_keep_it(size):
    square = np.asarray(pictures._fit(Image.new("RGB", size, "white")))
    height, width = ((square == 255).all(axis=2)).any(axis=1).sum(), ((square == 255).all(axis=2)).any(axis=0).sum()
    assert max(width, height) == 240
    assert width / height == pytest.approx(size[0] / size[1], rel=0.01) or min(width, height) <= 2


def test_any_name_can_be_drawn_without_warnings(tmp_path):
    names = ["$x_1$", "$", "a\nb", "日本", "🐶", "قطة", "हिन्दी", "חתול", "\udc80", "\x07", "", "a%b", "\\frac{1}"]
    image = Image.new("RGB", (9, 9))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_drawn(draw_confusion(matrix(13), names, tmp_path / "confusion.png"))
        assert is_drawn(draw_confusion(matrix(26), names * 2, tmp_path / "large.png"))
        assert is_drawn(
            draw_mistakes([Mistake(image, name, name, 0.5, name) for name in names], tmp_path / "sheet.png")
        )
        rates = {name: [0.1 * i, 0.2] for i, name in enumerate(names)}
        assert is_drawn(draw_rates(rates, tmp_path / "rates.png", steps_per_epoch=1))


def test_dollars_are_not_mathematics():
    figure = build(pictures._draw_confusion, matrix(2).astype(float), ["$x_1$", "cat"])
    label = figure.axes[0].get_yticklabels()[0]
    assert label.get_text() == "$x_1$"
    assert label.get_parse_math() is False


def test_a_long_name_keeps_both_ends():
    assert shorten("German short-haired pointer", 18) == "German shor…ointer"
    assert shorten("short", 18) == "short"
    assert shorten("two\n words\t", 18) == "two words"
    assert shorten("漢字漢字漢字漢字", 10) == "漢字漢…字"
    assert all(columns(shorten("漢a" * 30, width)) <= width for width in range(4, 40))


def test_a_picture_is_written_at_once_and_replaces_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "curves.png"
    assert draw_curves(records(2), str(path)) == path
    old = path.read_bytes()
    monkeypatch.setattr(pictures.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        draw_curves(records(3), path)
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]
    assert path.read_bytes() == old


def test_the_users_own_settings_neither_matter_nor_change(tmp_path):
    draw_curves(records(2), tmp_path / "plain.png")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "text.usetex": True}):
        draw_curves(records(2), tmp_path / "dark.png")
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "dark.png").read_bytes()


def test_importing_brings_neither_torch_nor_a_window():
    code = "import sys, zoo.tasks.classification.plots; print({'torch', 'matplotlib.pyplot'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
