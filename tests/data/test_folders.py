import os
from collections.abc import Callable
from pathlib import Path

import pytest

from zoo.data.folders import scan_folder
from zoo.errors import DataError


def touch(root: Path, *names: str) -> Path:
    root.mkdir(exist_ok=True)
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return root


def test_splits_and_classes(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "train/dog/2.jpg",
        "train/dog/1.jpg",
        "train/cat/x/y/3.jpg",
        "val/cat/4.jpg",
        "test/dog/5.jpg",
        "a.txt",
    )
    assert scan_folder(tmp_path) == {
        "test": {"dog": ["test/dog/5.jpg"]},
        "train": {"cat": ["train/cat/x/y/3.jpg"], "dog": ["train/dog/1.jpg", "train/dog/2.jpg"]},
        "val": {"cat": ["val/cat/4.jpg"]},
    }
    assert list(scan_folder(tmp_path)["train"]) == ["cat", "dog"]


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("val", "val"),
        ("valid", "val"),
        ("Validation", "val"),
        ("testing", "test"),
    ],
)
def test_names_of_splits(tmp_path: Path, folder: str, split: str) -> None:
    assert scan_folder(touch(tmp_path, f"{folder}/a/1.jpg")) == {split: {"a": [f"{folder}/a/1.jpg"]}}


def test_plain_classes(tmp_path: Path) -> None:
    touch(tmp_path, "b/1.jpg", "a b é/2.jpg", "notes.txt")
    assert scan_folder(tmp_path) == {"all": {"a b é": ["a b é/2.jpg"], "b": ["b/1.jpg"]}}


def test_classes_may_be_named_like_a_split(tmp_path: Path) -> None:
    touch(tmp_path, "car/1.jpg", "train/2.jpg", "plane/3.jpg")
    assert list(scan_folder(tmp_path)["all"]) == ["car", "plane", "train"]


def test_what_systems_leave_behind_is_passed_over(tmp_path: Path) -> None:
    hidden = ["a/.x.jpg", "a/Thumbs.db", "a/desktop.ini", ".git/x", "__MACOSX/a/x.jpg", "a/.ipynb_checkpoints/x.jpg"]
    assert scan_folder(touch(tmp_path, "a/1.jpg", "b/1.jpg", *hidden)) == {"all": {"a": ["a/1.jpg"], "b": ["b/1.jpg"]}}


def test_empty_classes_are_listed(tmp_path: Path) -> None:
    assert scan_folder(touch(tmp_path, "a/1.jpg", "b/")) == {"all": {"a": ["a/1.jpg"], "b": []}}


def test_unlabelled_test_images_are_passed_over(tmp_path: Path) -> None:
    assert list(scan_folder(touch(tmp_path, "train/a/1.jpg", "test/1.jpg"))) == ["train"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    touch(tmp_path / "store", "1.jpg", "2.jpg")
    root = touch(tmp_path / "data", "train/a/1.jpg", "train/b/1.jpg")
    (root / "train/a/more").symlink_to(tmp_path / "store")
    (root / "train/a/self").symlink_to(root / "train/a")
    (root / "train/b/up").symlink_to("../..")
    (root / "train/b/circle").symlink_to("circle")
    assert scan_folder(root)["train"] == {
        "a": ["train/a/1.jpg", "train/a/more/1.jpg", "train/a/more/2.jpg"],
        "b": ["train/b/1.jpg", "train/b/circle"],  # reading it will say what is wrong
    }


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], r"is empty\. Expected train/<class>/<images>"),
        ([".hidden/a/1.jpg", "Thumbs.db"], "is empty"),
        (["1.jpg"], r"' contains 1 file but no class folders\. Expected"),
        (["1.jpg", "2.jpg"], "' contains 2 files but no class folders"),
        (["a/"], r"holds the folder 'a' only\. Expected"),
        (["inner/train/a/1.jpg"], r"holds the folder 'inner' only\. Did you mean '.*'"),
        (["inner/a/1.jpg", "inner/b/1.jpg"], r"holds the folder 'inner' only\. Did you mean '.*'"),
        (["train/1.jpg"], "/train' contains 1 file but no class folders"),
        (["train/1.jpg", "val/1.jpg"], "/train' contains 1 file but no class folders"),
        (["train/a/1.jpg", "val/1.jpg", "val/2.jpg"], "/val' contains 2 files but no class folders"),
        (["train/", "val/a/1.jpg"], "/train' is empty"),
        (["train/a/1.jpg", "val/"], "/val' is empty"),
        (["test/1.jpg"], "/test' contains 1 file but no class folders"),
        (["val/a/1.jpg", "valid/a/1.jpg"], r"holds both 'val' and 'valid', and either could be val\. Move one of"),
        (["train_set/a/1.jpg", "test_set/a/1.jpg"], "holds 'test_set' and 'train_set', .* not classes. Rename"),
        (["a/train/1.jpg", "b/train/1.jpg"], "every class holds folders such as 'train': the splits are inside"),
        (["train/a/1.jpg", "cat/1.jpg", "dog/1.jpg"], "'train', which looks like a split, beside 'cat' and 'dog'"),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, names: list[str], text: str) -> None:
    with pytest.raises(DataError, match=text) as caught:
        scan_folder(touch(tmp_path, *names))
    assert str(tmp_path) in str(caught.value)


def test_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"^there is no folder 'cifar10'\. Current folder: .*datasets\.load_dataset"):
        scan_folder(Path("cifar10"))
    (tmp_path / "link").symlink_to("nothing")
    with pytest.raises(DataError, match=r"^there is no folder .* It is a broken symbolic link\."):
        scan_folder(tmp_path / "link")


@pytest.mark.parametrize(("name", "text"), [("a.jpg", r"Expected train/<class>"), ("a.tar.gz", "Extract it and pass")])
def test_a_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(DataError, match=f"is a file, not a folder of images. {text}"):
        scan_folder(tmp_path / name)


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, scandir = touch(tmp_path, "a/1.jpg", "b/1.jpg"), os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(DataError, match=r"/b' cannot be listed \(Permission denied\)\. Grant"):
        scan_folder(root)


def test_class_names_must_be_text(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg")
    try:
        os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(DataError, match="not valid UTF-8"):
        scan_folder(tmp_path)


def test_the_order_does_not_depend_on_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = touch(tmp_path, "b/2.jpg", "b/1.jpg", "a/3.jpg")
    expected = scan_folder(root)
    listing: Callable[[Path], list[os.DirEntry[str]]] = __import__("zoo.data.folders", fromlist=["_list"])._list
    monkeypatch.setattr("zoo.data.folders._list", lambda folder: listing(folder)[::-1])
    reverse = scan_folder(root)
    assert reverse == expected
    assert list(reverse["all"]) == list(expected["all"])
