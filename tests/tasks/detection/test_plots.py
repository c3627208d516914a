import warnings

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from PIL import Image

from figure_checks import build, is_drawn, texts
from zoo._figures import INK, PALE
from zoo.tasks.detection import plots as plots
from zoo.tasks.detection.boxes import pairwise_iou
from zoo.tasks.detection.drawing import class_colours
from zoo.tasks.detection.images import BoxedImages, Boxes
from zoo.tasks.detection.metrics import ClassScores, DetectionEvaluation, Found
from zoo.tasks.detection.plots import Example, draw_batch, draw_class_ap, draw_precision_recall, draw_predictions

CLASSES = ["cell", "platelet", "wall"]


def score_class(name="cell", boxes=40, ap=0.4, ap50=0.7, reached=60, **changes):
    curve = np.linspace(1, 0.5, 101) * (np.arange(101) <= reached)
    best = {"best_f1": 0.66, "best_precision": float(curve[50]), "best_recall": 0.5, "best_conf": 0.31}
    values = {"ap": ap, "ap50": ap50, "recall": 0.5, "precision": tuple(curve.tolist()), **best, **changes}
    return ClassScores(name=name, boxes=boxes, **values)


def evaluation(*classes, **changes):
    scores = {"map": 0.42, "map50": 0.685, "map75": 0.4, "map_small": None, "map_medium": 0.3, "map_large": 0.5}
    scores |= {"mar100": 0.5, "images": 9, "boxes": sum(of.boxes for of in classes), "of_classes": classes}
    return DetectionEvaluation(**(scores | changes))


def make_images(number=3, size=(320, 240)):
    """Plots with two boxes each, and a crowd."""
    boxes = Boxes(
        np.array([[20, 20, 100, 100], [150, 50, 250, 150], [0, 0, 320, 240]], np.float32),
        np.array([0, 1, 2]),
        np.array([False, False, True]),
    )
    names = tuple(f"val/plot_{place}.jpg" for place in range(number))
    reader = lambda position: Image.new("RGB", size, (200, 200, 200))  # noqa: E731
    return BoxedImages(reader, names, (size[::-1],) * number, (boxes,) * number, tuple(range(number)))


def found(*boxes, scores, labels):
    return Found(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores), np.array(labels, np.int64))


def batch(number, size=(96, 96)):
    rows = [[place, place % 3, size[1] / 2, size[0] / 2, 30, 20] for place in range(number)]
    return np.full((number, 3, *size), 200, np.uint8), np.array(rows)


@pytest.mark.parametrize(
    ("number", "columns", "lines", "note"),
    [(1, 2, 1, "1 image of"), (4, 2, 2, "4 images of"), (5, 4, 2, "5 images"), (40, 4, 4, "16 of 40 images")],
)
def test_a_batch_is_a_sheet_of_its_first_plots(number, columns, lines, note):
    figure = build(plots._draw_batch, *batch(number, (64, 96)), CLASSES)
    (axes,) = figure.axes
    assert len(axes.images) == min(number, 16)
    lefts, tops = ({image.get_extent()[corner] for image in axes.images} for corner in (0, 3))
    assert (len(lefts), len(tops)) == (min(columns, number), lines)
    assert any(note in text and "96 x 64 pixels" in text for text in texts(figure))


def test_a_sheet_shows_the_pixels_of_its_plots_one_to_one(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (2, 3, 480, 480), np.uint8)
    sheet = np.asarray(Image.open(draw_batch(noise, np.zeros((0, 6)), CLASSES, tmp_path / "batch.png")).convert("RGB"))
    for place in range(2):
        left, top = plots.EDGE + place * (480 + plots.GAP + plots.GROUP_GAP), plots.HEAD
        assert (sheet[top : top + 480, left : left + 480] == noise[place].transpose(1, 2, 0)).all()


def test_boxes_grow_with_small_plots(tmp_path):
    path = draw_batch(*batch(1, (96, 96)), CLASSES, tmp_path / "batch.png")
    blue = np.abs(np.asarray(Image.open(path).convert("RGB")).astype(int) - (0, 0x72, 0xB2)).max(axis=2) < 3
    assert np.ptp(blue.nonzero()[1]) + 1 == pytest.approx(30 * 480 / 96, abs=3)


def test_boxes_of_a_batch_are_turned_into_corners(monkeypatch):
    given = []
    monkeypatch.setattr(plots, "draw_boxes", lambda plot, boxes, labels, *_: given.append((boxes, labels)) or plot)
    rows = [[1, 2, 50, 40, 20, 10], [0, 0, 10, 10, 20, 20], [1, 1, 5, 5, 2, 2], [7, 0, 5, 5, 2, 2]]
    build(plots._draw_batch, batch(2, (480, 480))[0], np.array(rows, float), CLASSES)
    assert given[0][0].tolist() == [[0, 0, 20, 20]]
    assert given[1][0].tolist() == [[40, 35, 60, 45], [4, 4, 6, 6]]
    assert given[1][1].tolist() == [2, 1]


def test_a_batch_of_tensors_and_without_boxes_is_drawn(tmp_path):
    torch = pytest.importorskip("torch")
    images = torch.full((3, 3, 64, 64), 90, dtype=torch.uint8)
    assert is_drawn(draw_batch(images, torch.zeros(0, 6), CLASSES, tmp_path / "empty.png"))
    assert is_drawn(draw_batch(images, torch.tensor([[0, 1, 30.0, 30, 9, 9]]), CLASSES, tmp_path / "one.png"))


def test_a_network_that_takes_blue_first_is_drawn_in_natural_colours(tmp_path):
    images = np.zeros((1, 3, 64, 64), np.uint8)
    images[:, 2] = 255
    for is_bgr, colour in [(False, (0, 0, 255)), (True, (255, 0, 0))]:
        path = draw_batch(images, np.zeros((0, 6)), CLASSES, tmp_path / "batch.png", is_bgr=is_bgr)
        assert Image.open(path).convert("RGB").getpixel((100, 300)) == colour


def test_predictions_stand_beside_the_truth_with_what_is_wrong_and_missed():
    right = found([22, 20, 100, 98], [150, 50, 250, 150], scores=[0.8, 0.7], labels=[0, 1])
    wrong = found([150, 50, 250, 150], [20, 20, 100, 100], [0, 0, 9, 9], scores=[0.9, 0.4, 0.1], labels=[0, 0, 2])
    examples = [Example(0, right), Example(2, wrong)]
    figure = build(plots._draw_predictions, examples, make_images(), CLASSES, 0.25)
    captions = texts(figure)
    assert "val/plot_0.jpg, 2 boxes" in captions
    assert "2 of 2 found" in captions
    assert "val/plot_2.jpg, 2 boxes" in captions
    assert "1 of 2 found, 1 wrong" in captions
    assert any("a score of 0.25 or more" in text for text in captions)
    (axes,) = figure.axes
    assert len(axes.images) == 4
    dashed = {patch.get_bbox().bounds for patch in axes.patches if isinstance(patch, Rectangle)}
    assert len(dashed) == 1  # the missed box, drawn in two colours
    left, top = axes.images[3].get_extent()[0], axes.images[3].get_extent()[3]
    assert dashed.pop() == pytest.approx((left + 225, top + 75, 150, 150))


def test_wrong_names_have_a_cross(monkeypatch):
    given = []
    monkeypatch.setattr(plots, "draw_boxes", lambda plot, *_, names=None: given.append(names) or plot.copy())
    results = found([0, 0, 9, 9], [150, 50, 250, 150], scores=[0.5, 0.9], labels=[2, 1])
    build(plots._draw_predictions, [Example(0, results)], make_images(), CLASSES, 0.25)
    assert given == [None, ["platelet", "✗ wall"]]


def test_predictions_of_some_plots(tmp_path):
    nothing = found(scores=[], labels=[])
    images = make_images(20)
    assert is_drawn(draw_predictions([], images, CLASSES, tmp_path / "none.png"))
    assert is_drawn(draw_predictions([Example(0, nothing)], images, CLASSES, tmp_path / "one.png"))
    many = [Example(place, nothing) for place in range(20)]
    assert is_drawn(draw_predictions(many, images, CLASSES, tmp_path / "many.png"))
    assert len(build(plots._draw_predictions, many[:12], images, CLASSES, 0.2).axes[0].images) == 24


@pytest.mark.parametrize("size", [(1, 1), (2000, 30), (30, 2000), (100, 480)])
def test_plots_of_any_shape_are_drawn(size, tmp_path):
    example = Example(0, found([20, 20, 100, 100], scores=[0.5], labels=[0]))
    assert is_drawn(draw_predictions([example], make_images(1, size), CLASSES, tmp_path / "a.png"))


def test_each_true_box_is_found_once_and_by_its_class():
    true = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [50, 50, 60, 60.0]])
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10], [50, 50, 60, 60], [50, 50, 60, 56]])
    right, seen = plots._match(boxes, [0, 0, 0, 1, 2], true, [0, 0, 2])
    assert right.tolist() == [True, True, False, False, True]
    assert seen.tolist() == [True, True, True]
    right, seen = plots._match(np.zeros((0, 4)), [], true, [0, 0, 2])
    assert (right.tolist(), seen.tolist()) == ([], [False] * 3)
    assert plots._match(boxes, [0] * 5, np.zeros((0, 4)), [])[0].tolist() == [False] * 5
    true = np.array([[0, 0, 10, 10.0]])
    assert plots._match(np.array([[0, 0, 10, 5.0]]), [0], true, [0])[0].tolist() == [True]
    assert plots._match(np.array([[0, 0, 10, 4.9]]), [0], true, [0])[0].tolist() == [False]
    boxes = np.array([[0, 0, 10, 10], [5, 5, 15, 15], [3, 3, 3, 3.0]])
    ious = pairwise_iou(boxes, boxes[:2])
    assert ious == pytest.approx(np.array([[1, 25 / 175], [25 / 175, 1], [0, 0]]))
    results = found([0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3], scores=[0.25, 0.1, 0.9], labels=[0, 1, 2])
    kept = plots._keep(results, 0.25)
    assert kept.scores.tolist() == [0.9, 0.25]
    assert kept.labels.tolist() == [2, 0]
    assert kept.boxes[:, 2].tolist() == [3, 1]


def test_precision_has_a_line_for_each_class_and_their_mean():
    three = [score_class("cell"), score_class("wall", ap50=0.9, reached=80), score_class("none", 0, precision=None)]
    figure = build(plots._draw_precision_recall, evaluation(*three))
    (axes,) = figure.axes
    lines = [line for line in axes.lines if line.get_marker() == "None"]
    assert [len(line.get_xdata()) for line in lines] == [81, 61, 81]
    assert [to_hex(line.get_color()).upper() for line in lines] == [*class_colours(3)[1::-1], INK]
    mean = (np.array(three[0].precision) + three[1].precision) / 2
    assert lines[-1].get_ydata() == pytest.approx(mean[:81])
    (dot, _) = [line for line in axes.lines if line.get_marker() == "o"]
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (0.5, three[1].best_precision)
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == [
        "wall  90.0 %   ● 0.31",
        "cell  70.0 %   ● 0.31",
        f"mean of 2 classes  {100 * mean.mean():.1f} %",
    ]
    assert any("mAP 68.5 %" in text for text in texts(figure))


def test_curves_of_one_class_of_many_and_of_none():
    many = [score_class(f"class {place}", boxes=place + 1, ap50=place / 40) for place in range(30)]
    figure = build(plots._draw_precision_recall, evaluation(*many))
    colours = [to_hex(line.get_color()).upper() for line in figure.axes[0].lines if line.get_marker() == "None"]
    assert colours.count(PALE) == 20
    assert len(set(colours)) == 12
    assert figure.axes[0].get_legend().get_texts()[0].get_text().startswith("class 29  72.5 %")
    figure = build(plots._draw_precision_recall, evaluation(score_class()))
    assert len(figure.axes[0].get_legend().get_texts()) == 1
    never = score_class(ap=0.0, ap50=0.0, reached=-1, best_precision=0.0, best_recall=0.0, best_conf=None)
    figure = build(plots._draw_precision_recall, evaluation(never, map50=0.0))
    assert len(figure.axes[0].lines[0].get_xdata()) == 0
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "cell  0.0 %"
    figure = build(plots._draw_precision_recall, evaluation(ClassScores(name="a", boxes=0), map50=None))
    assert "no true boxes" in texts(figure)


@pytest.mark.parametrize("draw", [draw_precision_recall, draw_class_ap])
def test_scores_without_boxes_are_drawn(draw, tmp_path):
    nothing = ClassScores(name="cell", boxes=0)
    assert is_drawn(draw(evaluation(nothing, map=None, map50=None), tmp_path / "a.png"))
    assert is_drawn(draw(evaluation(score_class(), nothing), tmp_path / "b.png"))
    assert is_drawn(draw(evaluation(*[score_class(str(place)) for place in range(200)]), tmp_path / "c.png"))


def test_bars_are_sorted_and_have_their_numbers():
    three = [score_class("low", 1200, 0.1, 0.3), ClassScores(name="none", boxes=0), score_class("high", 7, 0.6, 0.8)]
    figure = build(plots._draw_class_ap, evaluation(*three))
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["high (7)", "low (1,200)", "none (0)"]
    wide, narrow = axes.containers
    assert [bar.get_width() for bar in wide] == [0.8, 0.3, 0]
    assert [bar.get_width() for bar in narrow] == [0.6, 0.1, 0]
    assert [text.get_text() for text in axes.texts] == ["60.0 % / 80.0 %", "10.0 % / 30.0 %", "no boxes"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(legend) == ["AP@.5, mean 68.5 %", "AP@[.5:.95], mean 42.0 %"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the best is at the top
    many = [score_class(f"class {place}", ap=place / 100) for place in range(90)]
    figure = build(plots._draw_class_ap, evaluation(*many))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [f"class {place} (40)" for place in [*range(89, 59, -1), *range(29, -1, -1)]]
    assert "Average precision per class (boxes): the 30 best and 30 worst of 90" in texts(figure)


def test_any_name_can_be_drawn_without_warnings(tmp_path):
    names = ["$x_1$", "$", "a\nb", "日本", "🐶", "قطة", "\udc80", "\x07", "", "a%b", "_hidden", "m" * 90]
    images, rows = batch(12)
    rows[:, 1] = range(12)
    scores = evaluation(*[score_class(name) for name in names])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_drawn(draw_batch(images, rows, names, tmp_path / "a.png"))
        assert is_drawn(draw_precision_recall(scores, tmp_path / "b.png"))
        assert is_drawn(draw_class_ap(scores, tmp_path / "c.png"))
    legend = build(plots._draw_precision_recall, scores).axes[0].get_legend().get_texts()
    assert len(legend) == 11
