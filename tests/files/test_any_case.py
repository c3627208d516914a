from pathlib import Path

from annotated_folders import touch
from zoo.files.any_case import AnyCase


def test_names_are_found_whatever_their_case_but_as_written_first(tmp_path: Path) -> None:
    touch(tmp_path, "Images/Train/A.JPG", "labels/a.TXT")
    found = AnyCase()
    assert found.find_file(tmp_path / "images/TRAIN/a.jpg") == tmp_path / "Images/Train/A.JPG"
    assert found.find_file(tmp_path / "Labels/a.txt") == tmp_path / "labels/a.TXT"
    assert found.find_folder(tmp_path / "images/train") == tmp_path / "Images/Train"
    assert found.list_names(tmp_path / "labels") == ["a.TXT"]
    touch(tmp_path, "A/1.txt", "a/1.txt", "a/1.TXT")
    found = AnyCase()
    assert found.find_file(tmp_path / "a/1.txt") == tmp_path / "a/1.txt"
    assert found.find_folder(tmp_path / "a") == tmp_path / "a"
    assert found.find_file(tmp_path / "a/1.tXt") == tmp_path / "a/1.TXT"


def test_what_is_not_there(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.txt")
    found = AnyCase()
    for path in (tmp_path / "b/1.txt", tmp_path / "a/2.txt", tmp_path / "A", tmp_path / "a/1.txt/x", Path("/no\0/x")):
        assert found.find_file(path) is None
    assert found.find_folder(tmp_path / "A/1.txt") is None
    assert found.list_names(tmp_path / "none") == []
