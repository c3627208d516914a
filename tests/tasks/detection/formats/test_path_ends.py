from pathlib import Path

import pytest

from zoo.tasks.detection.formats._path_ends import Items, Match

HERE = Path("/data")


def items(*names: str) -> Items:
    return Items({name: name for name in names})


@pytest.mark.parametrize(
    ("written", "moved"),
    [
        ("images/train/1.jpg", False),
        ("./images/train/1.jpg", False),
        ("images\\train\\1.jpg", False),
        ("train/1.jpg", False),
        ("1.jpg", False),
        ("1", False),
        ("1.JPG", False),
        ("a/../images/train/1.jpg", False),
        ("data/images/train/1.jpg", True),
        ("/home/me/set/images/train/1.jpg", True),
        ("C:\\Users\\me\\images\\train\\1.jpg", True),
        ("../../images/train/1.jpg", False),
    ],
)
def test_an_image_is_found_by_the_end_of_its_path(written: str, moved: bool) -> None:
    found = items("images/train/1.jpg", "images/train/2.jpg", "images/val/3.jpg").find(written, HERE)
    assert found == Match("images/train/1.jpg", moved)


def test_the_longest_end_that_fits_one_image_decides() -> None:
    there = items("train/1.jpg", "val/1.jpg", "val/a/1.jpg")
    assert there.find("/x/train/1.jpg", HERE).item == "train/1.jpg"
    assert there.find("/x/val/1.jpg", HERE).item == "val/1.jpg"
    assert there.find("/x/val/a/1.jpg", HERE).item == "val/a/1.jpg"
    found = items("train/1.jpg", "val/1.jpg").find("1.jpg", HERE)
    assert found == Match(hint="; 'train/1.jpg' and 'val/1.jpg' match equally well")
    assert not items("1.jpg", "1.png").find("1", HERE).item
    assert items("a/1.png").find("a/1.jpg", HERE) == Match(hint="; found 'a/1.png'")
    assert items("2007_1").find("2007_1.jpg", HERE).item == "2007_1"
    assert items("a.b").find("a.b", HERE).item == items("a.b").find("a.b.xml", HERE).item == "a.b"
    assert items("caf\u00e9/1.jpg", "x/1.jpg").find("cafe\u0301/1.jpg", HERE).item == "caf\u00e9/1.jpg"
    assert items("cafe\u0301.jpg").find("caf\u00e9.jpg", HERE).item == "cafe\u0301.jpg"
    there = Items({"1.jpg": "one"}, lambda written, folder: f"{folder}/{written}" if written == "1.jpg" else "")
    assert there.find("1.jpg", HERE).item == "/data/1.jpg"
    assert there.find("x/1.jpg", HERE).item == "one"
    assert items("images/1.jpg").find("/old/pics/1.jpg", HERE) == Match("images/1.jpg", moved=True)
    assert items("1.jpg").find("/old/pics/1.jpg", HERE) == Match("1.jpg", moved=True)


@pytest.mark.parametrize("written", ["images/train/1.jpg", "b/1.jpg", "/x/train/1.jpg"])
def test_an_image_of_another_folder_is_not_taken(written: str) -> None:
    """The same name in val, or in a folder that the path does not name, is another image."""
    assert items("images/val/1.jpg").find(written, HERE) == Match(hint="; found 'images/val/1.jpg'")


@pytest.mark.parametrize("written", ["", ".", "..", "/", "//", "\0", "x" * 5000, "nothing.jpg"])
def test_what_names_nothing(written: str) -> None:
    assert items("1.jpg").find(written, HERE) == Match()
