from pathlib import Path

import pytest

from annotated_folders import write_files
from zoo.errors import DataError
from zoo.tasks.detection.formats._files import Findings
from zoo.tasks.detection.formats._path_ends import Items
from zoo.tasks.detection.formats._split_lists import read_split_lists

NAMES = tuple("abcdef")


def read(root: Path, files: dict[str, str | bytes], names: tuple[str, ...] = NAMES) -> tuple[dict[str, str], Findings]:
    """Return by split the names of its images, joined, and what was found."""
    write_files(root, dict(files))
    findings = Findings()
    found = read_split_lists(root, root, Items({name: name for name in names}), findings)
    return {split: " ".join(same) for split, same in found.items()}, findings


def told(findings: Findings) -> list[tuple[str, str, str, str]]:
    return [(item.level, item.kind, item.split, item.place) for item in findings.found]


@pytest.mark.parametrize(
    "place", ["ImageSets/Main", "imagesets/main", "ImageSets", "ImageSets/Layout", "split", "Splits", "lists", "."]
)
@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Train", "Validation", "Test"),
        ("TRAIN", "valid", "testing"),
        ("train2017", "val2017", "test2017"),
        ("train_list", "list-val", "my_test"),
    ],
)
def test_where_lists_are_and_how_they_are_called(tmp_path: Path, place: str, train: str, val: str, test: str) -> None:
    found, findings = read(
        tmp_path,
        {
            f"{place}/{train}.txt": "a\nb\nc",
            f"{place}/{val}.txt": "d\ne",
            f"{place}/{test}.txt": "f",
            "readme.txt": "Hi",
        },
    )
    assert found == {"train": "a b c", "val": "d e", "test": "f"}
    assert not findings.found


@pytest.mark.parametrize(
    "text",
    [
        "c\nb\na\n",
        "c\r\nb\r\na",
        "c\rb\ra",
        "\ufeffa\nb\nc",
        "\ufeffa\nb\nc".encode("utf-16-le"),
        "# mine\n\n  a.jpg\t\n\n./b.png\nJPEGImages\\c.jpg\n#\n",
        '"a"\n"b.jpg"\nc\n',
        "images/a.jpg annotations/a.xml\nimages/b.jpg annotations/b.xml\nimages/c.jpg annotations/c.xml",
    ],
)
def test_how_lists_are_written(tmp_path: Path, text: str | bytes) -> None:
    found, findings = read(tmp_path, {"train.txt": text, "val.txt": "d"})
    assert found == {"train": "a b c", "val": "d"}
    assert all(item.level == "note" for item in findings.found)


def test_paths_of_another_machine_are_told(tmp_path: Path) -> None:
    found, findings = read(tmp_path, {"train.txt": "/home/me/a.jpg\n/home/me/b.jpg", "val.txt": "data/c.jpg"})
    assert found == {"train": "a b", "val": "c"}
    assert told(findings) == [
        ("warning", "paths that do not exist", "train", "train.txt:1"),
        ("note", "paths that do not exist", "val", "val.txt:1"),
    ]
    assert findings.found[0].text == "2 paths are not valid as written and matched by file name: '/home/me/a.jpg'"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it is empty. Correct the list, or move it elsewhere"),
        ("\n# none\n", "it is empty. Correct the list, or move it elsewhere"),
        ("x\ny", "it lists 2 images, and none was found. The first is 'x'. Correct the list, or move it elsewhere"),
        (
            b"\xffa\n",
            "it is neither UTF-8 nor UTF-16 text. Save it as UTF-8. The split train is skipped",
        ),
        (
            "a 1\nb  -1\nc  0",
            "its second column marks the images of one class, so it is not a split list. Correct the list, or "
            "move it elsewhere",
        ),
    ],
)
def test_a_list_that_cannot_be_used_is_an_error_and_its_split_stays_empty(
    tmp_path: Path, text: str | bytes, problem: str
) -> None:
    found, findings = read(tmp_path, {"train.txt": text, "val.txt": "d"})
    assert found == {"train": "", "val": "d"}
    assert told(findings) == [("error", "unusable lists", "train", "train.txt")]
    assert findings.found[0].text == problem


def test_a_test_that_is_not_there_is_no_test(tmp_path: Path) -> None:
    found, findings = read(tmp_path, {"train.txt": "a", "val.txt": "b", "test.txt": "x\ny"})
    assert found == {"train": "a", "val": "b"}
    assert told(findings) == [("warning", "unusable lists", "test", "test.txt")]


def test_missing_and_repeated_lines(tmp_path: Path) -> None:
    found, findings = read(tmp_path, {"train.txt": "a\nx\na.jpg\n/p/b.jpg\n/q/b.jpg\n"}, ("a", "b"))
    assert found == {"train": "a b"}
    assert told(findings) == [
        ("error", "missing listed images", "train", "train.txt:2"),
        ("warning", "images listed twice", "train", "train.txt:3"),
        ("error", "lines for the same image", "train", "train.txt:5"),
        ("warning", "paths that do not exist", "train", "train.txt:4"),
    ]
    assert findings.found[0].text == "'x' does not exist; skipped"
    assert findings.found[1].text == "'a.jpg' is already on line 1"


def test_columns_that_do_not_belong_together(tmp_path: Path) -> None:
    found, findings = read(tmp_path, {"train.txt": "a.jpg b.xml\nc.jpg c.xml"})
    assert found == {"train": "c"}
    assert findings.found[0].text == "'a.jpg b.xml' does not exist; it has extra columns; skipped"


def test_an_image_of_two_splits_is_an_error_and_not_learnt(tmp_path: Path) -> None:
    found, findings = read(tmp_path, {"train.txt": "a\nb\nc\nd", "val.txt": "c\ne", "test.txt": "d\ne"})
    assert found == {"train": "a b", "val": "c e", "test": "d e"}
    assert told(findings) == [
        ("error", "images in two splits", "val", "val.txt"),
        ("error", "images in two splits", "test", "test.txt"),
        ("warning", "images in two splits", "test", "test.txt"),
    ]
    assert findings.found[0].text == (
        "1 image is in train.txt and in val.txt, such as 'c'; they are removed from train"
    )


@pytest.mark.parametrize(
    ("files", "expected", "notes"),
    [
        ({"trainval": "a\nb"}, {"train": "a b"}, 0),
        ({"trainval": "a\nb", "test": "c"}, {"train": "a b", "test": "c"}, 0),
        ({"trainval": "a\nb\nc", "train": "a\nb"}, {"train": "a b", "val": "c"}, 1),
        ({"TrainVal": "a\nb\nc", "val": "a"}, {"train": "b c", "val": "a"}, 1),
        ({"trainval": "a\nb", "train": "a\nb"}, {"train": "a b"}, 0),
        ({"trainval": "a\nb\nc", "train": "a", "val": "b"}, {"train": "a", "val": "b"}, 0),
    ],
)
def test_trainval(tmp_path: Path, files: dict[str, str], expected: dict[str, str], notes: int) -> None:
    found, findings = read(tmp_path, {f"ImageSets/Main/{name}.txt": text for name, text in files.items()})
    assert found == expected
    assert [(item.level, item.kind) for item in findings.found] == [("note", "splits")] * notes


def test_lists_of_classes_are_no_splits(tmp_path: Path) -> None:
    lists = {"train": "a\nb", "val": "c", "cat_train": "a  1\nb -1", "cat_val": "c  0", "cat_trainval": "a 1\nb 0\nc 1"}
    found, findings = read(tmp_path, {f"ImageSets/Main/{name}.txt": text for name, text in lists.items()})
    assert found == {"train": "a b", "val": "c"}
    assert not findings.found


def test_lists_of_classes_tell_the_splits_where_no_others_do(tmp_path: Path) -> None:
    lists = {"cat_train": "a  1\nb -1", "dog_train": "a -1\nb  1", "cat_val": "c  0\nd  1", "dog_val": "c  1\nd -1"}
    found, findings = read(tmp_path, {f"ImageSets/Main/{name}.txt": text for name, text in lists.items()})
    assert found == {"train": "a b", "val": "c d"}
    assert not [item for item in findings.found if item.level != "warning"]


def test_two_lists_of_one_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"holds 'val\.txt' and 'valid\.txt', and either could be the list of val\. Move"
    ):
        read(tmp_path, {"val.txt": "a", "valid.txt": "a"})


def test_lists_of_two_places(tmp_path: Path) -> None:
    """The same again does not matter, what the first place lacks is taken, and a contradiction is an error."""
    files: dict[str, str | bytes] = {
        "ImageSets/Main/train.txt": "a\nb",
        "train.txt": "JPEGImages/b.jpg\na",
        "val.txt": "c",
    }
    found, findings = read(tmp_path / "same", files)
    assert (found, told(findings)) == ({"train": "a b", "val": "c"}, [])
    found, findings = read(tmp_path / "other", files | {"train.txt": "a\nd"})
    assert found == {"train": "a b", "val": "c"}
    assert told(findings) == [("error", "contradictory lists", "train", "train.txt")]
    assert findings.found[0].text == (
        "it lists 2 images, and ImageSets/Main/train.txt, also a list of train, 2: 2 differ. Move one of them elsewhere"
    )


def test_lists_whose_names_tell_no_split(tmp_path: Path) -> None:
    found, findings = read(
        tmp_path / "a", {"ImageSets/Main/Team1.txt": "a\nb", "ImageSets/Main/default.txt": "a\nb\nc"}
    )
    assert found == {}
    assert told(findings) == [("error", "lists not named after a split", "", "ImageSets/Main/Team1.txt")]
    found, findings = read(tmp_path / "b", {"splits/train.txt": "a", "splits/more.txt": "b", "notes.txt": "a"})
    assert found == {"train": "a"}
    assert told(findings) == [("warning", "lists not named after a split", "", "splits/more.txt")]


def test_no_text_of_a_file_outside_is_quoted(tmp_path: Path) -> None:
    write_files(tmp_path, {"outside/secret.txt": "password-1\npassword-2\n"})
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.txt").symlink_to(tmp_path / "outside/secret.txt")
    _, findings = read(tmp_path / "data", {"val.txt": "a"})
    assert told(findings) == [("error", "unusable lists", "train", "train.txt")]
    assert "password" not in findings.found[0].text


def test_lists_of_other_tasks_are_not_read(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"ImageSets/Main/train.txt": "a\nb", "ImageSets/Segmentation/train.txt": "c"}
    found, findings = read(tmp_path, files | {"ImageSets/Layout/val.txt": "d"})
    assert (found, findings.found) == ({"train": "a b"}, [])


@pytest.mark.parametrize("suffix", ["txt", "TXT", "lst", "list"])
def test_suffixes_of_lists(tmp_path: Path, suffix: str) -> None:
    assert read(tmp_path, {f"train.{suffix}": "a", f"val.{suffix}": "b"})[0] == {"train": "a", "val": "b"}


def test_no_lists(tmp_path: Path) -> None:
    assert read(tmp_path, {"readme.txt": "a", "ImageSets/Main/default.txt": "a"})[0] == {}


def test_folds_that_contradict_each_other_are_an_error(tmp_path: Path) -> None:
    folds = {"1": ("a b c", "d e"), "2": ("c d e", "a b")}
    files = {f"ImageSets/fold{fold}/train.txt": train.replace(" ", "\n") for fold, (train, _) in folds.items()}
    files |= {f"ImageSets/fold{fold}/val.txt": val.replace(" ", "\n") for fold, (_, val) in folds.items()}
    found, findings = read(tmp_path, {**files})
    assert found == {"train": "a b c", "val": "d e"}
    assert [(level, kind) for level, kind, _, _ in told(findings)] == [("error", "contradictory lists")] * 2
