from pathlib import Path

import pytest

from annotated_folders import touch, write_files
from zoo.tasks.detection.formats._files import Findings
from zoo.tasks.detection.formats.yolo.data_yaml import find_yaml
from zoo.tasks.detection.formats.yolo.pairs import Pairs
from zoo.tasks.detection.formats.yolo.parts import Parts, find_parts

LABEL = "0 0.5 0.5 0.2 0.4\n"
TRAIN, VAL = ("obj_train_data/1.jpg", "obj_train_data/2.jpg"), ("obj_valid_data/3.jpg",)
CVAT = "classes = 1\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\nbackup = backup/\n"


def labelled(root: Path, *images: str) -> Path:
    for name in images:
        write_files(root, {name: "", str(Path(name.replace("images", "labels")).with_suffix(".txt")): LABEL})
    return root


def find(root: Path) -> tuple[Parts, Findings]:
    findings = Findings()
    return find_parts(root, find_yaml(root, findings), Pairs(), findings), findings


def names(parts: Parts, root: Path) -> dict[str, list[str]]:
    return {split: [str(image.relative_to(root)) for image in part.images] for split, part in parts.splits.items()}


def told(findings: Findings) -> list[tuple[str, str, str, str]]:
    return [(item.level, item.kind, item.split, item.place) for item in findings.found]


@pytest.mark.parametrize("before", ["data/", "", "./", "/home/me/darknet/data/", "C:\\Users\\me\\data\\", "../../x/"])
@pytest.mark.parametrize("data", ["obj.data", "data/obj.data", None])
def test_the_lists_of_darknet_and_cvat(tmp_path: Path, before: str, data: str | None) -> None:
    labelled(tmp_path, *TRAIN, *VAL)
    lists = {
        "train.txt": "".join(f"{before}{name}\r\n" for name in TRAIN),
        "valid.txt": "\n".join(before + n for n in VAL),
    }
    write_files(tmp_path, lists | {"obj.names": "cat"} | ({data: CVAT} if data else {}))
    parts, findings = find(tmp_path)
    assert names(parts, tmp_path) == {"train": list(TRAIN), "val": list(VAL)}
    assert parts.names == (tmp_path / "obj.names" if data else None)
    assert not [item for item in findings.found if item.level == "error"]


def test_a_list_that_the_data_file_lacks_is_found(tmp_path: Path) -> None:
    labelled(tmp_path, *TRAIN, *VAL)
    write_files(tmp_path, {"obj.data": "train = data/train.txt", "train.txt": "1.jpg\n2.jpg", "Valid.txt": "3.jpg"})
    parts, findings = find(tmp_path)
    assert names(parts, tmp_path) == {"train": list(TRAIN), "val": list(VAL)}
    assert not findings.found


@pytest.mark.parametrize("val", [None, "", "x.jpg\ny.jpg"])
def test_a_list_that_cannot_be_used_is_not_replaced(tmp_path: Path, val: str | None) -> None:
    """Neither by images of train, nor by another list."""
    labelled(tmp_path, *TRAIN, *VAL)
    write_files(tmp_path, {"obj.data": CVAT, "train.txt": "1.jpg\n2.jpg", "obj.names": ""})
    write_files(tmp_path, {} if val is None else {"valid.txt": val})
    parts, findings = find(tmp_path)
    assert names(parts, tmp_path) == {"train": list(TRAIN), "val": []}
    assert told(findings) == [
        ("error", "unusable lists", "val", "data/valid.txt" if val is None else "valid.txt"),
        ("warning", "images in no list", "", "obj_valid_data/3.jpg"),
    ]


@pytest.mark.parametrize("place", ["split/", "splits/", "ImageSets/Main/", ""])
def test_lists_win_over_folders(tmp_path: Path, place: str) -> None:
    labelled(tmp_path, "images/train/1.jpg", "images/train/2.jpg", "images/val/3.jpg", "images/4.jpg")
    write_files(tmp_path, {f"{place}Train.txt": "images/train/1.jpg\nimages/val/3.jpg", f"{place}val.txt": "2"})
    parts, findings = find(tmp_path)
    assert names(parts, tmp_path) == {
        "train": ["images/train/1.jpg", "images/val/3.jpg"],
        "val": ["images/train/2.jpg"],
    }
    assert [item for item in told(findings) if item[1] != "images in no split"] == [
        ("warning", "images in no list", "", "images/4.jpg")
    ]


def test_a_label_file_is_no_list(tmp_path: Path) -> None:
    labelled(tmp_path, "train.jpg", "val.jpg", "b.jpg")
    parts, findings = find(tmp_path)
    assert names(parts, tmp_path) == {"all": ["b.jpg", "train.jpg", "val.jpg"]}
    assert not findings.found


def test_the_lists_of_a_yaml(tmp_path: Path) -> None:
    labelled(tmp_path, "images/train/1.jpg", "images/train/2.jpg", "images/val/1.jpg", "images/val/9.jpg")
    lists = {"train.txt": "data/images/train/1.jpg\ndata/images/train/2.jpg\n", "val.txt": "data/images/val/1.jpg\n"}
    write_files(tmp_path, lists | {"data.yaml": "path: .\ntrain: train.txt\nval: val.txt\nnames: {0: cat}"})
    parts, findings = find(tmp_path)
    assert names(parts, tmp_path) == {
        "train": ["images/train/1.jpg", "images/train/2.jpg"],
        "val": ["images/val/1.jpg"],
    }
    assert told(findings) == [
        ("note", "paths that do not exist", "train", "train.txt:1"),
        ("note", "paths that do not exist", "val", "val.txt:1"),
        ("warning", "images in no list", "", "images/val/9.jpg"),
    ]


@pytest.mark.parametrize("val", [("val.txt", "images/2.jpg"), ("images/val/9.jpg", "")])
def test_a_val_that_the_yaml_does_not_name_is_told(tmp_path: Path, val: tuple[str, str]) -> None:
    labelled(
        tmp_path, "images/train/1.jpg", "images/2.jpg", "images/val/9.jpg" if "images" in val[0] else "images/3.jpg"
    )
    write_files(tmp_path, {val[0]: val[1], "data.yaml": "train: images/train\nnames: [cat]"})
    parts, findings = find(tmp_path)
    assert names(parts, tmp_path) == {"train": ["images/train/1.jpg"]}
    assert told(findings) == [("warning", "splits not defined in the yaml", "val", "data.yaml")]
    assert findings.found[0].text == "it defines no val; 1 image is available for val but not used"


def test_one_list_for_train_and_val_is_meant(tmp_path: Path) -> None:
    labelled(tmp_path, "images/1.jpg")
    write_files(tmp_path, {"data.yaml": "train: all.txt\nval: all.txt\nnames: [cat]", "all.txt": "images/1.jpg"})
    parts, findings = find(tmp_path)
    assert names(parts, tmp_path) == {"train": ["images/1.jpg"], "val": ["images/1.jpg"]}
    assert not findings.found


def test_images_outside_are_used_and_told(tmp_path: Path) -> None:
    labelled(tmp_path / "store", "images/1.jpg", "images/2.jpg")
    labelled(tmp_path / "set", "images/3.jpg")
    write_files(
        tmp_path / "set", {"train.txt": "../store/images/1.jpg\n", "val.txt": f"{tmp_path}/store/images/2.jpg\n3"}
    )
    parts, findings = find(tmp_path / "set")
    assert names(parts, tmp_path) == {
        "train": ["store/images/1.jpg"],
        "val": ["set/images/3.jpg", "store/images/2.jpg"],
    }
    assert told(findings) == [
        ("warning", "images outside the data folder", "train", ""),
        ("warning", "images outside the data folder", "val", ""),
    ]
    write_files(tmp_path / "set", {"data.yaml": "path: ../store\ntrain: images\nnames: [cat]"})
    assert told(find(tmp_path / "set")[1])[0] == ("note", "images outside the data folder", "train", "")


def test_a_test_alone(tmp_path: Path) -> None:
    parts, _ = find(labelled(tmp_path / "a", "images/test/1.jpg"))
    assert names(parts, tmp_path / "a") == {"test": ["images/test/1.jpg"]}
    write_files(labelled(tmp_path / "b", "images/1.jpg", "images/2.jpg"), {"test.txt": "images/1.jpg"})
    parts, findings = find(tmp_path / "b")
    assert names(parts, tmp_path / "b") == {"test": ["images/1.jpg"]}
    assert told(findings) == [("warning", "images in no list", "", "images/2.jpg")]


def test_nothing_that_is_labelled(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.jpg", "Annotations/1.xml")
    assert find(write_files(tmp_path, {"ImageSets/Main/train.txt": "1"}))[0].splits == {}
