import codecs
import json
import os
from pathlib import Path
from typing import Any

import pytest

from annotated_folders import coco, write_files
from zoo.tasks.detection.formats._files import Findings
from zoo.tasks.detection.formats.coco.files import find_files, find_look_alikes

FILE = coco([{"id": 1, "file_name": "a.jpg"}], [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]}])


def find(root: Path, *names: str, **files: Any) -> dict[str, tuple[str, str]]:
    """Return the file and the base of each split, in a folder of such files."""
    write_files(root, dict.fromkeys(names, FILE) | files)
    return splits(root)[0]


def splits(root: Path) -> tuple[dict[str, tuple[str, str]], list[tuple[str, str]]]:
    findings = Findings()
    top = root if root.is_dir() else root.parent
    found = {
        file.split: (os.path.relpath(file.path, top), os.path.relpath(file.base, top))
        for file in find_files(root, findings)
    }
    return found, [(finding.level, finding.text) for finding in findings.found]


def test_the_folder_annotations_may_be_given(tmp_path: Path) -> None:
    found = find(tmp_path, "annotations/train.json", "annotations/val.json")
    assert found == {"train": ("annotations/train.json", "."), "val": ("annotations/val.json", ".")}
    assert splits(tmp_path / "annotations")[0] == {"train": ("train.json", ".."), "val": ("val.json", "..")}
    assert splits(tmp_path / "annotations/val.json")[0] == {"val": ("val.json", "..")}


def test_folders_for_splits_in_annotations(tmp_path: Path) -> None:
    found = find(tmp_path, "Annotations/train/instances.json", "Annotations/valid/instances.json")
    assert found == {
        "train": ("Annotations/train/instances.json", "."),
        "val": ("Annotations/valid/instances.json", "."),
    }
    assert splits(tmp_path / "Annotations/train/instances.json")[0] == {"all": ("instances.json", "../..")}


def test_trainval_is_train_where_there_is_a_test_alone(tmp_path: Path) -> None:
    names = ["annotations/instances_trainval.json", "annotations/instances_test.json"]
    assert {split: file for split, (file, _) in find(tmp_path, *names).items()} == {"train": names[0], "test": names[1]}
    text = "'instances_trainval.json' is used as train: there are no separate files for train and val"
    assert splits(tmp_path)[1] == [("note", text)]
    found = find(tmp_path, "annotations/instances_train.json", "annotations/instances_val.json")
    assert found.keys() == {"train", "val", "test"}
    text = "'instances_trainval.json' is not read: there are files for train or val"
    assert splits(tmp_path)[1] == [("warning", text)]


@pytest.mark.parametrize("name", ["train_val.json", "trainval2014.json", "instances_trainval.json"])
def test_trainval_alone_has_no_split(tmp_path: Path, name: str) -> None:
    assert find(tmp_path, name) == {"all": (name, ".")}


def test_folders_named_trainval(tmp_path: Path) -> None:
    names = ["trainval/_annotations.coco.json", "test/_annotations.coco.json"]
    assert find(tmp_path, *names) == {"train": (names[0], "trainval"), "test": (names[1], "test")}


def test_key_points_have_boxes(tmp_path: Path) -> None:
    name = "annotations/person_keypoints_default.json"
    assert find(tmp_path, name) == {"all": (name, ".")}
    both = find(tmp_path, "annotations/instances_train.json", "annotations/person_keypoints_val.json")
    assert both == {"train": ("annotations/instances_train.json", ".")}  # val would have people alone
    assert splits(tmp_path / "annotations/person_keypoints_val.json")[0].keys() == {"val"}


def test_files_without_boxes_are_told_but_may_be_given(tmp_path: Path) -> None:
    assert find(tmp_path, "annotations/captions_train.json") == {}
    [passed] = find_look_alikes(tmp_path)
    assert passed[1:] == ("annotations/captions_train.json", "its name suggests that it has no boxes", False)
    assert splits(tmp_path / "annotations/captions_train.json")[0].keys() == {"train"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"\0" * 100, "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is not JSON"),
        (b"<html>", "it is not JSON"),
        (b'{"images', "it is not JSON"),
        (b'[{"image_id": 1, "bbox": [1, 2, 3, 4]}]', "it is a list; expected an object with images"),
        (b'{"images": 7, "classes": ["cat"]}', "it has another structure; expected an object with images"),
        (b'{"images": ["a.jpg", "b.jpg"]}', "it has another structure;"),
        (b'{"images": [{"url": "x", "caption": "y"}]}', "it has another structure;"),
        (b'{"shapes": [], "imagePath": "a.jpg"}', "it has another structure;"),
    ],
)
def test_what_is_no_annotation_file_is_explained(tmp_path: Path, content: bytes, why: str) -> None:
    for name in ("annotations/instances_train.json", "labels.json", "train/_annotations.coco.json"):
        root = write_files(tmp_path / name[:5], {name: content})
        assert find(root) == {}
        (told,) = find_look_alikes(root)
        assert told.file == name
        assert told.why.startswith(why)
        assert told.is_unsure == (
            why
            in (
                "it is empty",
                "it is not JSON",
            )
        )
    assert find_look_alikes(tmp_path / "label/labels.json")[0].file == "labels.json"


def test_pipes_are_explained(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    assert find(tmp_path) == {}
    [passed] = find_look_alikes(tmp_path)
    assert passed[1:] == ("a.json", "it is not a regular file", True)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8-sig"])
def test_other_encodings_are_found(tmp_path: Path, encoding: str) -> None:
    data = json.dumps(FILE).encode(encoding)
    assert find(tmp_path, **{"instances_train.json": data}).keys() == {"train"}
    assert data[:2] in (codecs.BOM_UTF16_LE, b"{\0", b"\xef\xbb")


def test_a_damaged_file_of_a_split_is_not_passed_over(tmp_path: Path) -> None:
    """Else another val would be drawn from train without a word."""
    found = find(tmp_path, "annotations/train.json", **{"annotations/val.json": b""})
    assert found.keys() == {"train", "val"}
    found = find(tmp_path, **{"annotations/train (copy).json": b"", "annotations/notes.json": b"x"})
    assert found["train"][0] == "annotations/train.json"
    assert splits(tmp_path)[1] == [
        ("warning", "'notes.json' is not read: it is not JSON"),
        ("warning", "'train (copy).json' is not read: it is empty"),
    ]


def test_a_large_file_is_judged_by_its_ends(tmp_path: Path) -> None:
    filler = {"info": "x" * 100_000}
    assert find(tmp_path / "a", **{"a.json": filler | FILE}).keys() == {"all"}
    assert find(tmp_path / "b", **{"b.json": FILE | {"licenses": filler}}).keys() == {"all"}
    assert find(tmp_path / "c", **{"c.json": filler | {"images": ["a.jpg"]}}) == {}


def test_annotation_files_of_another_place_are_told(tmp_path: Path) -> None:
    found = find(tmp_path, "annotations/train.json", "train/_annotations.coco.json", "all.json", "captions_a.json")
    assert found == {"train": ("annotations/train.json", ".")}
    assert splits(tmp_path)[1] == [
        ("warning", f"{name!r} is not read: 'annotations/train.json' is used instead")
        for name in ("train/_annotations.coco.json", "all.json")
    ]
