import json
from pathlib import Path
from typing import Any

import pytest

from annotated_folders import coco, voc_xml, write_files
from image_files import write_image
from zoo.errors import DataError
from zoo.tasks.detection.formats._find import list_formats, read_box_folder
from zoo.tasks.detection.formats._format import BoxFormat

NAMES = [{"id": 1, "name": "cat"}]
FILE = coco(
    [{"id": 1, "file_name": "a.jpg"}], [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]}], NAMES
)
YAML = "names: [cat]\ntrain: images\nval: images\n"
XML = voc_xml("a.jpg", ("cat", 1, 1, 20, 20))
IMAGE = {"images/a.jpg": ""}
FORMATS: dict[str, dict[str, Any]] = {
    "COCO": {"annotations/instances_default.json": FILE},
    "YOLO": {"data.yaml": YAML, "labels/a.txt": "0 0.5 0.5 0.5 0.5\n"},
    "Pascal VOC": {"Annotations/a.xml": XML},
}


@pytest.mark.parametrize("known", list_formats(), ids=lambda known: known.name)
def test_a_folder_without_annotations_is_of_no_format(tmp_path: Path, known: BoxFormat) -> None:
    assert known.read(write_files(tmp_path, {})) is None
    assert known.read(write_files(tmp_path, IMAGE | {"notes.md": "a.jpg", "b/c.jpg": ""})) is None
    assert known.find_look_alikes(tmp_path) == []
    assert known.name
    assert known.expected


def test_each_format_has_a_name_and_a_place_of_its_own() -> None:
    for values in ([known.name for known in list_formats()], [known.order for known in list_formats()]):
        assert len(set(values)) == len(values)


@pytest.mark.parametrize(("one", "other"), [("COCO", "YOLO"), ("COCO", "Pascal VOC"), ("YOLO", "Pascal VOC")])
def test_two_formats_are_an_error_that_names_both(tmp_path: Path, one: str, other: str) -> None:
    root = write_files(tmp_path, IMAGE | FORMATS[one] | FORMATS[other])
    files = {"COCO": "annotations/instances_default.json", "YOLO": "labels/a.txt", "Pascal VOC": "Annotations/a.xml"}
    with pytest.raises(DataError) as caught:
        read_box_folder(root)
    assert f"has boxes in 2 formats: {one} ({files[one]}) and {other} ({files[other]}). Pass the path of" in str(
        caught.value
    )
    chosen = {"COCO": ["annotations", "annotations/instances_default.json"], "YOLO": ["data.yaml"], "Pascal VOC": []}
    for form in (one, other):
        for path in chosen[form]:
            assert read_box_folder(root / path).form == form


def test_a_json_of_coco_among_the_xml_files(tmp_path: Path) -> None:
    root = write_files(tmp_path, IMAGE | {"Annotations/a.xml": XML, "Annotations/coco.json": FILE})
    with pytest.raises(DataError, match=r"COCO \(Annotations/coco\.json\) and Pascal VOC \(Annotations/a\.xml\)"):
        read_box_folder(root)
    assert read_box_folder(root / "Annotations/coco.json").form == "COCO"


def test_three_formats_and_one_that_cannot_be_read(tmp_path: Path) -> None:
    root = write_files(tmp_path, IMAGE | FORMATS["COCO"] | FORMATS["YOLO"] | FORMATS["Pascal VOC"])
    with pytest.raises(DataError, match=r"has boxes in 3 formats: COCO .* and YOLO .* and Pascal VOC"):
        read_box_folder(root)
    root = write_files(tmp_path / "x", IMAGE | FORMATS["Pascal VOC"] | {"data.yaml": "names: [cat]\ntrain: none\n"})
    with pytest.raises(DataError, match=r"2 formats: Pascal VOC \(.*\) and YOLO, which cannot be read \(.*data\.yaml"):
        read_box_folder(root)


def test_images_that_are_missing_do_not_hide_a_format(tmp_path: Path) -> None:
    missing = json.loads(json.dumps(FILE).replace("a.jpg", "gone.jpg"))
    files = IMAGE | FORMATS["YOLO"] | {"annotations/instances_default.json": missing}
    with pytest.raises(DataError, match=r"2 formats: COCO \(without a usable image\) and YOLO"):
        read_box_folder(write_files(tmp_path, files))


def test_a_yaml_without_labels_is_no_second_format(tmp_path: Path) -> None:
    root = write_files(tmp_path, IMAGE | FORMATS["COCO"] | {"data.yaml": YAML})
    assert read_box_folder(root).form == "COCO"
    assert read_box_folder(root / "data.yaml").form == "YOLO"


@pytest.mark.parametrize(
    "content",
    [{"images": 500, "classes": ["cat"]}, {"images": ["a.jpg"]}, {"images": [{"caption": "x"}]}, b'[{"image_id": 1}]'],
)
def test_an_unrelated_json_is_not_taken_for_coco(tmp_path: Path, content: Any) -> None:
    root = write_files(tmp_path, IMAGE | FORMATS["YOLO"] | {"about.json": content, "annotations/b.json": content})
    source = read_box_folder(root)
    assert source.form == "YOLO"
    assert not [finding for finding in source.findings if "json" in finding.file]


def test_a_json_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    broken = {"annotations/instances_train.json": b"", "b.json": "{"}
    source = read_box_folder(write_files(tmp_path, IMAGE | FORMATS["YOLO"] | broken))
    told = [(finding.level, finding.file, finding.text) for finding in source.findings if "json" in finding.file]
    assert told == [
        ("note", "annotations/instances_train.json", "it is empty"),
        ("note", "b.json", "it is not JSON"),
    ]
    with pytest.raises(
        DataError,
        match=r"no box annotations in [^$]*\n'annotations/instances_train\.json': it is",
    ):
        read_box_folder(write_files(tmp_path / "alone", IMAGE | broken))
    listed = write_files(tmp_path / "list", {"labels.json": b'[{"image_id": 1}]'})
    with pytest.raises(DataError, match=r"'labels\.json': it is a list; expected an object with images"):
        read_box_folder(listed)
    with pytest.raises(DataError, match=r"'labels\.json': it is a list; expected an object with images"):
        read_box_folder(listed / "labels.json")


def test_what_is_no_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"folder '.*missing'.*Expected one of:\n  COCO: .*\n  YOLO: .*\n"):
        read_box_folder(tmp_path / "missing")
    with pytest.raises(DataError, match="Current folder: "):
        read_box_folder("missing")
    with pytest.raises(DataError, match="the path of the data is empty"):
        read_box_folder("")
    (tmp_path / "holiday").mkdir()
    with pytest.raises(DataError, match=r"found no box annotations in '.*holiday'[^$]*It is empty\."):
        read_box_folder(tmp_path / "holiday")
    write_image(tmp_path / "holiday/a.png")
    write_image(tmp_path / "holiday/sub/a.png")
    (tmp_path / "holiday/notes.md").touch()
    with pytest.raises(DataError, match=r"It contains the folder 'sub', 1 file \.png, 1 file \.md\."):
        read_box_folder(tmp_path / "holiday")
    (tmp_path / "data.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="It is an archive: extract it and pass the folder"):
        read_box_folder(tmp_path / "data.zip")
