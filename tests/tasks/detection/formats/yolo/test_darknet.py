from pathlib import Path

import pytest

from annotated_folders import touch, write_files
from zoo.errors import DataError
from zoo.files.any_case import AnyCase
from zoo.tasks.detection.formats._files import Findings
from zoo.tasks.detection.formats._path_ends import Items
from zoo.tasks.detection.formats._split_lists import read_named_lists
from zoo.tasks.detection.formats.yolo.darknet import DarknetData, find_darknet_data


def find(root: Path, findings: Findings | None = None) -> DarknetData | None:
    return find_darknet_data(root, AnyCase(), findings or Findings())


@pytest.mark.parametrize("place", ["obj.data", "cats.data", "data/obj.data"])
@pytest.mark.parametrize("before", ["data/", "/home/me/darknet/", "", "build\\x64\\data\\"])
def test_where_lists_and_names_are(tmp_path: Path, place: str, before: str) -> None:
    text = (
        f"classes = 2\n# comment\ntrain = {before}train.txt\r\nvalid={before}Valid.txt\nnames  =  {before}obj.names\n"
    )
    touch(tmp_path, "train.txt", "valid.txt", "obj.names")
    found = find(write_files(tmp_path, {place: text}))
    assert found == DarknetData(
        [(tmp_path / "train.txt", "train"), (tmp_path / "valid.txt", "val")], tmp_path / "obj.names"
    )


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    findings = Findings()
    found = find(write_files(tmp_path, {"obj.data": "valid = lists/val.txt\nnames = x.names"}), findings)
    assert found == DarknetData([(tmp_path / "lists/val.txt", "val")], None)
    assert [(item.level, item.file, item.text) for item in findings.found] == [
        ("warning", "obj.data", "names is 'x.names', which does not exist")
    ]


@pytest.mark.parametrize("content", ["names = a.names", "", b"\xff\xfe\x00", "train", "train ="])
def test_other_data_files(tmp_path: Path, content: str | bytes) -> None:
    assert find(write_files(tmp_path, {"obj.data": content})) is None


def test_a_path_that_no_file_can_have(tmp_path: Path) -> None:
    findings = Findings()
    found = find(write_files(tmp_path, {"obj.data": "train = a\0b.txt"}))
    assert found is not None
    assert read_named_lists(found.lists, tmp_path, Items({}), findings) == {"train": []}
    assert [finding.text for finding in findings.found] == [
        "it cannot be read (embedded null byte). The split train is skipped"
    ]


def test_two_of_them_are_refused(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.data": "train = a.txt", "b.data": "valid = b.txt"})
    with pytest.raises(
        DataError, match=r"holds 'a.data' and 'b.data', and either could describe the data\. Move all but"
    ):
        find(tmp_path)
