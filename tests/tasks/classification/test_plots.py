import warnings

import numpy as np
import pytest
from PIL import Image

from figure_checks import build, is_drawn, names_on, texts
from zoo._figures import columns, shorten
from zoo.errors import InputError
from zoo.tasks.classification import plots as plots
from zoo.tasks.classification.plots import Mistake, draw_confusion, draw_mistakes


def mistakes(number, size=(8, 8)):
    image = Image.effect_noise(size, 60).convert("RGB")
    return [Mistake(image, f"true {i}", f"guess {i}", i / max(number, 1), f"val/a/{i}.png") for i in range(number)]


def matrix(classes, per_class=40, right=30):
    counts = np.zeros((classes, classes), dtype=int)
    for i in range(classes):
        counts[i, i] = right
        counts[i, (i + 1) % classes] += per_class - right
    return counts


@pytest.mark.parametrize("classes", [1, 2, 10])
def test_a_small_confusion_matrix_shows_every_count(classes):
    counts = matrix(classes)
    figure = build(plots._draw_confusion, counts.astype(float), [f"name {i}" for i in range(classes)])
    axes, key = figure.axes
    assert sorted(text.get_text() for text in axes.texts) == sorted(str(count) for count in counts.ravel())
    assert names_on(axes.yaxis) == names_on(axes.xaxis) == [f"name {i}" for i in range(classes)]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    assert "%" in key.get_ylabel()


def test_a_confusion_matrix_is_coloured_by_the_share_of_each_row():
    figure = build(plots._draw_confusion, np.array([[9.0, 1.0], [0.0, 200.0]]), ["few", "many"])
    assert figure.axes[0].images[0].get_array().tolist() == [[90, 10], [0, 100]]
    assert "Confusion matrix: 99.5 % of 210 images right" in texts(figure)


@pytest.mark.parametrize("classes", [21, 200])
def test_a_large_confusion_matrix_thins_its_names_and_lists_the_confusions(classes):
    counts = matrix(classes)
    counts[3, 7] = 25
    figure = build(plots._draw_confusion, counts.astype(float), [f"name {i}" for i in range(classes)])
    axes, _, pairs = figure.axes
    assert len(names_on(axes.yaxis)) <= plots.MOST_TICKS
    assert not axes.texts
    assert len(pairs.patches) == 20
    assert names_on(pairs.yaxis)[0] == "name 3 → name 7"
    assert pairs.texts[0].get_text() == "25 (38 %)"


def test_sheets_and_matrices_without_mistakes_say_so(tmp_path):
    figure = build(plots._draw_confusion, np.eye(30) * 5, [f"{i}" for i in range(30)])
    assert "No confusions" in texts(figure)
    assert "no mistakes" in texts(build(plots._draw_mistakes, []))
    assert is_drawn(draw_mistakes([], tmp_path / "mistakes.png"))


def test_long_names_stay_on_the_plot_and_keep_both_ends():
    names = ["W" * 80, "Staffordshire bullterrier of the neighbours", "漢字" * 30, "x"]
    for times in (1, 8):
        figure = build(plots._draw_confusion, matrix(4 * times).astype(float), names * times)
        assert max(map(len, names_on(figure.axes[0].yaxis))) == 22
    image = Image.new("RGB", (32, 32))
    long = [Mistake(image, "m" * 60, "German short-haired pointer", 0.99, f"{'n' * 90}.png")] * 6
    figure = build(plots._draw_mistakes, long)
    assert max(text.get_window_extent().width / figure.dpi for text in figure.axes[0].texts[1:]) < 1.7
    assert shorten("German short-haired pointer", 18) == "German shor…ointer"
    assert shorten("short", 18) == "short"
    assert shorten("two\n words\t", 18) == "two words"
    assert shorten("漢字漢字漢字漢字", 10) == "漢字漢…字"
    assert all(columns(shorten("漢a" * 30, width)) <= width for width in range(4, 40))


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
    counts = matrix(4)
    counts[2] = 0
    assert is_drawn(draw_confusion(counts, list("abcd"), tmp_path / "confusion.png"))
    assert is_drawn(draw_confusion(np.zeros((3, 3), dtype=int), list("abc"), tmp_path / "none.png"))


@pytest.mark.parametrize(("number", "shown"), [(1, 1), (7, 7), (30, 24)])
def test_the_sheet_shows_the_most_confident_mistakes_first(number, shown):
    figure = build(plots._draw_mistakes, mistakes(number))
    assert len(figure.axes[0].images) == shown
    written = texts(figure)
    assert f"Most confident mistakes: {shown}" + (f" of {number}" if number > shown else "") in written
    predictions = [text for text in written if text.startswith("guess")]
    assert len(predictions) == shown
    assert predictions[0] == f"guess {number - 1} {100 * (number - 1) / number:.0f} %"
    assert f"is true {number - 1}" in written
    assert f"{number - 1}.png" in written


def test_tiny_images_keep_square_pixels():
    image = Image.new("RGB", (8, 8))
    image.putpixel((3, 4), (255, 0, 0))
    square = np.asarray(plots._fit(image))
    assert square.shape == (240, 240, 3)
    assert {tuple(pixel) for pixel in square.reshape(-1, 3)} == {(0, 0, 0), (255, 0, 0)}
    assert (square[120:150, 90:120] == (255, 0, 0)).all()


@pytest.mark.parametrize("size", [(1, 1), (1000, 10), (10, 1000), (4000, 1), (640, 480)])
def test_images_of_any_shape_keep_it(size):
    square = np.asarray(plots._fit(Image.new("RGB", size, "white")))
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
    figure = build(plots._draw_confusion, matrix(2).astype(float), ["$x_1$", "cat"])
    label = figure.axes[0].get_yticklabels()[0]
    assert label.get_text() == "$x_1$"
    assert label.get_parse_math() is False
