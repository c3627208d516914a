"""What a test looks at in a figure or in the PNG that was made of it."""

from matplotlib.text import Text
from PIL import Image

from zoo._figures import look

ODD_NAMES = ["$x_1$", "$", "a\nb", "日本", "🐶", "قطة", "हिन्दी", "חתול", "\udc80", "\x07", "", "a%b", "\\frac{1}"]


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
        assert 400 <= image.width <= 3200
        assert 200 <= image.height <= 3200
        return len(image.convert("L").getcolors(256)) > 3  # more than an empty sheet
