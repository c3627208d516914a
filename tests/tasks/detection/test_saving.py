import csv
import io
import json
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from image_files import write_image
from zoo.errors import InputError
from zoo.tasks.detection.formats import read_box_folder
from zoo.tasks.detection.metrics import DetectionMetrics, Found, Truth
from zoo.tasks.detection.result import DetectionResult
from zoo.tasks.detection.saving import make_savers

CLASSES = ("RBC", "WBC", "Platelets")
SIZE = (480, 640)  # height and width


def make_boxes(random, count):
    """Boxes of the sizes of blood cells."""
    corners, sides = random.uniform(0, 400, (count, 2)), random.uniform(20, 80, (count, 2))
    return np.concatenate([corners, corners + sides], 1).astype(np.float32), random.integers(0, 3, count)


def make_result(name, boxes, scores, labels, **others):
    boxes, scores, labels = (np.asarray(part) for part in (boxes, scores, labels))
    order = np.argsort(-scores, kind="stable")
    return DetectionResult(
        source=str(name),
        boxes=boxes[order].astype(np.float32).reshape(-1, 4),
        scores=scores[order].astype(np.float32),
        labels=labels[order].astype(np.int64),
        classes=CLASSES,
        size=SIZE,
        **{"file": Path(name).name, "item": Path(name)} | others,
    )


def save(results, way, path, coco_ids=None):
    with make_savers(CLASSES, coco_ids)[way](path) as keep:
        for result in results:
            keep(result)
    return path


@pytest.fixture
def scored():
    """Results beside the truth: boxes moved a little, some of another class, some missed, some invented."""
    random, results, truths = np.random.default_rng(0), [], []
    for number in range(12):
        boxes, labels = make_boxes(random, 12)
        truths.append(Truth(boxes, labels, np.zeros(len(boxes), bool)))
        moved = boxes + random.normal(0, 4, boxes.shape)
        named = np.where(random.random(12) < 0.2, (labels + 1) % 3, labels)
        more, others = make_boxes(random, 4)
        found = np.concatenate([moved[2:], more]).clip(0, 480)
        results.append(
            make_result(f"a/{number}.jpg", found, random.random(len(found)), np.concatenate([named[2:], others]))
        )
    return results, truths


def write_truth(truths, path, first_id=1, names=CLASSES):
    """A COCO file in which ids are not what anybody would guess."""
    annotations = [
        {"id": 1000 * i + j + 1, "image_id": first_id + i, "category_id": 10 + 7 * int(label), "iscrowd": 0}
        | {"bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()], "area": float(np.prod(box[2:] - box[:2]))}
        for i, truth in enumerate(truths)
        for j, (box, label) in enumerate(zip(truth.boxes, truth.labels, strict=True))
    ]
    images = [{"id": first_id + i, "file_name": f"{i}.jpg", "height": 480, "width": 640} for i in range(len(truths))]
    categories = [{"id": 10 + 7 * k, "name": name} for k, name in enumerate(names)]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def test_pycocotools_counts_the_same_scores(scored, tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    results, truths = scored
    truth = write_truth(truths, tmp_path / "truth.json", first_id=77)
    written = save(results, "coco", tmp_path / "predictions.coco.json", truth)
    with redirect_stdout(io.StringIO()):
        coco = COCO(str(truth))
        counted = COCOeval(coco, coco.loadRes(str(written)), "bbox")
        for step in (counted.evaluate, counted.accumulate, counted.summarize):
            step()
    metrics = DetectionMetrics(CLASSES)
    metrics.update([Found(result.boxes, result.scores, result.labels) for result in results], truths)
    ours = metrics.compute()
    assert 0.05 < ours.map < 0.9
    assert counted.stats[:3] == pytest.approx([ours.map, ours.map50, ours.map75], abs=1e-9)


def test_ids_without_a_file(tmp_path):
    names = ["a/000139.jpg", "b/139.jpg", "cell.png"]
    results = [make_result(name, [[0, 0, 8, 8]], [0.5], [1], file=name) for name in names]
    entries = json.loads(save(results, "coco", tmp_path / "x.json").read_text())
    assert [(entry["image_id"], entry["category_id"]) for entry in entries] == [(139, 2), ("b/139.jpg", 2), ("cell", 2)]
    assert entries[0]["bbox"] == [0, 0, 8, 8]
    assert save([], "coco", tmp_path / "none.json").read_text() == "[]\n"


def test_ids_that_do_not_fit_are_refused(scored, tmp_path):
    results, truths = scored
    with pytest.raises(InputError, match=r"has no category 'WBC', a class of the model; it has RBC, cell"):
        make_savers(CLASSES, write_truth(truths, tmp_path / "names.json", names=("RBC", "cell", "Platelets")))
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(InputError, match=r"cannot read the ids in .*list\.json"):
        make_savers(CLASSES, tmp_path / "list.json")
    few = write_truth(truths[:2], tmp_path / "few.json")
    with pytest.raises(InputError, match=r"few\.json' does not name 'a/2\.jpg'"):
        save(results, "coco", tmp_path / "x.json", few)
    assert len(json.loads((tmp_path / "x.json").read_text())) > 20  # what came before stays
    with pytest.raises(InputError, match="only one image for two of yours"):
        save([results[0], make_result("b/0.jpg", [], [], [])], "coco", tmp_path / "y.json", few)


def test_yolo_labels_are_read_back(scored, tmp_path):
    results, _ = scored
    for result in results:
        write_image(tmp_path / "images" / result.file, size=(640, 480))
    write_image(tmp_path / "images" / "empty.jpg", size=(640, 480))
    save([*results, make_result("empty.jpg", [], [], [])], "yolo", tmp_path / "labels")
    source = read_box_folder(tmp_path)
    assert tuple(source.names.values()) == CLASSES
    (split,) = source.splits.values()
    by_name = {Path(image.name).name: image for image in split.images}
    assert by_name["empty.jpg"].keys == ()
    for result in results:
        assert list(by_name[result.file].keys) == result.labels.tolist()
        assert np.abs(by_name[result.file].boxes * (640, 480, 640, 480) - result.boxes).max() < 1e-3


def test_a_table_has_a_row_for_each_box(scored, tmp_path):
    results, _ = scored
    rows = list(csv.DictReader(save(results, "csv", tmp_path / "x.csv").read_text().splitlines()))
    assert len(rows) == sum(map(len, results))
    first = results[0]
    assert (rows[0]["source"], rows[0]["frame"], rows[0]["class"]) == ("a/0.jpg", "", first.names[0])
    assert [float(rows[0][side]) for side in ("x1", "y1", "x2", "y2")] == pytest.approx(first.boxes[0], abs=1e-3)


def test_crops_hold_the_pixels_of_their_boxes(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    result = make_result("x/cell.png", [[10.2, 20.5, 29.1, 40], [0, 0, 5, 5]], [0.9, 0.5], [0, 2], item=image)
    save([result], "crops", tmp_path / "crops")
    assert np.array_equal(Image.open(tmp_path / "crops" / "RBC" / "cell-1.png"), pixels[20:40, 10:30])
    assert np.array_equal(Image.open(tmp_path / "crops" / "Platelets" / "cell-2.png"), pixels[:5, :5])


def test_names_of_classes_lead_to_no_other_folder(tmp_path):
    result = make_result("cell.png", [[0, 0, 5, 5]], [0.9], [0], item=Image.new("RGB", (9, 9)))
    for name in ("../up", "a/b", "..", "CON:"):
        folder = tmp_path / str(abs(hash(name)))
        with make_savers([name], None)["crops"](folder / "crops") as keep:
            keep(DetectionResult(**vars(result) | {"classes": (name,)}))
        (made,) = (folder / "crops").iterdir()
        assert made.name not in (".", "..")
        shutil.rmtree(folder)
    assert not list(tmp_path.iterdir())
