import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image, ImageFont

from zoo._figures import LINES
from zoo.errors import InputError
from zoo.tasks.detection import drawing as box_drawing
from zoo.tasks.detection.drawing import class_colours, draw_boxes, import_supervision

GREY = (128, 128, 128)
CLASSES = ["cell", "platelet", "Blutkörperchen"]


def rgb(colour):
    return tuple(int(colour[place : place + 2], 16) for place in (1, 3, 5))


def draw(boxes, labels=None, size=(200, 100), **options):
    """The pixels of a grey image with boxes, `(H, W, 3)`."""
    image = Image.new("RGB", size, GREY)
    return np.asarray(draw_boxes(image, boxes, [0] * len(boxes) if labels is None else labels, CLASSES, **options))


def find_drawn(pixels):
    """Columns and rows of the first and last changed pixel."""
    rows, columns = (pixels != GREY).any(axis=2).nonzero()
    return columns.min(), rows.min(), columns.max(), rows.max()


def test_importing_supervision_says_nothing_and_silences_nothing_else():
    code = (
        "import warnings\nfrom zoo.tasks.detection.drawing import import_supervision\n"
        "print(import_supervision().__name__)\n"
        "try: warnings.warn('another')\nexcept UserWarning: print('heard')"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "supervision\nheard\n"


def test_a_missing_supervision_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(InputError, match=r"supervision, .* pip install 'zoo-finetune\[detection\]'"):
        import_supervision()


def test_lines_are_on_the_outer_pixels_of_a_box():
    pixels = draw([[60, 30, 140, 90]], names=[" "])
    colour = rgb(LINES[0])
    for x, y in [(60, 50), (139, 50), (100, 89), (60, 89), (139, 89)]:
        assert tuple(pixels[y, x]) == colour
    for x, y in [(61, 50), (138, 50), (140, 50), (100, 88), (100, 90)]:
        assert tuple(pixels[y, x]) == GREY
    pixels = draw([[0, 0, 200, 100]])
    assert (pixels[50, [0, -1]] == rgb(LINES[0])).all()
    assert (pixels[[0, -1], 150] == rgb(LINES[0])).all()
    pixels = draw([[60.5, 30.5, 139.5, 89.5]])
    assert tuple(pixels[50, 60]) == tuple(pixels[50, 139]) == tuple(pixels[89, 100]) == rgb(LINES[0])


@pytest.mark.parametrize(("size", "width"), [((320, 240), 1), ((640, 480), 3), ((1920, 1080), 5)])
def test_lines_are_thicker_on_larger_images(size, width):
    pixels = draw([[size[0] / 4, size[1] / 4, size[0] / 2, size[1] / 2]], size=size)
    line = (pixels[round(size[1] * 0.4), : round(size[0] * 0.4)] == rgb(LINES[0])).all(axis=1)
    assert line.sum() == width


def test_each_class_has_its_colour():
    pixels = draw([[10, 40, 50, 80], [70, 40, 110, 80], [130, 40, 170, 80]], [2, 0, 1])
    assert [tuple(pixels[60, x]) for x in (10, 70, 130)] == [rgb(LINES[label]) for label in (2, 0, 1)]
    assert box_drawing._ink("#FFFF00") == box_drawing._ink("#56B4E9") == "#000000"
    assert box_drawing._ink("#0072B2") == box_drawing._ink("#D55E00") == "#FFFFFF"
    for scores in ([0.9, 0.8], [0.8, 0.9]):
        pixels = draw([[60, 40, 140, 80]] * 2, [0, 1], scores=scores)
        assert tuple(pixels[60, 60]) == rgb(LINES[int(np.argmax(scores))])


def test_the_given_image_does_not_change_and_nothing_gives_a_copy():
    image = Image.new("RGB", (50, 40), GREY)
    drawn = draw_boxes(image, [[5, 5, 20, 20]], [0], CLASSES)
    empty = draw_boxes(image, np.zeros((0, 4)), [], CLASSES, scores=[])
    assert image.tobytes() == Image.new("RGB", (50, 40), GREY).tobytes()
    assert drawn.size == image.size
    assert empty is not image
    assert empty.tobytes() == image.tobytes()
    drawn = draw_boxes(Image.new("L", (50, 40), 128), [[5, 15, 30, 30]], [0], CLASSES)
    assert drawn.mode == "RGB"
    assert drawn.getpixel((5, 25)) == rgb(LINES[0])


@pytest.mark.parametrize("box", [[0, 0, 20, 20], [180, 0, 200, 20], [0, 80, 20, 100], [180, 80, 200, 100]])
def test_names_in_the_corners_are_as_whole_as_in_the_middle(box):
    middle, corner = draw([[80, 40, 100, 60]], [1], scores=[0.75]), draw([box], [1], scores=[0.75])
    letters = [(pixels.astype(int).min(axis=2) > 200).sum() for pixels in (middle, corner)]
    assert letters[0] == letters[1] > 60


def test_the_ground_is_what_was_measured():
    text, margin = "platelet 0.75", 2
    font = ImageFont.truetype(box_drawing._find_font(text), 10)
    width, height = box_drawing._measure(text, font, margin)
    first_column, first_row, last_column, last_row = find_drawn(draw([[80, 50, 81, 51]], [1], scores=[0.75]))
    assert (first_column, last_column) == (80, 80 + width - 1)
    assert (first_row, last_row) == (50 - height, 50)


def test_places_of_names_are_inside_and_hide_no_others():
    random = np.random.default_rng(0)
    corners = random.integers(0, 600, (300, 2))
    pixels = np.concatenate([corners, corners + random.integers(5, 90, (300, 2))], axis=1).clip(0, [639, 479] * 2)
    sizes = np.stack([random.integers(20, 90, 300), random.integers(12, 18, 300)], axis=1)
    shown, places = box_drawing._place(pixels, sizes, (640, 480))
    grounds = np.concatenate([places, places + sizes[shown]], axis=1)
    assert 100 < len(shown) < 300
    assert 299 in shown  # drawn last, so it chooses first
    assert grounds.min() >= 0
    assert (grounds[:, 2:] <= (640, 480)).all()
    for i in range(len(grounds)):
        assert box_drawing._cover(grounds[i], grounds[i + 1 :]) <= 0.2 * sizes[shown[i]].prod()


def test_a_name_stands_above_its_box_or_where_there_is_room():
    box, ground = np.array([100, 50, 180, 90]), np.array([[60, 14]])
    assert box_drawing._place(box[None], ground, (200, 100))[1].tolist() == [[100, 36]]
    assert box_drawing._place(box[None] - (0, 45, 0, 45), ground, (200, 100))[1].tolist() == [[100, 5]]
    shown, places = box_drawing._place(np.array([box, box]), ground.repeat(2, 0), (200, 100))
    assert shown == [0, 1]
    assert places.tolist() == [[100, 50], [100, 36]]


def test_names_that_cannot_fit_are_left_out():
    shown, places = box_drawing._place(np.array([[1, 1, 9, 9]]), np.array([[60, 14]]), (30, 30))
    assert (shown, places.shape) == ([], (0, 2))
    font = ImageFont.truetype(box_drawing._find_font("a"), 10)
    assert box_drawing._fit("German short-haired pointer of the west", " 0.75", font, 1000).endswith("est 0.75")
    assert len(box_drawing._fit("n" * 300, " 0.75", font, 1000)) == 28 + 5
    short = box_drawing._fit("German short-haired pointer", " 0.75", font, 80)
    assert short.startswith("G")
    assert short.endswith(" 0.75")
    assert "…" in short
    assert font.getlength(short) <= 80
    drawn = {letter: draw([[80, 50, 120, 80]], names=[letter]).tobytes() for letter in "öжαعא"}
    assert len(set(drawn.values())) == 5  # what a font lacks looks the same for all letters
    plain = draw([[80, 50, 120, 80]])
    assert plain.tobytes() == draw([[80, 50, 120, 80]], names=["cell"]).tobytes()
    assert plain.tobytes() != draw([[80, 50, 120, 80]], names=["wall"]).tobytes()


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (3, 60), (25, 20), (40, 12)])
def test_tiny_images_have_boxes_too(size):
    boxes = [[0, 0, *size], [-9, -9, 2, 2], [50, 50, 60, 60], [1, 1, 1, 1]]
    pixels = draw(boxes, [0, 1, 2, 0], size, scores=[0.1, 0.2, 0.3, 0.4])
    assert pixels.shape == (size[1], size[0], 3)
    assert (pixels != GREY).any()


def test_another_font_is_taken_if_it_has_more_of_the_letters(monkeypatch):
    box_drawing._find_font.cache_clear()
    plain = box_drawing._find_font("abc")
    assert plain.endswith("DejaVuSans.ttf")
    assert box_drawing._find_font("漢") == plain or "CJK" in box_drawing._find_font("漢")
    monkeypatch.setattr("zoo._figures.FALLBACK_FONTS", ("STIXGeneral",))
    assert "STIXGeneral" in box_drawing._find_font("𝒜")  # a letter of mathematics that DejaVu Sans has not
    assert box_drawing._find_font("aж") == plain
    box_drawing._find_font.cache_clear()


def test_any_name_can_be_drawn_without_warnings():
    names = ["$x_1$", "a\nb", "日本", "🐶", "قطة", "\udc80", "\x07", "", "a%b", "<b>"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = draw_boxes(Image.new("RGB", (300, 300), GREY), [[50, 50, 90, 90]] * 10, range(10), names)
    assert drawn.size == (300, 300)


@pytest.mark.parametrize("number", [1, 6, 7, 80, 600])
def test_every_class_has_a_colour_of_its_own(number):
    colours = class_colours(number)
    assert len(set(colours)) == len(colours) == number
    assert colours[:6] == tuple(LINES[:number]) or number > 6
    assert all(len(colour) == 7 for colour in colours)


@pytest.mark.parametrize(
    ("boxes", "labels", "options", "message"),
    [
        ([[0, 0, 9, 9]], [0, 1], {}, "1 boxes but 2 labels; expected the same number"),
        ([[0, 0, 9, 9]], [0], {"scores": [0.1, 0.2]}, "1 boxes but 2 scores"),
        ([[0, 0, 9, 9]], [0], {"names": []}, "1 boxes but 0 names"),
        ([[0, 0, 9, 9]], [3], {}, r"labels are 3 to 3; expected 0 to 2\."),
        ([[0, 0, 9, 9]], [-1], {}, r"labels are -1 to -1"),
        ([[0, 0, 9, np.nan]], [0], {}, r"box has a coordinate that is not finite\."),
    ],
)
def test_what_does_not_fit_is_refused(boxes, labels, options, message):
    with pytest.raises(InputError, match=message):
        draw(boxes, labels, **options)
