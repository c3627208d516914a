from pathlib import Path

import pytest

from annotated_folders import touch, write_files
from zoo.tasks.detection.formats.yolo.pairs import Pairs, expect_labels, is_label_file


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/1.jpg", "labels/1.txt"),
        ("images/train/1.jpg", "labels/train/1.txt"),
        ("Images/Train/A.JPG", "labels/train/a.TXT"),
        ("IMAGES/1.jpg", "Labels/1.txt"),
        ("JPEGImages/1.jpg", "labels/1.txt"),
        ("images/set/images/1.jpg", "images/set/labels/1.txt"),
        ("train/1.jpg", "train/1.txt"),
        ("images/1.jpg", "images/1.txt"),
        ("images/a.b.jpg", "labels/a.b.txt"),
        ("images/caf\u00e9.jpg", "labels/cafe\u0301.txt"),
    ],
)
def test_which_label_file_belongs_to_an_image(tmp_path: Path, image: str, label: str) -> None:
    touch(tmp_path, image, label)
    pairs = Pairs()
    assert pairs.find_label(tmp_path / image) == tmp_path / label
    assert pairs.has_image(tmp_path / label)


def test_labels_are_first_where_they_belong(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.jpg", "images/1.txt", "labels/1.txt")
    assert Pairs().find_label(tmp_path / "images/1.jpg") == tmp_path / "labels/1.txt"


def test_what_does_not_pair(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.jpg", "labels/2.txt", "labels/train/1.txt", "images/3.pdf", "labels/3.txt")
    pairs = Pairs()
    assert pairs.find_label(tmp_path / "images/1.jpg") is None
    assert not any(pairs.has_image(tmp_path / name) for name in ("labels/2.txt", "labels/train/1.txt", "labels/3.txt"))


def test_folders_of_labels(tmp_path: Path) -> None:
    touch(tmp_path, "Images/Val/1.jpg", "LABELS/val/1.txt", "other/1.jpg")
    assert Pairs().find_label_folder(tmp_path / "Images/Val") == tmp_path / "LABELS/val"
    assert Pairs().find_label_folder(tmp_path / "other") is None


def test_where_labels_are_expected() -> None:
    assert expect_labels(Path("/d/images/a/1.jpg")) == [Path("/d/labels/a/1.txt"), Path("/d/images/a/1.txt")]
    assert expect_labels(Path("/d/a/1.jpg")) == [Path("/d/a/1.txt")]


@pytest.mark.parametrize(
    ("content", "is_label"),
    [("\n0 .5 .5 1 1\n", True), ("", False), ("a cat", False), ("images/1.jpg", False), (b"\xff\xfe0\0", False)],
)
def test_texts_that_are_labels(tmp_path: Path, content: str | bytes, is_label: bool) -> None:
    assert is_label_file(write_files(tmp_path, {"a.txt": content}) / "a.txt") is is_label
