"""What all plots share: the look, places in inches, names as they are, one PNG written at once.

White ground, one grey for everything that is not data, and colours that stay apart for colour-blind eyes. Names are
drawn as they are, never read as mathematics.

Source: the palette is Okabe and Ito's, https://jfly.uni-koeln.de/color/
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from io import BytesIO
from pathlib import Path
from typing import Any
from unicodedata import east_asian_width

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from zoo.files import open_whole

DOTS_PER_INCH = 150
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
LINES = (BLUE, VERMILION, GREEN, "#CC79A7", "#E69F00", "#56B4E9")
INK, GREY, PALE = "#222222", "#6B6B6B", "#E6E6E6"
SHADES = LinearSegmentedColormap.from_list("zoo", ["#FFFFFF", "#BBD7EA", "#4B9CCB", BLUE, "#003F66"])
FALLBACK_FONTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Hiragino Sans",
    "PingFang SC",
    "Microsoft YaHei",
    "Malgun Gothic",
)

COMPRESSION = 3  # of PNG: half the time, a tenth more bytes than the usual 6
MOST_POINTS = 2000  # of one line; more cannot be seen
_CAPTION: ContextVar[str] = ContextVar("caption", default="")
LOG_FROM = 20  # ratio of the groups' highest rates from which they need a logarithmic axis


@contextmanager
def look() -> Iterator[None]:
    """The common look, whatever the user's own matplotlib settings are; both come back afterwards."""
    installed = set(fontManager.get_font_names())
    settings: Any = {
        "font.family": ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)],
        "font.size": 9,
        "text.parse_math": False,
        "text.color": INK,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.titlepad": 8,
        "axes.labelcolor": GREY,
        "axes.edgecolor": "#B0B0B0",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": PALE,
        "xtick.color": GREY,
        "ytick.color": GREY,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        "savefig.dpi": DOTS_PER_INCH,
    }
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        # Letters that no installed font has are drawn as boxes: that is no reason to stop a run.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .*missing from")
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support")
        yield


@contextmanager
def captioned(text: str) -> Iterator[None]:
    """Write a line of text below every plot that is saved in this block, for example the model and the run."""
    token = _CAPTION.set(text)
    try:
        yield
    finally:
        _CAPTION.reset(token)


def save(figure: Figure, path: str | Path) -> Path:
    """Write the plot as PNG, whole or not at all, and return its path."""
    path, pixels = Path(path), _render(figure)
    if caption := _CAPTION.get():
        pixels = np.vstack([pixels, _render(_make_caption(caption, pixels.shape[1] / DOTS_PER_INCH))])
    made_by = PngInfo()
    made_by.add_text("Software", f"Matplotlib {matplotlib.__version__}")  # by which `zoo plan` knows its own plots
    with open_whole(path) as file:
        Image.fromarray(pixels).save(file, format="png", compress_level=COMPRESSION, pnginfo=made_by)
    return path


def _render(figure: Figure) -> NDArray[np.uint8]:
    """The pixels of a figure, `(H, W, 4)`."""
    buffer = BytesIO()
    figure.savefig(buffer, format="rgba")
    return np.frombuffer(buffer.getbuffer(), np.uint8).reshape(-1, int(figure.get_figwidth() * DOTS_PER_INCH), 4)


def _make_caption(text: str, width: float) -> Figure:
    """A strip of text, as wide as the plot above it."""
    strip, longest = make_figure(width, 0.24), len(text)
    while longest > 8 and measure(strip, [shorten(text, longest)], 7) > width - 0.24:
        longest -= 1
    strip.text(0.12 / width, 0.55, shorten(text, longest), fontsize=7, color=GREY, va="center")
    return strip


def make_figure(width: float = 6.4, height: float = 4.8, **options: Any) -> Figure:
    """A figure, sizes in inches, whose texts are measured without a new renderer for each."""
    figure = Figure(figsize=(width, height), **options)
    FigureCanvasAgg(figure)
    return figure


def arranged(width: float, height: float, title: str) -> Figure:
    """A figure, sizes in inches, in which matplotlib finds the places of what is drawn."""
    figure = make_figure(width, height, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
    figure.suptitle(title, x=0.12 / width, ha="left", fontsize=12, fontweight="bold")
    return figure


def entitle(figure: Figure, title: str) -> None:
    """The same title for a figure in which every place is given."""
    width, height = figure.get_size_inches()
    figure.text(0.12 / width, 1 - 0.1 / height, title, va="top", fontsize=12, fontweight="bold")


def place(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes in inches from the lower left corner."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def log(figure: Figure, text: str) -> Figure:
    """Write what there is to say instead of a drawing, for example that there is no data."""
    figure.text(0.5, 0.45, text, ha="center", va="center", fontsize=14, color=GREY)
    return figure


def line_colours(number: int) -> Sequence[Any]:
    """So many colours that stay apart; beyond six they are steps from dark blue to yellow."""
    if number <= len(LINES):
        return LINES[:number]
    return list(matplotlib.colormaps["cividis"](np.linspace(0, 0.88, number)))


def format_rate(rate: float, position: int | None = None) -> str:
    """A learning rate with three digits, as `0.001` or `1e-5`; `position` is what matplotlib's formatters pass."""
    return f"{rate:.3g}".replace("e-0", "e-")


def measure(figure: Figure, texts: Sequence[str], size: float) -> float:
    """The width of the longest text, in inches."""
    probe = figure.text(0, 0, "", fontsize=size)
    widths = [0.0]
    for text in texts:
        probe.set_text(text)
        widths.append(probe.get_window_extent().width / figure.dpi)
    probe.remove()
    return max(widths)


def on_one_line(name: str) -> str:
    """The name without line breaks and with what cannot be encoded replaced."""
    return " ".join(name.encode("utf-8", "replace").decode().split())


def shorten(name: str, longest: int) -> str:
    """A name on one line in so many columns at most; what is too long loses its middle."""
    name = on_one_line(name)
    if columns(name) <= longest:
        return name
    head, tail = name, ""
    while columns(head) > longest - longest // 3 - 1:
        head = head[:-1]
    while columns(name[-len(tail) - 1 :]) <= longest // 3:
        tail = name[-len(tail) - 1 :]
    return f"{head}…{tail}"


def columns(name: str) -> int:
    """How wide a name is drawn, in letters: those of East Asia are twice as wide."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in name)
