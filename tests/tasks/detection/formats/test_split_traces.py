import json
from pathlib import Path

import pytest

from annotated_folders import write_files
from zoo.tasks.detection.formats._files import Findings
from zoo.tasks.detection.formats._path_ends import Items
from zoo.tasks.detection.formats._split_traces import UNREAD_SPLITS, tell_unread_folders, tell_unread_lists

NAMES = ("img/1.jpg", "img/2.jpg", "img/3.jpg", "img/4.jpg")
LISTS = {
    "meta/train.txt": "1.jpg\n2.jpg\n3.jpg\n",
    "dev.txt": "img/4.jpg\n",
    "a/b/holdout.lst": "4\n",
    "train.csv": "image\n1.jpg\n2.jpg\n",
    "objects_test.csv": "filename,width,class,xmin\n3.jpg,64,cat,4\n3.jpg,64,dog,5\n4.jpg,64,dog,5\n",
    "table.csv": "name;split\n1.jpg;train\n2.jpg;train\n3.jpg;val\n4.jpg;val\n",
    "table.tsv": "name\tpart\n1\ttrain\n2\ttrain\n3\ttrain\n4\ttest\n",
    "split.json": json.dumps({"train": ["1.jpg", "2.jpg"], "val": ["3.jpg", "4.jpg"]}),
    "folds.json": json.dumps([{"train": [1, 2, 3], "val": [4]}]),
}


def told(root: Path, files: dict[str, str], splits: dict[str, list[str]]) -> list[tuple[str, str, str]]:
    findings = Findings()
    tell_unread_lists(write_files(root, {**files}), root, Items({name: name for name in NAMES}), splits, findings)
    return [(item.level, item.kind, item.file) for item in findings.found]


@pytest.mark.parametrize("name", LISTS)
def test_a_split_in_another_form_or_place_is_an_error(tmp_path: Path, name: str) -> None:
    files = {name: LISTS[name]}
    assert told(tmp_path, files, {"all": [*NAMES]}) == [("error", UNREAD_SPLITS, name)]
    assert told(tmp_path, files, {"train": [*NAMES[:3]], "val": [NAMES[3]]}) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("all.txt", "1.jpg\n2.jpg\n3.jpg\n4.jpg\n"),
        ("README.txt", "Four images.\nSee 1.jpg\nand 2.jpg\n"),
        ("img/1.txt", "2\n"),  # the labels of an image
        ("objects.csv", "image,class\n1.jpg,cat\n2.jpg,cat\n3.jpg,dog\n4.jpg,dog\n"),
        ("cat.csv", "class\ncat\ndog\n"),
        ("ImageSets/Segmentation/train.txt", "1\n2\n"),
        ("broken.json", '{"train": ["1.jpg"'),
        ("deep.json", "[" * 100_000),
        ("config.json", json.dumps({"train": {"lr": 1, "steps": [10, 20, 30]}})),
    ],
)
def test_what_tells_no_split(tmp_path: Path, name: str, text: str) -> None:
    assert told(tmp_path, {name: text}, {"all": [*NAMES]}) == []


def test_the_lists_that_were_used_tell_no_other_split(tmp_path: Path) -> None:
    files = {"train.txt": "1\n2\n3\n", "copies/train.txt": "1\n2\n3\n"}
    assert told(tmp_path, files, {"train": [*NAMES[:3]]}) == []
    assert told(tmp_path, files | {"eval.txt": "4\n"}, {"train": [*NAMES[:3]]}) == [
        ("error", UNREAD_SPLITS, "eval.txt")
    ]


@pytest.mark.parametrize(
    ("splits", "level", "hint"),
    [
        (["train"], "error", "Rename it to val"),
        (["val"], "error", "Rename it to train"),
        (["train", "val"], "warning", ""),
        (["train", "test"], "error", "Rename it to val"),
    ],
)
def test_folders_whose_names_tell_no_split(tmp_path: Path, splits: list[str], level: str, hint: str) -> None:
    findings = Findings()
    tell_unread_folders([tmp_path / "images" / "Prüfung"], tmp_path, splits, findings)
    (found,) = findings.found
    assert (found.level, found.kind) == (level, UNREAD_SPLITS)
    assert "'images/Prüfung'" in found.text
    assert hint in found.text
