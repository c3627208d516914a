import warnings

import numpy as np
import pytest
from PIL import Image

from figure_checks import ODD_NAMES, build, is_drawn, texts
from zoo._figures import columns, shorten
from zoo.tasks.classification import plots as plots
from zoo.tasks.classification.plots import Tile, draw_batch, draw_mistakes, draw_predictions


def mistakes(number, size=(8, 8)):
    image = Image.effect_noise(size, 60).convert("RGB")
    return [Tile(image, f"guess {i}", i / max(number, 1), f"val/a/{i}.png", f"true {i}") for i in range(number)]


def test_a_sheet_without_mistakes_is_drawn(tmp_path):
    assert is_drawn(draw_mistakes([], tmp_path / "mistakes.png"))


def test_long_names_stay_on_the_plot_and_keep_both_ends():
    image = Image.new("RGB", (32, 32))
    long = [Tile(image, "German short-haired pointer", 0.99, f"{'n' * 90}.png", "m" * 60)] * 6
    figure = build(plots._draw_sheet, "Predictions", "what", long)
    assert max(text.get_window_extent().width / figure.dpi for text in figure.axes[0].texts[1:]) < 1.7
    assert shorten("German short-haired pointer", 18) == "German shor…ointer"
    assert shorten("short", 18) == "short"
    assert shorten("two\n words\t", 18) == "two words"
    assert shorten("漢字漢字漢字漢字", 10) == "漢字漢…字"
    assert all(columns(shorten("漢a" * 30, width)) <= width for width in range(4, 40))


@pytest.mark.parametrize(("number", "shown"), [(1, 1), (7, 7), (30, 24)])
def test_the_sheet_shows_the_most_confident_mistakes_first(number, shown, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    draw_mistakes(mistakes(number), tmp_path / "mistakes.png")
    draw_mistakes(mistakes(number)[:shown], tmp_path / "mistakes.png", total=31)
    figure, of_31 = drawn
    assert len(figure.axes[0].images) == shown
    written = texts(figure)
    assert f"Most confident mistakes: {shown}" + (f" of {number}" if number > shown else "") in written
    assert f"Most confident mistakes: {shown} of 31" in texts(of_31)
    predictions = [text for text in written if text.startswith("guess")]
    assert len(predictions) == shown
    assert predictions[0] == f"guess {number - 1} {100 * (number - 1) / number:.0f} %"
    assert f"true: true {number - 1}" in written
    assert f"a/{number - 1}.png" in written


def test_a_sheet_of_predictions_keeps_their_order_and_needs_no_truth(monkeypatch, tmp_path):
    tiles = [Tile(Image.new("RGB", (8, 8)), f"guess {i}", i / 3, f"{i}.png") for i in range(3)]
    assert is_drawn(draw_predictions(tiles, tmp_path / "predictions.png"))
    written = texts(build(plots._draw_sheet, "Predictions", "what", tiles))
    assert [text for text in written if text.startswith("guess")] == ["guess 0 0 %", "guess 1 33 %", "guess 2 67 %"]
    assert not any("true" in text for text in written)


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
    image = Image.new("RGB", (9, 9))
    tiles = [Tile(image, name, 0.5, name, name) for name in ODD_NAMES]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_drawn(draw_mistakes(tiles, tmp_path / "sheet.png"))


def test_a_batch_is_drawn_in_its_own_colours(tmp_path):
    batch = np.zeros((30, 3, 4, 6), np.uint8)
    batch[:, 0] = 255
    assert is_drawn(draw_batch(batch, ["red"] * 30, tmp_path / "batch.png"))
    with Image.open(tmp_path / "batch.png") as image:
        assert (255, 0, 0) in {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}
