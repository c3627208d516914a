from pathlib import Path

import pytest

from annotated_folders import touch, voc_xml, write_files
from zoo.tasks.detection.formats._files import Findings
from zoo.tasks.detection.formats.voc import read_voc
from zoo.tasks.detection.formats.voc.places import find_places, list_splits

CAT = ("cat", 1, 1, 9, 9)


def pairs(root: Path, *names: tuple[str, str]) -> Path:
    """Write images and an xml for each, at these paths."""
    for image, xml in names:
        write_files(root, {image: "", xml: voc_xml(Path(image).name, CAT)})
    return root


def images(root: Path) -> dict[str, list[str]]:
    source = read_voc(root)
    assert source is not None
    assert not [finding for finding in source.findings if finding.level != "note"]
    return {split: [image.name for image in part.images] for split, part in source.splits.items()}


@pytest.mark.parametrize(
    ("image", "xml"),
    [
        ("JPEGImages/1.jpg", "Annotations/1.xml"),
        ("images/1.jpg", "annotations/1.xml"),
        ("img/1.jpg", "xml/1.xml"),
        ("imgs/1.jpg", "xmls/1.xml"),
        ("images/1.jpg", "labels/1.xml"),
        ("photos/1.jpg", "boxes/1.xml"),
        ("JPEGImages/task 1/1.jpg", "Annotations/task 1/1.xml"),
        ("JPEGImages/1.jpg", "Annotations/task 1/1.xml"),
        ("JPEGImages/a/b/1.jpg", "Annotations/1.xml"),
        ("1.jpg", "Annotations/1.xml"),
        ("JPEGImages/1.jpg", "1.xml"),
        ("1.jpg", "1.xml"),
    ],
)
def test_where_images_and_xml_files_are(tmp_path: Path, image: str, xml: str) -> None:
    assert images(pairs(tmp_path, (image, xml))) == {"all": [image]}


def test_other_texts_in_a_folder_of_labels(tmp_path: Path) -> None:
    pairs(tmp_path, ("images/1.jpg", "xml/1.xml"))
    assert images(write_files(tmp_path, {"labels/1.txt": "0 .5 .5 1 1"})) == {"all": ["images/1.jpg"]}


def test_folders_of_splits_in_both(tmp_path: Path) -> None:
    train = ("images/train/1.jpg", "annotations/train/1.xml")
    val = ("images/val/1.jpg", "annotations/val/1.xml")
    assert images(pairs(tmp_path, train, val)) == {"train": ["images/train/1.jpg"], "val": ["images/val/1.jpg"]}


def test_an_image_of_another_split_is_not_taken(tmp_path: Path) -> None:
    pairs(tmp_path, ("images/val/1.jpg", "annotations/val/1.xml"))
    source = read_voc(write_files(tmp_path, {"annotations/train/1.xml": voc_xml("1.jpg", CAT)}))
    assert source is not None
    assert [(finding.level, finding.kind, finding.place) for finding in source.findings][:1] == [
        ("error", "missing images", "annotations/train/1.xml")
    ]
    assert not source.splits["train"].images


def test_the_folder_of_the_xml_files_itself(tmp_path: Path) -> None:
    pairs(tmp_path, ("JPEGImages/1.jpg", "Annotations/1.xml"), ("JPEGImages/2.jpg", "Annotations/2.xml"))
    write_files(tmp_path, {"ImageSets/Main/train.txt": "1", "ImageSets/Main/val.txt": "2"})
    expected = {"train": ["JPEGImages/1.jpg"], "val": ["JPEGImages/2.jpg"]}
    assert images(tmp_path / "Annotations") == images(tmp_path) == expected


@pytest.mark.parametrize(
    "files",
    [
        {"a/1.jpg": "", "b/1.jpg": "", "c/1.xml": voc_xml("1.jpg", CAT)},
        {"a/1.jpg": "", "c/1.xml": voc_xml("1.jpg", CAT), "d/1.xml": voc_xml("1.jpg", CAT)},
        {"a/1.jpg": "", "c/pom.xml": "<project/>"},
        {"1.jpg": "", "pom.xml": "<project/>"},
        {"images/1.jpg": "", "sitemap.xml": "<urlset/>"},
    ],
)
def test_what_could_be_anything_is_none(tmp_path: Path, files: dict[str, str]) -> None:
    assert find_places(write_files(tmp_path, dict(files))) == []


def test_an_xml_in_no_folder_of_a_split_is_told(tmp_path: Path) -> None:
    pairs(tmp_path, ("images/train/1.jpg", "annotations/train/1.xml"), ("images/2.jpg", "annotations/2.xml"))
    (place,) = find_places(tmp_path)
    findings = Findings()
    assert list_splits(place, place.list_xmls(), findings) == {"train": ["train/1"]}
    assert [(item.level, item.kind, item.place) for item in findings.found] == [
        ("warning", "xml files in no split", "annotations/2.xml")
    ]


@pytest.mark.parametrize(
    "line",
    ["1", "1.jpg", "1.xml", "JPEGImages/1.jpg", "Annotations/1.xml", "../../JPEGImages/1.jpg", "JPEGImages\\1.jpg"],
)
def test_how_lists_name_an_xml(tmp_path: Path, line: str) -> None:
    pairs(tmp_path, ("JPEGImages/1.jpg", "Annotations/1.xml"))
    write_files(tmp_path, {"ImageSets/Main/train.txt": line})
    assert images(tmp_path) == {"train": ["JPEGImages/1.jpg"]}


def test_hidden_and_empty_folders(tmp_path: Path) -> None:
    assert find_places(touch(tmp_path, "Annotations/.1.xml", "JPEGImages/1.jpg")) == []
