import warnings

import numpy as np
import pytest

from figure_checks import ODD_NAMES, build, is_drawn, names_on, texts
from zoo.errors import InputError
from zoo.tasks import confusion_plot
from zoo.tasks.confusion_plot import draw_confusion


def matrix(classes, per_class=40, right=30):
    counts = np.zeros((classes, classes), dtype=int)
    for i in range(classes):
        counts[i, i] = right
        counts[i, (i + 1) % classes] += per_class - right
    return counts


@pytest.mark.parametrize("classes", [1, 2, 10])
def test_a_small_confusion_matrix_shows_every_count(classes):
    counts = matrix(classes)
    figure = build(confusion_plot._draw_confusion, counts.astype(float), [f"name {i}" for i in range(classes)])
    axes, key = figure.axes
    assert sorted(text.get_text() for text in axes.texts) == sorted(str(count) for count in counts.ravel())
    assert names_on(axes.yaxis) == names_on(axes.xaxis) == [f"name {i}" for i in range(classes)]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    assert "%" in key.get_ylabel()


def test_a_confusion_matrix_is_coloured_by_the_share_of_each_row():
    figure = build(confusion_plot._draw_confusion, np.array([[9.0, 1.0], [0.0, 200.0]]), ["few", "many"])
    assert figure.axes[0].images[0].get_array().tolist() == [[90, 10], [0, 100]]
    assert "Confusion matrix: 99.5 % of 210 images correct" in texts(figure)


@pytest.mark.parametrize("classes", [21, 200])
def test_a_large_confusion_matrix_thins_its_names_and_lists_the_confusions(classes):
    counts = matrix(classes)
    counts[3, 7] = 25
    figure = build(confusion_plot._draw_confusion, counts.astype(float), [f"name {i}" for i in range(classes)])
    axes, _, pairs = figure.axes
    assert len(names_on(axes.yaxis)) <= confusion_plot.MOST_TICKS
    assert not axes.texts
    assert len(pairs.patches) == 20
    assert names_on(pairs.yaxis)[0] == "name 3 → name 7"
    assert pairs.texts[0].get_text() == "25 (38 %)"


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


def test_without_confusions_the_list_says_so():
    figure = build(confusion_plot._draw_confusion, np.eye(30) * 5, [f"{i}" for i in range(30)])
    assert "No confusions" in texts(figure)


def test_a_title_of_ones_own_replaces_the_share_of_images(tmp_path):
    assert "boxes" in texts(build(confusion_plot._draw_confusion, np.eye(2), ["a", "background"], "boxes"))


def test_long_names_stay_on_the_plot():
    names = ["W" * 80, "Staffordshire bullterrier of the neighbours", "漢字" * 30, "x"]
    for times in (1, 8):
        figure = build(confusion_plot._draw_confusion, matrix(4 * times).astype(float), names * times)
        assert max(map(len, names_on(figure.axes[0].yaxis))) == 22


def test_any_name_can_be_drawn_without_warnings(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_drawn(draw_confusion(matrix(len(ODD_NAMES)), ODD_NAMES, tmp_path / "confusion.png"))
        assert is_drawn(draw_confusion(matrix(2 * len(ODD_NAMES)), ODD_NAMES * 2, tmp_path / "large.png"))
    figure = build(confusion_plot._draw_confusion, matrix(2).astype(float), ["$x_1$", "cat"])
    label = figure.axes[0].get_yticklabels()[0]
    assert label.get_text() == "$x_1$"
    assert label.get_parse_math() is False
