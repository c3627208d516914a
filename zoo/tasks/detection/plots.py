"""Plots of a detector's run: the first batch, what was found beside the truth, precision over recall, scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from zoo._figures import (
    BLUE,
    DOTS_PER_INCH,
    GREY,
    INK,
    LINES,
    PALE,
    arranged,
    entitle,
    line_colours,
    log,
    look,
    make_figure,
    place,
    save,
    shorten,
)
from zoo.tasks.detection.boxes import pairwise_iou
from zoo.tasks.detection.drawing import class_colours, draw_boxes
from zoo.tasks.detection.matching import THRESHOLDS, match_boxes

if TYPE_CHECKING:
    from zoo.tasks.detection.images import BoxedImages, Boxes
    from zoo.tasks.detection.metrics import ClassScores, DetectionEvaluation, Found

Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]

MOST_IN_BATCH, MOST_EXAMPLES = 16, 12
MOST_LINES, MOST_BARS = 10, 60
SIDE = 480  # pixels of the larger side of each plot on a sheet
EDGE, GAP, GROUP_GAP, HEAD, CAPTION = 18, 4, 20, 76, 36  # pixels on a sheet
SKY = "#A6CEE8"
RECALLS = np.linspace(0, 1, 101)


class Example(NamedTuple):
    """What was found in one plot.

    Attributes:
        place: Of the plot in its data set, from 0.
        found: In pixels of the plot.
    """

    place: int
    found: "Found"


class _Tile(NamedTuple):
    """A plot of a sheet, what stands below it, and boxes `(N, 4)` to be dashed."""

    plot: Image.Image
    caption: str
    dashed: NDArray[np.floating] = np.zeros((0, 4))


def draw_batch(
    images: ArrayLike, rows: ArrayLike, classes: Sequence[str], path: str | Path, *, is_bgr: bool = False
) -> Path:
    """Draw the first plots of a training batch with their boxes, at most 16.

    Args:
        images: `(B, 3, H, W)` uint8; an array, or a tensor on the CPU.
        rows: `(N, 6)` place of the plot in the batch, class, and centre x, centre y, width, height in pixels.
        classes: Class names.
        path: The PNG to write.
        is_bgr: Whether the network takes blue first; the drawing has natural colours.

    Returns:
        The path.
    """
    pixels = np.asarray(images)[:, ::-1] if is_bgr else np.asarray(images)
    with look():
        return save(_draw_batch(pixels, np.asarray(rows, np.float64).reshape(-1, 6), classes), path)


def draw_predictions(
    examples: Sequence[Example], images: "BoxedImages", classes: Sequence[str], path: str | Path, *, conf: float = 0.25
) -> Path:
    """Draw what was found in some plots, at most 12, beside what is there.

    Below each pair stands how many boxes were found: by a box of their class with an IoU of 0.5 or more. Boxes around
    many things at once are left out. A false box has a cross before its name, a missed one is dashed.

    Args:
        examples: What was found, by the plot's place in `images`.
        images: The plots and their true boxes.
        classes: Class names.
        path: The PNG to write.
        conf: Boxes with a lower score are left out.

    Returns:
        The path.

    Raises:
        DataError: If a plot cannot be read.
    """
    with look():
        return save(_draw_predictions(examples[:MOST_EXAMPLES], images, classes, conf), path)


def draw_precision_recall(evaluation: "DetectionEvaluation", path: str | Path) -> Path:
    """Draw precision over recall at an IoU of 0.5: a line for each class, ten at most, and their mean.

    Args:
        evaluation: The scores.
        path: The PNG to write.

    Returns:
        The path.
    """
    with look():
        return save(_draw_precision_recall(evaluation), path)


def draw_by_confidence(evaluation: "DetectionEvaluation", path: str | Path) -> Path:
    """Draw precision, recall and F1 over the confidence threshold, at an IoU of 0.5: ten classes at most, and the mean.

    Args:
        evaluation: The scores.
        path: The PNG to write.

    Returns:
        The path.
    """
    with look():
        return save(_draw_by_confidence(evaluation), path)


def draw_class_ap(evaluation: "DetectionEvaluation", path: str | Path) -> Path:
    """Draw the average precision of each class as bars, best first; of many classes the best and the worst.

    Args:
        evaluation: The scores.
        path: The PNG to write.

    Returns:
        The path.
    """
    with look():
        return save(_draw_class_ap(evaluation), path)


def _draw_batch(images: NDArray[np.uint8], rows: Floats, classes: Sequence[str]) -> Figure:
    tiles = []
    for number, canvas in enumerate(images[:MOST_IN_BATCH]):
        own = rows[rows[:, 0] == number]
        boxes = np.concatenate([own[:, 2:4] - own[:, 4:] / 2, own[:, 2:4] + own[:, 4:] / 2], axis=1)
        plot = Image.fromarray(np.ascontiguousarray(canvas.transpose(1, 2, 0)))
        resized, scale = _fit(plot)
        drawn = draw_boxes(resized, boxes * scale, own[:, 1], classes)
        tiles.append(_Tile(drawn, _count(len(own), "box", "boxes")))
    number, (height, width) = len(images), images.shape[2:]
    of_all = f"{len(tiles)} of " if len(tiles) < number else ""
    note = f"{of_all}{_count(number, 'image', 'images')} of {width} x {height} pixels, as the network sees them"
    return _draw_sheet("First training batch", note, tiles, across=4 if number > 4 else 2)


def _draw_predictions(
    examples: Sequence[Example], images: "BoxedImages", classes: Sequence[str], conf: float
) -> Figure:
    tiles: list[_Tile] = []
    for number, found in examples:
        plot, boxes = images.read(number)
        tiles += _compare(
            shorten("/".join(Path(images.names[number]).parts[-2:]), 44),
            plot,
            boxes.learnable(),
            _keep(found, conf),
            classes,
        )
    note = f"left: true boxes; right: predictions with a score of {conf:g} or more; ✗ wrong, - - - missed"
    return _draw_sheet("Predictions", note, tiles, across=2 if len(examples) < 3 else 4, group=2)


def _keep(found: "Found", conf: float) -> "Found":
    """What is sure enough, surest first."""
    scores = np.asarray(found.scores)
    order = np.argsort(-scores, kind="stable")[: int((scores >= conf).sum())]
    return found._replace(
        boxes=np.asarray(found.boxes)[order], scores=scores[order], labels=np.asarray(found.labels)[order]
    )


def _compare(
    name: str, plot: Image.Image, true: "Boxes", found: "Found", classes: Sequence[str]
) -> tuple[_Tile, _Tile]:
    """Two tiles: with what is there, and with what was found, in which wrong and missed boxes are marked."""
    resized, scale = _fit(plot)
    right, seen = _match(found.boxes, found.labels, true.xyxy, true.labels)
    names = [classes[found.labels[i]] if right[i] else f"✗ {classes[found.labels[i]]}" for i in range(len(right))]
    there = draw_boxes(resized, true.xyxy * scale, true.labels, classes)
    drawn = draw_boxes(resized, found.boxes * scale, found.labels, classes, found.scores, names=names)
    wrong = f", {(~right).sum()} wrong" if not right.all() else ""
    return (
        _Tile(there, f"{name}, {_count(len(seen), 'box', 'boxes')}"),
        _Tile(drawn, f"{seen.sum()} of {len(seen)} found{wrong}", dashed=true.xyxy[~seen] * scale),
    )


def _fit(plot: Image.Image) -> tuple[Image.Image, float]:
    """The plot in the size of the sheet, and by what factor; boxes are drawn later, so that letters stay sharp."""
    scale = SIDE / max(plot.size)
    size = (max(1, round(plot.width * scale)), max(1, round(plot.height * scale)))
    way = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS
    return plot.resize(size, way, reducing_gap=3.0), scale


def _match(boxes: ArrayLike, labels: ArrayLike, true_boxes: ArrayLike, true_labels: ArrayLike) -> tuple[Flags, Flags]:
    """Which boxes, surest first, are the first to lie on a true box of their class; and which true boxes were found."""
    ious = pairwise_iou(np.asarray(boxes, np.float64), np.asarray(true_boxes, np.float64))
    chosen = match_boxes(ious * (np.asarray(labels)[:, None] == np.asarray(true_labels)[None]))
    return chosen >= 0, np.isin(np.arange(ious.shape[1]), chosen)


def _draw_sheet(title: str, note: str, tiles: Sequence[_Tile], *, across: int, group: int = 1) -> Figure:
    """Plots in lines, pixel by pixel; `group` neighbours stand close together."""
    lines = [tiles[start : start + across] for start in range(0, len(tiles), across)]
    heights = [max(tile.plot.height for tile in line) + CAPTION for line in lines]
    width = 2 * EDGE + across * (SIDE + GAP) + (across // group - 1) * GROUP_GAP - GAP
    height = HEAD + max(sum(heights), SIDE // 2) + EDGE // 2
    figure = make_figure(width / DOTS_PER_INCH, height / DOTS_PER_INCH)
    entitle(figure, title)
    if not tiles:
        return log(figure, "no plots")
    sheet = place(figure, 0, 0, width / DOTS_PER_INCH, height / DOTS_PER_INCH)
    sheet.set_axis_off()
    sheet.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    sheet.text(EDGE, 46, note, va="top", size=8, color=GREY)
    for number, line in enumerate(lines):
        top = HEAD + sum(heights[:number])
        for column, tile in enumerate(line):
            _draw_tile(sheet, EDGE + column * (SIDE + GAP) + column // group * GROUP_GAP, top, tile)
    return figure


def _draw_tile(sheet: Axes, left: int, top: int, tile: _Tile) -> None:
    width, height = tile.plot.size
    sheet.imshow(tile.plot, extent=(left, left + width, top + height, top), interpolation="none")
    sheet.text(left, top + height + 5, tile.caption, va="top", size=7, color=INK)
    for x1, y1, x2, y2 in tile.dashed:
        for colour, style in (("white", "-"), (INK, (0, (4, 3)))):
            box = Rectangle(
                (left + x1, top + y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linestyle=style, linewidth=1
            )
            sheet.add_patch(box)
    sheet.set_aspect("auto")


def _draw_precision_recall(evaluation: "DetectionEvaluation") -> Figure:
    figure = arranged(8, 4.6, f"Precision-recall curves at IoU 0.5: mAP {_percent(evaluation.map50)}")
    known = [of for of in evaluation.of_classes if of.precision is not None]
    if not known:
        return log(figure, "no true boxes")
    axes = figure.subplots()
    largest = sorted(known, key=lambda of: -of.boxes)
    for of in largest[MOST_LINES:]:
        _draw_line(axes, of.precision, color=PALE, linewidth=1)
    shown = sorted(largest[:MOST_LINES], key=lambda of: -(of.ap50 or 0))
    for of, colour in zip(shown, _choose_colours(shown, evaluation.classes), strict=True):
        _draw_curve(axes, of, colour)
    if len(known) > 1:
        mean = np.array([of.precision for of in known], np.float64).mean(axis=0)
        label = f"mean of {len(known)} classes  {_percent(mean.mean())}"
        _draw_line(axes, mean, color=INK, linewidth=2.8, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(
        title="AP@.5   ● confidence threshold of best F1",
        alignment="left",
        loc="upper left",
        bbox_to_anchor=(1.02, 1.02),
    )
    return figure


def _draw_by_confidence(evaluation: "DetectionEvaluation") -> Figure:
    figure = arranged(11, 4, "Precision, recall and F1 over the confidence threshold, at an IoU of 0.5")
    known = [number for number, of in enumerate(evaluation.of_classes) if of.boxes]
    curves = evaluation.by_conf
    if curves is None or not known:
        return log(figure, "no true boxes")
    largest = sorted(known, key=lambda number: -evaluation.of_classes[number].boxes)[:MOST_LINES]
    colours = _choose_colours([evaluation.of_classes[number] for number in largest], evaluation.classes)
    mean_f1 = curves.f1[known].mean(axis=0)
    best = int(mean_f1.argmax())
    titles = ("Precision", "Recall", f"F1: best mean {_percent(mean_f1[best])} at {THRESHOLDS[best]:.2f}")
    for axes, title, values in zip(
        figure.subplots(1, 3, sharey=True), titles, (curves.precision, curves.recall, curves.f1), strict=True
    ):
        for number, colour in zip(largest, colours, strict=True):
            axes.plot(THRESHOLDS, values[number], color=colour, label=shorten(evaluation.classes[number], 24))
        if len(known) > 1:
            mean = np.nan_to_num(values[known]).mean(axis=0) if title != "Precision" else _mean_of_kept(values[known])
            axes.plot(THRESHOLDS, mean, color=INK, linewidth=2.8, label=f"mean of {len(known)} classes")
        axes.axvline(THRESHOLDS[best], color=GREY, linewidth=0.8, linestyle=":")
        axes.set(title=title, xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence threshold")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
    return figure


def _mean_of_kept(values: Floats) -> Floats:
    """The mean over the classes of which boxes are kept; NaN where there are none."""
    counts = (~np.isnan(values)).sum(axis=0)
    means: Floats = np.divide(np.nansum(values, axis=0), counts, out=np.full(len(counts), np.nan), where=counts > 0)
    return means


def _choose_colours(shown: "Sequence[ClassScores]", classes: Sequence[str]) -> Sequence[Any]:
    """The colours that the classes' boxes have, if these are few; otherwise steps from the best to the worst."""
    if len(classes) > len(LINES):
        return line_colours(len(shown))
    colours = dict(zip(classes, class_colours(len(classes)), strict=True))
    return [colours[of.name] for of in shown]


def _draw_curve(axes: Axes, of: "ClassScores", colour: str) -> None:
    """A class's line, and a dot where precision and recall have the largest harmonic mean."""
    at = "" if of.best_conf is None else f"   ● {of.best_conf:.2f}"
    _draw_line(axes, of.precision, color=colour, label=f"{shorten(of.name, 24)}  {_percent(of.ap50)}{at}")
    if of.best_recall is not None and of.best_precision is not None:
        axes.plot([of.best_recall], [of.best_precision], "o", color=colour, markersize=5)


def _draw_line(axes: Axes, precision: "ArrayLike | None", **style: Any) -> None:
    """Precision over recall, up to the largest recall that is reached."""
    curve = np.asarray(precision, np.float64)
    reached = np.count_nonzero(curve)
    axes.plot(RECALLS[:reached], curve[:reached], **style)


def _draw_class_ap(evaluation: "DetectionEvaluation") -> Figure:
    ranked = sorted(evaluation.of_classes, key=lambda of: (of.ap is None, -(of.ap or 0), -(of.ap50 or 0)))
    half = MOST_BARS // 2
    shown = ranked if len(ranked) <= MOST_BARS else ranked[:half] + ranked[-half:]
    of_all = "" if shown is ranked else f": the {half} best and {half} worst of {len(ranked):,}"
    lines = np.arange(len(shown)) + (0 if shown is ranked else np.arange(len(shown)) >= half)
    figure = arranged(7.2, 1.3 + 0.24 * max(len(shown), 4), f"Average precision per class (boxes){of_all}")
    axes = figure.subplots()
    wide, narrow = [of.ap50 or 0 for of in shown], [of.ap or 0 for of in shown]
    axes.barh(lines, wide, color=SKY, height=0.72, label=f"AP@.5, mean {_percent(evaluation.map50)}")
    axes.barh(lines, narrow, color=BLUE, height=0.72, label=f"AP@[.5:.95], mean {_percent(evaluation.map)}")
    for line, of in zip(lines.tolist(), shown, strict=True):
        text = "no boxes" if of.ap is None else f"{_percent(of.ap)} / {_percent(of.ap50)}"
        axes.text((of.ap50 or 0) + 0.01, line, text, va="center", fontsize=7.5, color=GREY)
    axes.set_yticks(lines, [f"{shorten(of.name, 24)} ({of.boxes:,})" for of in shown], fontsize=8)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set(xlim=(0, 1.16), ylim=(lines[-1] + 0.6, -0.6))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(visible=False, axis="y")
    axes.spines["bottom"].set_visible(False)
    figure.legend(loc="outside lower left", ncols=2)
    return figure


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
