import unicodedata
from pathlib import Path

import pytest

from annotated_folders import touch
from zoo.tasks.detection.formats.coco.files import CocoFile
from zoo.tasks.detection.formats.coco.images import ImagePlaces, escapes_folder


def places(root: Path, *names: str, file: str = "annotations/all.json", split: str = "all") -> ImagePlaces:
    """Return where images are that an annotation file below a folder names."""
    base = root if file.startswith("annotations/") else (root / file).parent
    return ImagePlaces(CocoFile(root / file, split, base), names, root)


def find(root: Path, name: str, *others: str, **more: str) -> tuple[str, bool] | None:
    """Return the image of a name below the folder, and whether it was found by the end of its name alone."""
    found = places(root, name, *others, **more).find(name)
    return found and (found.path.relative_to(root).as_posix(), found.by_end)


@pytest.mark.parametrize(
    ("name", "out"),
    [
        *((name, False) for name in ("a.jpg", "a/../b.jpg", "./a.jpg", "images/../images/i0.jpg", ".", "")),
        *((name, True) for name in ("../a.jpg", "a/../../b.jpg", "/a.jpg", "C:/a.jpg")),
    ],
)
def test_names_that_lead_out(name: str, out: bool) -> None:
    assert escapes_folder(name) is out


@pytest.mark.parametrize("name", ["i0.jpg", "./i0.jpg", "x/../i0.jpg", "../images/i0.jpg"])
def test_detours_that_stay_inside(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "images/i0.jpg")
    assert find(tmp_path, name) == ("images/i0.jpg", name.startswith(".."))


@pytest.mark.parametrize(
    "name",
    [
        "/images/i0.jpg",
        "../../label-studio/media/upload/4/i0.jpg",
        "/home/anna/data/i0.jpg",
        "C:/Users/anna/images/i0.jpg",
        "upload/4/i0.jpg",
        "http://localhost:8080/data/upload/i0.jpg?d=x",
        "file:///home/anna/i0.jpg",
        "s3://bucket/images/i0.jpg",
    ],
)
def test_names_of_another_machine_are_found_by_their_end(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "images/i0.jpg", "images/other.jpg")
    assert find(tmp_path, name) == ("images/i0.jpg", True)
    assert find(tmp_path, name, "other.jpg") == ("images/i0.jpg", True)


def test_a_url_is_unescaped(tmp_path: Path) -> None:
    touch(tmp_path, "images/my photo.jpg")
    assert find(tmp_path, "https://x/my%20photo.jpg") == ("images/my photo.jpg", True)
    assert find(tmp_path, "https://x/..%2F..%2Fetc%2Fpasswd") is None
    assert find(tmp_path, "http://[") is None


def test_a_whole_path_into_the_data_is_as_good_as_any(tmp_path: Path) -> None:
    touch(tmp_path, "images/i0.jpg", "images/sub/i1.jpg", "train/i2.jpg")
    for name in ("images/i0.jpg", "images/sub/i1.jpg", "images/sub/../i0.jpg"):
        assert find(tmp_path, str(tmp_path / name), "i0.jpg") == (name.replace("sub/../", ""), False)
    assert find(tmp_path, str(tmp_path / "train/i2.jpg"), "i0.jpg") == ("train/i2.jpg", False)


def test_a_image_outside_is_never_found(tmp_path: Path) -> None:
    root = touch(tmp_path / "data", "a.jpg")
    outside = touch(tmp_path, "secret.jpg") / "secret.jpg"
    for name in ("../secret.jpg", str(outside), "x/../../secret.jpg", f"/{'../' * 9}{outside}", "C:/../secret.jpg"):
        assert find(root, name) is None
    (tmp_path / "data" / "images").mkdir()
    assert find(root, "../../secret.jpg") is None


def test_the_longest_end_decides(tmp_path: Path) -> None:
    touch(tmp_path, "images/i0.jpg", "images/b/i0.jpg")
    assert find(tmp_path, "/mnt/a/b/i0.jpg") == ("images/b/i0.jpg", True)
    assert find(tmp_path, "/mnt/a/c/i0.jpg") == ("images/i0.jpg", True)


def test_a_image_in_a_deeper_folder_is_found_if_it_is_the_only_one(tmp_path: Path) -> None:
    touch(tmp_path, "images/Train/Data/i0.bmp", "images/Train/Data/i1.bmp", "images/Train/Else/i1.bmp")
    assert find(tmp_path, "i0.bmp") == ("images/Train/Data/i0.bmp", True)
    assert find(tmp_path, "Data/i1.bmp") == ("images/Train/Data/i1.bmp", True)
    assert find(tmp_path, "i1.bmp") is None  # which of the two?


def test_a_image_of_the_same_name_in_another_folder_is_another(tmp_path: Path) -> None:
    touch(tmp_path, "images/seq1/0001.jpg")
    assert find(tmp_path, "seq2/0001.jpg") is None
    assert find(tmp_path, "seq1/0001.jpg") == ("images/seq1/0001.jpg", False)


def test_images_of_another_split_are_not_taken(tmp_path: Path) -> None:
    touch(tmp_path, "images/train/0.jpg", "images/val/1.jpg", "val/2.jpg", "deep/val/3.jpg")
    for number in (1, 2, 3):
        assert find(tmp_path, f"{number}.jpg", "0.jpg", file="annotations/train.json", split="train") is None
    assert find(tmp_path, "1.jpg", file="annotations/val.json", split="val") == ("images/val/1.jpg", False)


def test_letters_in_two_characters(tmp_path: Path) -> None:
    """A Mac writes é as two characters into zip files, and json files have it as one."""
    name = unicodedata.normalize("NFC", "café.jpg")
    touch(tmp_path, f"images/{unicodedata.normalize('NFD', name)}")
    assert find(tmp_path, name) == (f"images/{unicodedata.normalize('NFD', name)}", True)


def test_what_is_told_of_a_image_that_is_missing(tmp_path: Path) -> None:
    touch(tmp_path, "images/i0.jpg")
    explain = places(tmp_path, "a.jpg").explain
    assert explain("a.jpg") == "'images', '.' or 'annotations'"
    for name in ("i0.JPG", "I0.png", "i0", "/x/I0.jpeg"):
        assert explain(name).endswith("; found 'images/i0.jpg'")
    assert places(tmp_path, "i0.jpg").explain("a.jpg") == "'images'"


@pytest.mark.parametrize(
    "name", ["a" * 300, "a\x00.jpg", "\x00", "a\ud800.jpg", ".", "..", "/", "//", "", "http://", "C:"]
)
def test_names_that_are_none(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "images/i0.jpg")
    assert find(tmp_path, name) is None
    assert places(tmp_path, name).explain(name)
