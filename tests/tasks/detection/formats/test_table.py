import warnings
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from image_files import make_image
from zoo.data.decode import read_image
from zoo.errors import DataError
from zoo.tasks.detection.formats._datasets import read_box_datasets

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    datasets = pytest.importorskip("datasets")

BOXES = [[1.0, 2.0, 5.0, 6.5], [0.0, 0.0, 9.0, 7.0]]


def encode(image: Image.Image) -> bytes:
    stream = BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def hugging_face(objects: list[Any], feature: Any, name: str = "objects", **more: Any) -> Any:
    images = [{"bytes": encode(make_image(seed=i)), "path": None} for i in range(len(objects))]
    features = {"image": datasets.Image(), name: feature}
    return datasets.Dataset.from_dict(
        {"image": images, name: objects} | more, features=datasets.Features(features) if not more else None
    )


def column(label: str = "category", box: str = "bbox", names: Any = ("cat", "dog"), **more: Any) -> dict[str, Any]:
    kind = datasets.ClassLabel(names=list(names)) if names else datasets.Value("int64")
    return {box: [[datasets.Value("float32")]], label: [kind], **more}


OBJECTS = [{"bbox": [[1.0, 2.0, 4.0, 4.5], [0.0, 0.0, 9.0, 7.0]], "category": [1, 0]}, {"bbox": [], "category": []}]


def test_hugging_face_mapping_of_lists() -> None:
    source = read_box_datasets(hugging_face(OBJECTS, column()))
    first, second = source.splits["all"].images
    assert first.boxes.tolist() == BOXES  # from x, y, width, height
    assert (first.keys, second.keys, second.boxes.shape) == ((1, 0), (), (0, 4))
    assert source.names == {0: "cat", 1: "dog"}
    assert source.where == "data set Dataset"
    split = source.splits["all"]
    assert split.in_threads
    assert isinstance(split.reader(1), bytes)  # still encoded
    assert np.array_equal(np.asarray(read_image(split.reader(1))), np.asarray(make_image(seed=1)))


def test_hugging_face_list_of_mappings() -> None:
    rows = [[{"bbox": [1, 2, 4, 4.5], "label": 1, "iscrowd": 1}, {"bbox": [0, 0, 9, 7], "label": 0, "iscrowd": 0}], []]
    feature = [
        {
            "bbox": [datasets.Value("float32")],
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "iscrowd": datasets.Value("int64"),
        }
    ]
    source = read_box_datasets(hugging_face(rows, feature))
    first, second = source.splits["all"].images
    assert first.boxes.tolist() == BOXES
    assert (first.keys, first.crowd.tolist(), second.keys) == ((1, 0), [True, False], ())
    assert source.names == {0: "cat", 1: "dog"}


def test_hugging_face_columns_of_other_names_and_splits() -> None:
    renamed = [{"boxes": row["bbox"], "categories": row["category"]} for row in OBJECTS]
    source = read_box_datasets(hugging_face(renamed, column("categories", "boxes", names=None), "annotations"))
    assert source.splits["all"].images[0].boxes.tolist() == [[1, 2, 4, 4.5], [0, 0, 9, 7]]
    assert source.names == {0: "0", 1: "1"}
    data = datasets.DatasetDict({name: hugging_face(OBJECTS, column()) for name in ("train", "validation")})
    source = read_box_datasets(data)
    assert {name: len(split.images) for name, split in source.splits.items()} == {"train": 2, "val": 2}
    assert read_box_datasets(data["train"]).splits.keys() == {"all"}


def test_hugging_face_without_what_is_needed() -> None:
    fields = {"bbox": [[1.0, 2.0, 3.0, 4.0]], "colour": [1]}
    with pytest.raises(DataError, match=r"column 'objects' of the data has the fields bbox, colour; expected 'bbox'"):
        read_box_datasets(hugging_face([fields], column("colour")))
    with pytest.raises(DataError, match=r"no column of boxes; its columns are image \(Image\), things \(dict\)\."):
        read_box_datasets(hugging_face(OBJECTS, column(), "things"))
    with pytest.raises(DataError, match="has its own"):
        read_box_datasets(hugging_face(OBJECTS, column()).with_transform(lambda rows: rows))
    uneven = [{"bbox": [[1.0, 2.0, 3.0, 4.0]], "category": [0, 1]}, OBJECTS[0]]
    (finding,) = read_box_datasets(hugging_face(uneven, column())).findings
    assert finding.text == "it has 1 boxes and 2 labels; expected a label for each box; the sample is skipped"


def flat(**columns: Any) -> Any:
    """A table of flat columns beside its images."""
    rows = len(next(iter(columns.values())))
    images = [{"bytes": encode(make_image(seed=i)), "path": None} for i in range(rows)]
    table = datasets.Dataset.from_dict({"image": images} | columns)
    return table.cast_column("image", datasets.Image())


def unclear(*boxes: list[float]) -> list[dict[str, Any]]:
    return [{"boxes": [box], "label": [0]} for box in boxes]


def test_shares_of_the_image_are_refused() -> None:
    shares = hugging_face([{"bbox": [[0.1, 0.2, 0.3, 0.4]], "category": [0]}], column())
    with pytest.raises(DataError, match=r"boxes of the data are between 0 and 1, .*expected x, y, width, height in"):
        read_box_datasets(shares)


def test_flat_columns_hold_boxes_with_classes() -> None:
    table = flat(bbox=[[[1.0, 2.0, 4.0, 4.5], [0.0, 0.0, 9.0, 7.0]], [], None], label=[[1, 0], [], None])
    source = read_box_datasets(table)
    first, second, third = source.splits["all"].images
    assert (first.boxes.tolist(), first.keys) == (BOXES, (1, 0))
    assert (second.keys, third.keys) == ((), ())
    assert source.names == {0: "0", 1: "1"}
    names = datasets.ClassLabel(names=["cat", "dog"])
    table = flat(bbox=[[1.0, 2.0, 4.0, 4.5], [0.0, 0.0, 9.0, 7.0]], category=[1, 0]).cast_column("category", names)
    source = read_box_datasets(table)
    assert [image.boxes.tolist() for image in source.splits["all"].images] == [BOXES[:1], BOXES[1:]]
    assert [image.keys for image in source.splits["all"].images] == [(1,), (0,)]
    assert source.names == {0: "cat", 1: "dog"}
    with pytest.raises(DataError, match=r"no column of boxes; .*Expected a column 'objects' .* or columns 'bbox' and"):
        read_box_datasets(flat(bbox=[[[1.0, 2.0, 3.0, 4.0]]]))


def test_a_field_called_boxes_holds_corners_unless_boxes_contradict_it() -> None:
    corners = hugging_face(unclear([1, 2, 5, 6], [0, 0, 9, 7]), column("label", "boxes"))
    source = read_box_datasets(corners)
    assert [image.boxes.tolist() for image in source.splits["all"].images] == [[[1, 2, 5, 6]], [[0, 0, 9, 7]]]
    (finding,) = source.findings
    assert (finding.level, finding.text) == (
        "warning",
        "the field 'boxes' is read as x1, y1, x2, y2; if it is x, y, width, height, rename it to 'bbox'",
    )
    sides = hugging_face(unclear([5, 2, 3, 4], [0, 0, 9, 7]), column("label", "boxes"))
    source = read_box_datasets(sides)
    assert [image.boxes.tolist() for image in source.splits["all"].images] == [[[5, 2, 8, 6]], [[0, 0, 9, 7]]]
    text = "the field 'boxes' is read as x, y, width, height: 1 of 2 boxes cannot be corners"
    assert [finding.text for finding in source.findings] == [text]


def test_all_splits_are_written_in_one_way() -> None:
    """Val alone would look like corners."""
    train = hugging_face(unclear([5, 2, 3, 4], [6, 5, 2, 2]), column("label", "boxes"))
    val = hugging_face(unclear([1, 1, 3, 4]), column("label", "boxes"))
    source = read_box_datasets((train, val))
    assert source.splits["val"].images[0].boxes.tolist() == [[1, 1, 4, 5]]
    boxes = [[1.0, 1.0, 5.0, 6.0]] * 30 + [[4.0, 4.0, 4.0, 9.0]]
    source = read_box_datasets(hugging_face(unclear(*boxes), column("label", "boxes")))
    assert source.splits["all"].images[0].boxes.tolist() == [[1, 1, 5, 6]]
