from pathlib import Path
from typing import Any

import pytest

from annotated_folders import coco, write_files
from zoo.tasks.detection.formats._files import Findings
from zoo.tasks.detection.formats.coco.json import CocoBox, CocoCategory, CocoImage, CocoJson, read_json

IMAGE = {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}
BOX = {"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 2, 3.5, 4]}


def read(
    tmp_path: Path, content: dict[str, Any] | str | bytes
) -> tuple[CocoJson, list[tuple[str, str, int | None, str]]]:
    findings = Findings(split="train", file="a.json")
    write_files(tmp_path, {"a.json": content})
    result = read_json(tmp_path / "a.json", findings)
    assert {(finding.split, finding.file) for finding in findings.found} <= {("train", "a.json")}
    return result, [(finding.level, finding.kind, finding.line, finding.text) for finding in findings.found]


def boxes(tmp_path: Path, *annotations: dict[str, Any]) -> tuple[list[Any], list[tuple[str, str, str]]]:
    """Return the boxes, and level, kind and text of the findings."""
    result, found = read(tmp_path, coco([IMAGE], annotations))
    return [box.box for box in result.boxes], [(level, kind, text) for level, kind, _, text in found]


def test_what_is_used_of_a_file(tmp_path: Path) -> None:
    result, found = read(
        tmp_path,
        coco(
            [IMAGE, {"id": "x", "file_name": "sub\\b.jpg"}, {"id": 7.0, "file_name": "./c//d.jpg", "width": "1"}],
            [BOX, BOX | {"image_id": "x", "iscrowd": 1, "category_id": "y"}, BOX | {"iscrowd": True, "image_id": 1.0}],
            [{"id": 2, "name": " cat ", "supercategory": "animal"}, {"id": "y", "name": 8}],
        ),
    )
    assert result.images == {
        1: CocoImage("a.jpg", (48, 64), 4),
        "x": CocoImage("sub/b.jpg", None, 10),
        7: CocoImage("./c//d.jpg", None, 14),
    }
    assert result.boxes == [
        CocoBox(1, 2, (1, 2, 4.5, 6), False, 21, "annotation 1"),
        CocoBox("x", "y", (1, 2, 4.5, 6), True, 32, "annotation 1"),
        CocoBox(1, 2, (1, 2, 4.5, 6), True, 44, "annotation 1"),
    ]
    assert result.lists == {"images", "annotations", "categories"}
    assert not result.lost
    assert result.categories == {2: CocoCategory("cat", "animal", 58), "y": CocoCategory("8", "", 63)}
    assert not found


@pytest.mark.parametrize(
    ("bbox", "shown"),
    [
        ([1, 2, 3], "[1, 2, 3]"),
        ([1, 2, "x", 4], "[1, 2, 'x', 4]"),
        ([1, 2, "3", 4], "[1, 2, '3', 4]"),
        ([1, 2, None, 4], "[1, 2, None, 4]"),
        ([1, 2, True, 4], "[1, 2, True, 4]"),
        ([1, 2, [3], 4], "[1, 2, [3], 4]"),
        ([1, 2, float("nan"), 4], "[1, 2, nan, 4]"),
        ([float("-inf"), 2, 3, 4], "[-inf, 2, 3, 4]"),
        ([1e308, 2, 1e308, 4], "[1e+308, 2, 1e+308, 4]"),
        ([1, 2, 10**400, 4], "[1, 2, 1" + "0" * 49 + "..."),
        ({"x": 1}, "{'x': 1}"),
        ("1 2 3 4", "'1 2 3 4'"),
    ],
)
def test_boxes_that_cannot_be_read(tmp_path: Path, bbox: Any, shown: str) -> None:
    found, told = boxes(tmp_path, BOX | {"bbox": bbox}, BOX)
    assert found == [(1, 2, 4.5, 6)]
    text = f"annotation 1: bbox is {shown}; expected four numbers: x, y, width and height"
    assert told == [("error", "unreadable boxes", text)]


def test_boxes_of_odd_sizes_are_for_the_check(tmp_path: Path) -> None:
    found, told = boxes(tmp_path, BOX | {"bbox": [5, 5, 0, -2]}, BOX | {"bbox": [-9, 900, 1, 1]})
    assert found == [(5, 5, 5, 3), (-9, 900, -8, 901)]
    assert not told


def test_a_polygon_without_a_box(tmp_path: Path) -> None:
    polygon = {"id": 1, "image_id": 1, "category_id": 2, "segmentation": [[5, 1, 9, 2, 7, 8], [1, 3, 2, 3, 2, 4.5]]}
    found, told = boxes(tmp_path, polygon, polygon | {"bbox": []}, polygon | {"bbox": [0, 0, 1, 1]})
    assert found == [(1, 1, 9, 8), (1, 1, 9, 8), (0, 0, 1, 1)]
    assert told == [("warning", "polygons without a box", "annotation 1: its bounding box is used")] * 2


def test_a_polygon_without_the_list_around_it(tmp_path: Path) -> None:
    found, _ = boxes(tmp_path, {"image_id": 1, "category_id": 2, "segmentation": [5, 1, 9, 2, 7, 8.5]})
    assert found == [(5, 1, 9, 8.5)]


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        [],
        [[]],
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [[1, 2, 3, 4, 5, "6"]],
        [1, 2, 3, 4, 5],
        [1, 2, 3, 4, 5, [6]],
        {"counts": "x"},
    ],
)
def test_neither_box_nor_polygon(tmp_path: Path, segmentation: Any) -> None:
    found, told = boxes(tmp_path, {"image_id": 1, "category_id": 2, "segmentation": segmentation})
    assert not found
    assert told == [("error", "annotations without a box", "annotations[0]: there is neither a bbox nor a polygon")]


def test_entries_without_what_they_need(tmp_path: Path) -> None:
    images = [
        IMAGE,
        {"id": 1, "file_name": "b.jpg"},
        {"id": 2},
        {"file_name": "c.jpg"},
        {"id": [1], "file_name": "d.jpg"},
    ]
    annotations = [{"bbox": [1, 2, 3, 4], "category_id": 1}, BOX | {"category_id": None}, BOX | {"image_id": 1.5}]
    categories = [
        {"id": 1, "name": "cat"},
        {"id": 1, "name": "dog"},
        {"id": 1, "name": "cat"},
        {"name": "x"},
        {"id": 3},
    ]
    result, found = read(tmp_path, coco(images, annotations, categories))
    assert list(result.images) == [1]
    assert not result.boxes
    assert {key: category.name for key, category in result.categories.items()} == {1: "cat"}
    assert {level for level, *_ in found} == {"error"}
    unclear = "on line 4 and 'b.jpg' here; expected unique ids. Skipped, with its annotations"
    assert [(kind, text) for _, kind, _, text in found] == [
        ("images with the same id", f"image 1 is 'a.jpg' {unclear}"),
        *(
            ("images without id or file_name", f"{text}; expected a number and a name. Skipped")
            for text in (
                "image 2: id is 2, file_name is None",
                "images[3]: id is None, file_name is 'c.jpg'",
                "images[4]: id is [1], file_name is 'd.jpg'",
            )
        ),
        (
            "annotations without ids",
            "annotations[0]: image_id is None, category_id is 1; expected two numbers",
        ),
        (
            "annotations without ids",
            "annotation 1: image_id is 1, category_id is None; expected two numbers",
        ),
        (
            "annotations without ids",
            "annotation 1: image_id is 1.5, category_id is 2; expected two numbers",
        ),
        ("categories with the same id", "category 1 is 'cat' on line 61 and 'dog' here; expected unique ids"),
        *(
            ("categories without id or name", f"{text}; expected a number and a name. Skipped")
            for text in ("categories[3]: id is None, name is 'x'", "category 3: id is 3, name is None")
        ),
    ]
    assert (result.unclear_images, result.unclear_categories) == ({1}, {1})
    assert result.lost == {1: 1}  # of the others nobody knows the image


def test_ids_are_compared_by_value(tmp_path: Path) -> None:
    images = [IMAGE | {"id": key} for key in ("0", 1.0, "2.0", " 3 ", "007", "x7", -4, "-5")]
    annotations = [BOX | {"image_id": str(key), "category_id": key} for key in (0, 1.0, 2)]
    result, found = read(tmp_path, coco(images, annotations, [{"id": "1", "name": "cat"}, {"id": 2.0, "name": "dog"}]))
    assert list(result.images) == [0, 1, 2, 3, "007", "x7", -4, -5]
    assert [(box.image, box.key) for box in result.boxes] == [(0, 0), (1, 1), (2, 2)]
    assert list(result.categories) == [1, 2]
    assert not found


@pytest.mark.parametrize(
    ("given", "crowd"),
    [(0, False), (1, True), (True, True), (False, False), ("1", True), (" 0", False), ("true", True), (None, False)],
)
def test_crowds(tmp_path: Path, given: Any, crowd: bool) -> None:
    result, found = read(tmp_path, coco([IMAGE], [BOX | {"iscrowd": given}]))
    assert [box.crowd for box in result.boxes] == [crowd]
    assert not found


@pytest.mark.parametrize("given", [2, "yes", [1], {}, 0.5])
def test_a_crowd_that_is_neither_0_nor_1_is_told(tmp_path: Path, given: Any) -> None:
    result, found = read(tmp_path, coco([IMAGE], [BOX | {"iscrowd": given}]))
    assert [box.crowd for box in result.boxes] == [False]
    text = f"annotation 1: iscrowd is {given!r}; expected 0 or 1. 0 is used"
    assert [(level, text) for level, _, _, text in found] == [("warning", text)]


def test_what_is_lost_is_counted_by_image(tmp_path: Path) -> None:
    broken = [BOX | {"bbox": "x"}, BOX | {"image_id": "1", "category_id": None}, {"image_id": 3, "category_id": 2}]
    result, found = read(tmp_path, coco([IMAGE], [BOX, *broken]))
    assert len(result.boxes) == 1
    assert result.lost == {1: 2, 3: 1}
    assert [level for level, *_ in found] == ["error"] * 3


def test_the_same_entry_of_an_image_twice_loses_nothing(tmp_path: Path) -> None:
    result, found = read(tmp_path, coco([IMAGE, IMAGE | {"id": "1"}], [BOX]))
    assert list(result.images) == [1]
    assert not result.unclear_images
    assert [(level, text) for level, _, _, text in found] == [("warning", "image 1, 'a.jpg', is already on line 4")]


@pytest.mark.parametrize("name", ["cat ", "  cat", "cat\n"])
def test_names_of_categories_are_plain(tmp_path: Path, name: str) -> None:
    result, _ = read(tmp_path, coco([IMAGE], [BOX], [{"id": 2, "name": name}, {"id": 3, "name": "cafe\u0301  bar"}]))
    assert [category.name for category in result.categories.values()] == ["cat", "caf\u00e9 bar"]


@pytest.mark.parametrize("size", [(0, 0), (-1, 5), (1e300, 5), ("5", 5), (None, 5)])
def test_sizes_that_no_image_has_count_as_not_stated(tmp_path: Path, size: tuple[Any, Any]) -> None:
    result, _ = read(tmp_path, coco([IMAGE | {"height": size[0], "width": size[1]}], []))
    assert result.images[1].size is None


def test_lists_that_are_empty_are_there(tmp_path: Path) -> None:
    assert read(tmp_path, {"images": [IMAGE], "annotations": []})[0].lists == {"images", "annotations"}
    assert read(tmp_path, {"images": [IMAGE]})[0].lists == {"images"}


def test_what_does_not_fit_into_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise MemoryError

    monkeypatch.setattr("zoo.tasks.detection.formats.coco.json.read_text", fail)
    _, found = read(tmp_path, coco([IMAGE], []))
    assert [text for *_, text in found] == ["not enough memory to read it. The file is skipped"]


def test_entries_of_another_kind(tmp_path: Path) -> None:
    result, found = read(tmp_path, {"images": [IMAGE, "a.jpg", None], "annotations": {"1": BOX}, "info": [1]})
    assert list(result.images) == [1]
    assert [(kind, line) for _, kind, line, _ in found] == [("entries of the wrong type", line) for line in (9, 10, 12)]
    assert found[0][3] == "images[1] is 'a.jpg'; expected an object, {...}. Skipped"
    assert found[2][3].startswith("annotations is {'1': ")
    assert found[2][3].endswith("; expected a list, [...]. Skipped")


@pytest.mark.parametrize(
    ("content", "line", "text"),
    [
        ('{"images": [\n{"id": 1,}]}', 2, "it is not JSON:"),
        (
            '{"images": [{"id": 1, "file_name": "a.jpg"}]',
            1,
            "it is not JSON: Expecting ',' or '}', column 45",
        ),
        ('{"images": [' + "[" * 100_000, None, "it is nested too deeply"),
        ('{"images": [{"id": ' + "9" * 5000 + "}]}", None, "Exceeds the limit"),
        (
            b'{"images": [{"file_name": "\xe9.jpg"}]}',
            None,
            "it is not UTF-8 text (line 1). Save it as UTF-8",
        ),
        ("[]", None, "expected a JSON object"),
        ("", None, "expected a JSON object"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: str | bytes, line: int | None, text: str) -> None:
    result, found = read(tmp_path, content)
    assert result == CocoJson()
    assert [(level, kind) for level, kind, _, _ in found] == [("error", "unreadable json files")]
    assert found[0][2] == line
    assert found[0][3].startswith(text)
    assert found[0][3].endswith(". The file is skipped")


def test_a_file_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.tasks.detection.formats.coco.json.MAX_BYTES", 50)
    assert read(tmp_path, coco([IMAGE], []))[1][0][3] == "it is longer than 50 bytes. The file is skipped"


def test_a_file_without_images(tmp_path: Path) -> None:
    _, found = read(tmp_path, coco([], [BOX], [{"id": 2, "name": "cat"}]))
    text = "'images' is missing or has no usable entry"
    assert found == [("error", "json files without images", None, text)]
