import os

import matplotlib
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from zoo._figures import (
    LINES,
    arranged,
    captioned,
    columns,
    entitle,
    format_rate,
    line_colours,
    log,
    look,
    measure,
    on_one_line,
    place,
    save,
    shorten,
)


def test_the_look_survives_an_error_and_leaves_the_users_settings_alone():
    size = matplotlib.rcParams["font.size"]
    with pytest.raises(KeyError), look():
        raise KeyError
    assert matplotlib.rcParams["font.size"] == size
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        with look():
            assert matplotlib.rcParams["font.size"] == 9
            assert matplotlib.rcParams["axes.facecolor"] == "white"
            assert matplotlib.rcParams["text.parse_math"] is False
        assert matplotlib.rcParams["font.size"] == 30


def test_letters_without_a_font_are_no_warnings(tmp_path):
    with look():
        assert save(log(Figure(), "हिन्दी 🐶 \x07"), tmp_path / "a.png").is_file()


def test_a_plot_has_150_dots_per_inch(tmp_path):
    with look():
        path = save(arranged(4, 2, "title"), str(tmp_path / "a.png"))
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size == (600, 300)
    box = place(Figure(figsize=(8, 4)), 1, 0.5, 2, 3).get_position()
    assert (box.x0, box.y0, box.width, box.height) == pytest.approx((1 / 8, 0.5 / 4, 2 / 8, 3 / 4))


@pytest.mark.parametrize("width", [3.0, 9.013])
def test_a_caption_is_a_strip_below_the_plot(width, tmp_path):
    with look():
        plain = save(arranged(width, 2, "title"), tmp_path / "plain.png")
        with captioned("resnet18  ·  flowers  ·  " + "a very long name of a run " * 9):
            save(arranged(width, 2, "title"), tmp_path / "captioned.png")
        again = save(arranged(width, 2, "title"), tmp_path / "again.png")
    with Image.open(plain) as image, Image.open(tmp_path / "captioned.png") as captioned_image:
        assert captioned_image.size == (image.width, image.height + 36)
        assert captioned_image.crop((0, 0, *image.size)).tobytes() == image.tobytes()
        strip = captioned_image.convert("L").crop((0, image.height, *captioned_image.size))
        assert strip.getextrema()[0] < 160
        assert strip.crop((image.width - 6, 0, image.width, 36)).getextrema() == (255, 255)
    assert again.read_bytes() == plain.read_bytes()


def test_a_plot_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with look(), pytest.raises(OSError, match="disk full"):
        save(Figure(), path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    assert path.read_text() == "old"


def test_both_kinds_of_title_begin_at_the_same_place():
    with look():
        first, second = arranged(6, 3, "A title"), Figure(figsize=(6, 3))
        entitle(second, "A title")
        lefts = [figure.texts[0].get_window_extent().x0 / figure.dpi for figure in (first, second)]
        assert [figure.texts[0].get_text() for figure in (first, second)] == ["A title"] * 2
    assert lefts == pytest.approx([0.12, 0.12], abs=0.03)
    figure = Figure()
    assert measure(figure, [], 9) == 0
    one, two = measure(figure, ["n" * 20], 9), measure(figure, ["n" * 40, "n"], 9)
    assert two == pytest.approx(2 * one, rel=0.02)
    assert one == pytest.approx(20 * 0.634 * 9 / 72, rel=0.05)  # an n of DejaVu Sans is 0.634 em wide
    assert not figure.texts


@pytest.mark.parametrize("number", [0, 1, 6, 7, 60])
def test_every_line_has_its_own_colour(number):
    colours = line_colours(number)
    assert len({to_rgb(colour) for colour in colours}) == number
    assert list(colours) == list(LINES[:number]) or number > 6


@pytest.mark.parametrize(
    ("rate", "text"), [(0.01, "0.01"), (0.00123456, "0.00123"), (1e-5, "1e-5"), (2.5e-12, "2.5e-12"), (0, "0")]
)
def test_rates_are_short(rate, text):
    assert format_rate(rate) == format_rate(rate, 3) == text


def test_names_are_on_one_line_and_keep_both_ends():
    assert on_one_line(" two\n words\t") == "two words"
    assert on_one_line("\udc80") == "?"
    assert shorten("German short-haired pointer", 18) == "German shor…ointer"
    assert shorten("short\n", 18) == "short"
    assert all(columns(shorten("漢a" * 30, width)) <= width for width in range(4, 40))
    assert columns("a漢é") == 4
