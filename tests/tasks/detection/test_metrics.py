import contextlib
import io
import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from zoo.errors import InputError
from zoo.tasks.detection.metrics import IOUS, RECALLS, DetectionMetrics, Found, Truth, check_installed
from zoo.tasks.detection.postprocess import PUBLISHED, VALIDATION

pytestmark = pytest.mark.numbers

BCCD = Path(__file__).parents[4] / "shared" / "data" / "bccd"
CELLS = ("Platelets", "RBC", "WBC")
NOTHING = Truth(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, bool))
NOTHING_FOUND = Found(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))


def truth(*boxes, labels=None, crowd=None):
    number = len(boxes)
    return Truth(np.array(boxes).reshape(-1, 4), np.array(labels or [0] * number), np.array(crowd or [False] * number))


def found(*boxes, scores, labels=None):
    return Found(np.array(boxes).reshape(-1, 4), np.array(scores), np.array(labels or [0] * len(boxes)))


def evaluate(found, truth, classes=("a", "b", "c"), **options):
    metrics = DetectionMetrics(classes, **options)
    metrics.update(found, truth)
    return metrics.compute()


def read_cells(split):
    """The boxes of the blood cells, from their files; pixels are counted from 1."""
    images = []
    for name in (BCCD / "ImageSets" / "Main" / f"{split}.txt").read_text().split():
        objects = ElementTree.parse(BCCD / "Annotations" / f"{name}.xml").findall("object")
        corners = [[float(of.find(f"bndbox/{key}").text) for key in ("xmin", "ymin", "xmax", "ymax")] for of in objects]
        labels = np.array([CELLS.index(of.find("name").text) for of in objects], np.int64)
        boxes = np.array(corners).reshape(-1, 4) - (1, 1, 0, 0)
        images.append(Truth(boxes, labels, np.zeros(len(labels), bool)))
    return images


def disturb(images, seed, classes):
    """Detections as a mediocre detector makes them: moved, missed, doubled, of a wrong class, or of nothing at all."""
    random, results = np.random.default_rng(seed), []
    for boxes, labels, _ in images:
        kept = np.flatnonzero(random.random(len(boxes)) < 0.85)
        kept = np.concatenate([kept, kept[random.random(len(kept)) < 0.2]])
        moved = boxes[kept] + random.normal(0, 5, (len(kept), 4))
        classified = np.where(random.random(len(kept)) < 0.9, labels[kept], random.integers(0, classes, len(kept)))
        number = random.integers(0, 12)
        corners = random.uniform(0, 500, (number, 2))
        false = np.concatenate([corners, corners + random.uniform(2, 140, (number, 2))], axis=1)
        scores = np.round(random.random(len(kept) + number), 2)  # many are equal
        results.append(
            Found(
                np.concatenate([moved, false]),
                scores,
                np.concatenate([classified, random.integers(0, classes, number)]),
            )
        )
    return results


def make_images(seed, classes, number=60):
    """Random boxes of all sizes; some are crowds, some images are empty, the last class has no boxes."""
    random, images = np.random.default_rng(seed), []
    for place in range(number):
        count = 0 if place % 7 == 3 else random.integers(1, 15)
        corners = random.uniform(0, 500, (count, 2))
        boxes = np.concatenate([corners, corners + np.exp(random.uniform(1, 5.5, (count, 2)))], axis=1)
        images.append(Truth(boxes, random.integers(0, classes - 1, count), random.random(count) < 0.15))
    return images


def evaluate_by_coco(found, truth, classes):
    """What pycocotools counts: the twelve numbers, and precision and recall of every class."""
    reference = COCO()
    boxes = [
        {"image_id": image, "category_id": int(label), "bbox": [*box[:2], *(box[2:] - box[:2])], "iscrowd": int(crowd)}
        for image, picture in enumerate(truth)
        for box, label, crowd in zip(*picture, strict=True)
    ]
    for number, box in enumerate(boxes):
        box |= {"id": number + 1, "area": box["bbox"][2] * box["bbox"][3]}
    reference.dataset = {
        "info": {},
        "images": [{"id": image} for image in range(len(truth))],
        "categories": [{"id": label} for label in range(classes)],
        "annotations": boxes,
    }
    results = [
        {"image_id": image, "category_id": int(label), "bbox": [*box[:2], *(box[2:] - box[:2])], "score": score}
        for image, picture in enumerate(found)
        for box, score, label in zip(*picture, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        reference.createIndex()
        counted = COCOeval(reference, reference.loadRes(results), "bbox")
        counted.evaluate()
        counted.accumulate()
        counted.summarize()
    return counted


def assert_same(own, counted):
    precision, recall = counted.eval["precision"][..., 0, -1], counted.eval["recall"][..., 0, -1]
    names = ["map", "map50", "map75", "map_small", "map_medium", "map_large", "mar100"]
    values = [-1 if getattr(own, name) is None else getattr(own, name) for name in names]
    assert values == pytest.approx([*counted.stats[:6], counted.stats[8]], abs=1e-12)
    for number, of in enumerate(own.of_classes):
        if precision[0, 0, number] == -1:
            assert of.ap is of.ap50 is of.recall is of.precision is None
            continue
        assert of.ap == pytest.approx(precision[:, :, number].mean(), abs=1e-12)
        assert of.ap50 == pytest.approx(precision[0, :, number].mean(), abs=1e-12)
        assert of.recall == pytest.approx(recall[:, number].mean(), abs=1e-12)
        assert of.precision == pytest.approx(precision[0, :, number], abs=1e-12)
        if of.best_conf is not None:
            scores = counted.eval["scores"][0, :, number, 0, -1]
            assert of.best_conf == scores[round(100 * of.best_recall)]


@pytest.mark.skipif(not BCCD.is_dir(), reason="the shared images of blood cells are not here")
@pytest.mark.parametrize("split", ["val", "test"])
def test_scores_of_real_boxes_are_those_of_pycocotools(split):
    images = read_cells(split)
    results = disturb(images, 5, 3)
    own = evaluate(results, images, CELLS)
    assert_same(own, evaluate_by_coco(results, images, 3))
    assert own.boxes == {"val": 1138, "test": 945}[split]
    assert 0.2 < own.map < own.map50 < 0.9


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_pycocotools(seed):
    images = make_images(seed, 5)
    results = disturb(images, seed, 5)
    results[0] = NOTHING_FOUND
    own = evaluate(results, images, "abcde")
    assert_same(own, evaluate_by_coco(results, images, 5))
    assert own.map_small is not None
    assert own.of_classes[-1].boxes == 0
    assert own.boxes == sum((~image.crowd).sum() for image in images)


def test_of_more_than_a_hundred_boxes_of_a_class_the_surest_count():
    random = np.random.default_rng(0)
    corners = random.uniform(0, 600, (150, 2))
    boxes = np.concatenate([corners, corners + 30], axis=1)
    images = [Truth(boxes, np.zeros(150, int), np.zeros(150, bool))]
    results = [Found(boxes, random.random(150), np.zeros(150, int))]
    own = evaluate(results, images, "a")
    assert_same(own, evaluate_by_coco(results, images, 1))
    assert own.of_classes[0].recall == pytest.approx(100 / 150)


def test_batches_add_up():
    pictures = make_images(7, 3)
    results = disturb(pictures, 7, 3)
    metrics = DetectionMetrics("abc")
    for start in range(0, len(pictures), 8):
        metrics.update(results[start : start + 8], pictures[start : start + 8])
    assert metrics.compute() == evaluate(results, pictures, "abc")
    assert metrics.compute().images == 60


@pytest.mark.parametrize(("height", "passed"), [(5, 1), (6, 3), (7, 5), (8, 7), (9, 9), (10, 10), (4.99, 0)])
def test_an_iou_at_a_threshold_is_enough(height, passed):
    result = evaluate([found([0, 0, 10, height], scores=[0.5])], [truth([0, 0, 10, 10])], "a")
    assert result.map == pytest.approx(passed / 10)
    assert result.map75 == float(passed > 5)


def test_thresholds_are_exact():
    assert IOUS[5] == 0.75
    assert IOUS[2] == 0.6
    assert len(RECALLS) == 101
    assert RECALLS[5] == 0.05
    there = truth([0, 0, 100, 100], [200, 0, 220, 20], crowd=[True, False])
    inside = found([10, 10, 30, 30], [40, 40, 60, 60], [200, 0, 220, 20], scores=[0.9, 0.8, 0.7])
    result = evaluate([inside], [there])
    assert (result.map, result.boxes, result.of_classes[0].boxes) == (1.0, 1, 1)
    assert evaluate([NOTHING_FOUND], [truth([0, 0, 9, 9], crowd=[True])]).map is None


@pytest.mark.parametrize(
    ("side", "size"), [(31, "small"), (33, "medium"), (95, "medium"), (97, "large"), (1000, "large")]
)
def test_sizes_are_those_of_the_images_boxes(side, size):
    box = [0, 0, side, side]
    result = evaluate([found(box, scores=[0.5])], [truth(box)])
    scores = {"small": result.map_small, "medium": result.map_medium, "large": result.map_large}
    assert scores.pop(size) == 1
    assert set(scores.values()) == {None}


def test_the_best_score_to_keep_boxes_from():
    there = truth([0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10])
    boxes = [[0, 0, 10, 10], [20, 0, 30, 10], [90, 90, 99, 99], [40, 0, 50, 10], [80, 80, 89, 89]]
    (of, *_) = evaluate([found(*boxes, scores=[0.9, 0.8, 0.7, 0.6, 0.5])], [there]).of_classes
    assert of.best_conf == 0.6
    assert (of.best_precision, of.best_recall) == (0.75, 0.75)
    assert of.best_f1 == pytest.approx(0.75)
    assert of.precision == (1.0,) * 51 + (0.75,) * 25 + (0.0,) * 25
    assert of.ap50 == pytest.approx((51 + 25 * 0.75) / 101)
    assert of.recall == 0.75


@pytest.mark.parametrize(
    ("results", "images"),
    [([], []), ([NOTHING_FOUND], [NOTHING]), ([found([0, 0, 9, 9], scores=[0.4], labels=[2])], [NOTHING])],
)
def test_without_boxes_to_be_found_there_are_no_scores(results, images):
    result = evaluate(results, images)
    assert result.map is result.map50 is result.map_large is result.mar100 is None
    assert result.score == 0
    assert result.record() == {}
    assert str(result) == f"mAP@[.5:.95] -, mAP@.5 - on {len(images)} images, 0 boxes (conf 0.01, IoU 0.7)"
    assert {value for row in result.rows() for name, value in row.items() if name not in ("class", "boxes")} == {"-"}
    assert json.loads(json.dumps(result.to_dict()))["map"] is None


def test_nothing_found_is_zero():
    result = evaluate([NOTHING_FOUND], [truth([0, 0, 9, 9], labels=[1])])
    assert (result.map, result.map50, result.mar100, result.score) == (0, 0, 0, 0)
    of = result.of_classes[1]
    assert (of.ap, of.recall, of.best_f1, of.best_conf) == (0, 0, 0, None)
    assert result.of_classes[0].ap is None
    assert evaluate([], []).settings == VALIDATION


def test_scores_as_text_and_plain_values():
    there = [truth([0, 0, 50, 50], [60, 0, 90, 30], labels=[0, 1])] * 1200
    results = [found([0, 0, 50, 50], scores=[0.8])] * 1200
    metrics = DetectionMetrics(["cell", "no cell"], PUBLISHED)
    metrics.update(results, there)
    result = metrics.compute(loss=1.5)
    assert str(result) == "mAP@[.5:.95] 50.0 %, mAP@.5 50.0 % on 1,200 images, 2,400 boxes (conf 0.03, IoU 0.65)"
    assert result.record() == {"val_loss": 1.5, "map": 0.5, "map50": 0.5, "map75": 0.5}
    assert result.classes == ("cell", "no cell")
    assert result.rows()[0] == {
        "class": "cell",
        "boxes": "1,200",
        "AP": "100.0 %",
        "AP@.5": "100.0 %",
        "AR@100": "100.0 %",
        "best F1": "100.0 %",
        "precision": "100.0 %",
        "recall": "100.0 %",
        "at conf": "0.80",
    }
    plain = json.loads(json.dumps(result.to_dict()))
    assert (plain["map"], plain["images"], plain["boxes"], plain["loss"]) == (0.5, 1200, 2400, 1.5)
    assert plain["settings"] == {"conf": 0.03, "iou": 0.65, "max_predictions": 300}
    assert plain["per_class"] == result.per_class()
    assert plain["per_class"][1]["ap"] == 0
    assert plain["precision"]["cell"] == [1.0] * 101


@pytest.mark.parametrize(
    ("results", "images", "message"),
    [
        ([], [NOTHING], r"found has 0 images and truth 1; expected the same images in both\."),
        ([found([0, 0, 9, 9], scores=[0.5, 0.6])], [NOTHING], r"found: boxes are \(1, 4\), labels \(1,\) and scores"),
        ([NOTHING_FOUND], [truth([0, 0, 9, 9], crowd=[True, False])], r"truth: .* iscrowd \(2,\)"),
        (
            [found([0, 0, 9, 9], scores=[0.5], labels=[3])],
            [NOTHING],
            r"found: a box has class 3; expected a class number from 0 to 2\.",
        ),
        ([NOTHING_FOUND], [truth([0, 0, 9, 9], labels=[-1])], "truth: a box has class -1"),
        ([NOTHING_FOUND], [truth([0, 0, 9, 9], labels=[0.5])], r"truth: a box has class 0\.5"),
        ([found([0, 0, 9, np.nan], scores=[0.5])], [NOTHING], r"found: a box or a score is not a finite number"),
        ([found([0, 0, 9, 9], scores=[np.inf])], [NOTHING], r"found: a box or a score is not a finite number"),
    ],
)
def test_what_does_not_fit_is_refused(results, images, message):
    with pytest.raises(InputError, match=message):
        evaluate(results, images)


def test_a_missing_library_is_named_before_the_training(monkeypatch):
    check_installed()
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(InputError, match=r"faster-coco-eval.* pip install 'zoo-finetune\[detection\]'"):
        check_installed()
    with pytest.raises(InputError, match=r"faster-coco-eval"):
        DetectionMetrics("ab")


def test_the_recall_of_the_table_is_that_of_the_best_f1():
    """Half of the boxes are found, badly placed: COCO's average recall is lower, and has a column of its own."""
    there = [truth([0, 0, 50, 50]), truth([0, 0, 50, 50])]
    results = [found([0, 0, 50, 35], scores=[0.8]), found([200, 200, 250, 250], scores=[0.1])]
    metrics = DetectionMetrics(["cell"], PUBLISHED)
    metrics.update(results, there)
    (row,) = metrics.compute().rows()
    assert (row["precision"], row["recall"], row["best F1"]) == ("100.0 %", "50.0 %", "66.7 %")
    assert row["AR@100"] == "25.0 %", "an IoU of 0.7 fits 5 of the 10 thresholds"
