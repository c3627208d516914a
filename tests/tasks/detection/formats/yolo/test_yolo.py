from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from annotated_folders import Content, contents, names, told, touch, write_files
from tasks.detection.formats.contract import FormatContract
from zoo.errors import DataError
from zoo.tasks.detection.annotations import BoxSource
from zoo.tasks.detection.formats.yolo import read_yolo

LABEL = "0 0.5 0.5 0.2 0.4\n"
YAML = "train: images/train\nval: images/val\nnames: [cat, dog]\n"


def read(root: Path) -> BoxSource:
    source = read_yolo(root)
    assert source is not None
    return source


def pair(
    root: Path, *images: str, labels: Callable[[str], str] = lambda name: name.replace("images", "labels")
) -> Path:
    """Write images and a label file for each."""
    for name in images:
        write_files(root, {name: "", str(Path(labels(name)).with_suffix(".txt")): LABEL})
    return root


def beside(name: str) -> str:
    return name


class TestYolo(FormatContract):
    name = "YOLO"
    image = "images/a.jpg"
    annotation = "labels/a.txt"

    def files(self, image: str, side: object = 0.1) -> dict[str, Content]:
        labels = f"0 0.5 0.5 0.1 0.1\n0 0.5 0.5 {side} 0.1\n"
        yaml = "names: [cat]\ntrain: train.txt\n"
        return {self.annotation: labels, "data.yaml": yaml, "train.txt": f"{image}\n"}

    def save_by_supervision(self, dataset: Any, root: Path) -> None:
        dataset.as_yolo(str(root / "images"), str(root / "labels"), str(root / "data.yaml"))


def test_what_is_read(tmp_path: Path) -> None:
    pair(tmp_path, "images/train/img10.jpg", "images/train/img9.png", "images/train/sub/1.jpg", "images/val/1.jpg")
    write_files(tmp_path, {"data.yaml": YAML, "labels/train/img10.txt": "1 .5 .5 1 1\n\n0 .25 .5 .5 .5"})
    source = read(tmp_path)
    box = [0.4, 0.3, 0.6, 0.7]
    assert contents(source) == {
        "train": {
            "images/train/img9.png": [(0, box)],
            "images/train/img10.jpg": [(1, [0, 0, 1, 1]), (0, [0, 0.25, 0.5, 0.75])],
            "images/train/sub/1.jpg": [(0, box)],
        },
        "val": {"images/val/1.jpg": [(0, box)]},
    }
    image = source.splits["train"].images[1]
    assert (image.file, image.lines, image.size, image.is_relative) == ("labels/train/img10.txt", (1, 3), None, True)
    assert image.crowd.tolist() == [False, False]
    assert source.splits["train"].reader(2) == str(tmp_path / "images/train/sub/1.jpg")
    assert (source.form, source.where, source.names) == ("YOLO", str(tmp_path), {0: "cat", 1: "dog"})
    assert source.splits["train"].in_threads
    assert not source.findings
    assert read(tmp_path / "data.yaml").where == str(tmp_path)


@pytest.mark.parametrize(
    ("pictures", "labels", "expected"),
    [
        (
            ["images/train/1.jpg", "images/val/2.jpg"],
            None,
            {"train": ["images/train/1.jpg"], "val": ["images/val/2.jpg"]},
        ),
        (
            ["train/images/1.jpg", "valid/images/2.jpg"],
            None,
            {"train": ["train/images/1.jpg"], "val": ["valid/images/2.jpg"]},
        ),
        (["train/1.jpg", "test/2.jpg"], beside, {"train": ["train/1.jpg"], "test": ["test/2.jpg"]}),
        (["images/1.jpg", "images/a/2.jpg"], None, {"all": ["images/1.jpg", "images/a/2.jpg"]}),
        (["1.jpg", "2.jpg"], beside, {"all": ["1.jpg", "2.jpg"]}),
        (["obj_train_data/1.jpg"], beside, {"all": ["obj_train_data/1.jpg"]}),
        (["Images/train2017/1.jpg"], lambda n: n.replace("Images", "Labels"), {"train": ["Images/train2017/1.jpg"]}),
        (
            ["Images/Train/1.JPG"],
            lambda n: n.replace("Images/Train", "labels/train"),
            {"train": ["Images/Train/1.JPG"]},
        ),
        (["IMAGES/val/1.jpg"], lambda n: n.replace("IMAGES", "LABELS"), {"val": ["IMAGES/val/1.jpg"]}),
        (["JPEGImages/1.jpg"], lambda n: n.replace("JPEGImages", "labels"), {"all": ["JPEGImages/1.jpg"]}),
    ],
)
def test_layouts_without_a_yaml(
    tmp_path: Path, pictures: list[str], labels: Callable[[str], str] | None, expected: dict[str, list[str]]
) -> None:
    pair(tmp_path, *pictures, **({"labels": labels} if labels else {}))
    source = read(write_files(tmp_path, {"classes.txt": "cat\ndog\n\n", "README.txt": "Images of 2 cats."}))
    assert names(source) == expected
    assert {tuple(image.boxes.round(9).ravel()) for part in source.splits.values() for image in part.images} == {
        (0.4, 0.3, 0.6, 0.7)
    }
    assert source.names == {0: "cat", 1: "dog"}
    assert told(source) == [("note", "class map", "", "classes.txt")]


@pytest.mark.parametrize("place", ["labels/classes.txt", "data/obj.names", "labels/train/classes.txt"])
def test_where_names_may_be(tmp_path: Path, place: str) -> None:
    source = read(write_files(pair(tmp_path, "images/train/1.jpg"), {place: "cat\n\ndog\n"}))
    assert source.names == {0: "cat", 1: "1", 2: "dog"}


def test_names_beside_the_images(tmp_path: Path) -> None:
    source = read(write_files(pair(tmp_path, "train/1.jpg", labels=beside), {"train/_darknet.labels": "cat"}))
    assert source.names == {0: "cat"}


def test_classes_without_names_are_called_by_their_numbers(tmp_path: Path) -> None:
    source = read(write_files(pair(tmp_path, "images/1.jpg"), {"labels/1.txt": "10 .5 .5 1 1\n9 .5 .5 1 1"}))
    assert list(source.names.items()) == [(9, "9"), (10, "10")]
    assert told(source) == [("note", "class map", "", "")]


def test_a_yaml_with_names_alone(tmp_path: Path) -> None:
    source = read(write_files(pair(tmp_path, "images/val/1.jpg"), {"data.yaml": "nc: 1\nnames: [cat]"}))
    assert (names(source), source.names) == ({"val": ["images/val/1.jpg"]}, {0: "cat"})


@pytest.mark.parametrize(
    "files",
    [
        [],
        ["a.jpg", "a.txt"],
        ["images/a.jpg", "labels/a.txt"],
        ["train/cat/1.jpg", "val/cat/1.jpg"],
        ["JPEGImages/1.jpg", "Annotations/1.xml", "ImageSets/Main/train.txt"],
        ["images/1.jpg", "labels/1.xml"],
    ],
)
def test_what_is_no_yolo(tmp_path: Path, files: list[str]) -> None:
    """Empty texts say nothing of labels, unless a yaml does."""
    assert read_yolo(touch(tmp_path, *files)) is None
    assert read_yolo(tmp_path / "none") is None
    assert all(read_yolo(tmp_path / name) is None for name in files)


def test_texts_that_are_no_labels(tmp_path: Path) -> None:
    write_files(tmp_path, {"1.jpg": "", "1.txt": "A cat sits here.", "list.txt": "1.jpg", "2.txt": LABEL})
    assert read_yolo(tmp_path) is None


def test_lists_of_images(tmp_path: Path) -> None:
    pair(tmp_path, *(f"images/{number}.jpg" for number in range(1, 7)), "data/images/7.jpg")
    write_files(
        tmp_path,
        {
            "data.yaml": "train: lists/train.txt\nval: [val.txt]\ntest: data/test.txt\nnames: [cat]",
            "lists/train.txt": f"../images/2.jpg\n\nimages/1.jpg\nimages/2.jpg\n{tmp_path}/images/3.jpg\nx.jpg\n",
            "val.txt": "./images/4.jpg\r\nimages\\5.jpg\nimages/1.jpg\n" + "x" * 300 + ".jpg\n",
            "data/test.txt": "images/7.jpg\nimages/6.jpg\na\x00.jpg\n",
        },
    )
    source = read(tmp_path)
    assert names(source) == {
        "train": ["images/2.jpg", "images/3.jpg"],
        "val": ["images/1.jpg", "images/4.jpg", "images/5.jpg"],
        "test": ["data/images/7.jpg", "images/6.jpg"],
    }
    assert told(source) == [
        ("warning", "images listed twice", "train", "lists/train.txt:4"),
        ("error", "missing listed images", "train", "lists/train.txt:6"),
        ("error", "missing listed images", "val", "val.txt:4"),
        ("error", "missing listed images", "test", "data/test.txt:3"),
        ("error", "images in two splits", "val", "val.txt"),
    ]


def test_lists_that_cannot_be_used(tmp_path: Path) -> None:
    pair(tmp_path, "images/val/1.jpg")
    write_files(tmp_path, {"data.yaml": "train: [a.txt, a.zip]\nval: images/val\nnames: [cat]"})
    source = read(write_files(tmp_path, {"a.txt": b"\xff", "a.zip": b"PK"}))
    assert names(source) == {"train": [], "val": ["images/val/1.jpg"]}
    assert told(source) == [
        ("error", "unusable lists", "train", "a.txt"),
        ("error", "missing splits", "train", "a.zip"),
    ]


def test_no_text_of_a_label_file_outside_is_quoted(tmp_path: Path) -> None:
    pair(tmp_path / "data", "images/1.jpg")
    write_files(tmp_path, {"secret.txt": "password-1\n0 .5 .5 password-2 .5\n"})
    touch(tmp_path / "data", "images/2.jpg")
    (tmp_path / "data/labels/2.txt").symlink_to(tmp_path / "secret.txt")
    source = read(tmp_path / "data")
    assert source.splits["all"].images[1].lost == 2
    texts = [finding.text for finding in source.findings if finding.level == "error"]
    assert texts == ["its text is not shown because the file is outside the data folder"] * 2


def test_a_image_without_labels_has_nothing_in_it(tmp_path: Path) -> None:
    pair(tmp_path, "images/train/1.jpg", "images/val/1.jpg")
    write_files(
        tmp_path, {"data.yaml": YAML, "images/train/2.jpg": "", "images/train/3.jpg": "", "labels/train/3.txt": ""}
    )
    source = read(tmp_path)
    assert [(image.name, image.file, len(image.boxes)) for image in source.splits["train"].images] == [
        ("images/train/1.jpg", "labels/train/1.txt", 1),
        ("images/train/2.jpg", "", 0),
        ("images/train/3.jpg", "labels/train/3.txt", 0),
    ]
    assert all(image.is_relative for image in source.splits["train"].images)
    assert told(source) == [("warning", "images without a label file", "train", "images/train/2.jpg")]


def test_a_split_without_any_labels(tmp_path: Path) -> None:
    pair(tmp_path, "images/train/1.jpg")
    write_files(tmp_path, {"data.yaml": YAML + "test: images/test\n"})
    source = read(touch(tmp_path, "images/val/1.jpg", "images/val/2.jpg", "images/test/1.jpg"))
    assert names(source) == {"train": ["images/train/1.jpg"], "val": []}
    assert told(source) == [
        ("error", "splits without labels", "val", "images/val"),
        ("warning", "splits without labels", "test", "images/test"),
    ]
    assert source.findings[0].text == (
        "none of 2 images has a label file; expected 1.txt in 'labels/val' or 'images/val'. The split val is skipped"
    )


def test_labels_without_a_image(tmp_path: Path) -> None:
    pair(tmp_path, "images/train/1.jpg", "images/train/a/2.jpg", "images/val/1.jpg")
    files = ["labels/train/9.txt", "labels/train/a/8.txt", "labels/train/b/7.txt"]
    write_files(
        tmp_path,
        {"data.yaml": YAML, **dict.fromkeys(files, LABEL), "labels/train/notes.txt": "cats", "labels/train/3.txt": ""},
    )
    source = read(tmp_path)
    assert told(source) == [("error", "label files without an image", "train", file) for file in files]
    assert source.findings[1].text == "there is no image '8' for it; its boxes are skipped"


def test_images_that_share_a_label_file(tmp_path: Path) -> None:
    source = read(touch(pair(tmp_path, "images/1.jpg"), "images/1.png"))
    assert names(source) == {"all": ["images/1.jpg", "images/1.png"]}
    assert told(source)[0] == ("warning", "images that share a label file", "all", "images/1.png")


def test_images_in_no_split(tmp_path: Path) -> None:
    source = read(pair(tmp_path, "images/train/1.jpg", "images/2.jpg", "images/more/3.jpg"))
    assert names(source) == {"train": ["images/train/1.jpg"]}
    assert told(source)[0] == ("warning", "images in no split", "", "images")
    assert source.findings[0].text == "2 images are not in a split folder, and not used"


@pytest.mark.parametrize("val", ["images/validierung", "images/val_1"])
def test_a_folder_that_may_be_val_is_an_error(tmp_path: Path, val: str) -> None:
    source = read(pair(tmp_path, "images/train/1.jpg", f"{val}/2.jpg"))
    assert ("error", "splits that are not read", "", "") in told(source)


def test_a_folder_beside_those_of_splits(tmp_path: Path) -> None:
    source = read(pair(tmp_path, "train/images/1.jpg", "pruebas/images/2.jpg"))
    assert ("error", "splits that are not read", "", "") in told(source)
    source = read(pair(tmp_path, "val/images/3.jpg"))
    assert ("warning", "splits that are not read", "", "") in told(source)


def test_two_folders_that_number_their_classes_differently_are_refused(tmp_path: Path) -> None:
    pair(tmp_path, "a/images/1.jpg", "b/images/2.jpg")
    write_files(tmp_path, {"a/classes.txt": "cat\ndog\n", "b/labels/classes.txt": "dog\ncat\n"})
    with pytest.raises(DataError, match=r"b/labels/classes.txt names class 0 'dog', but a/classes.txt names it 'cat'"):
        read_yolo(tmp_path)
    assert read(tmp_path / "a").names == {0: "cat", 1: "dog"}


def test_names_that_go_on_from_others(tmp_path: Path) -> None:
    pair(tmp_path, "a/images/1.jpg", "b/images/2.jpg")
    source = read(write_files(tmp_path, {"a/classes.txt": "cat\n", "b/classes.txt": "cat\ndog\n"}))
    assert source.names == {0: "cat", 1: "dog"}
    assert told(source) == [("note", "class map", "", "b/classes.txt")]


def test_names_that_contradict_the_yaml_are_told(tmp_path: Path) -> None:
    pair(tmp_path, "images/train/1.jpg", "images/val/2.jpg")
    source = read(write_files(tmp_path, {"data.yaml": YAML, "labels/classes.txt": "dog\ncat\n"}))
    assert source.names == {0: "cat", 1: "dog"}
    assert ("warning", "contradictory class names", "", "labels/classes.txt") in told(source)
