from pathlib import Path

import pytest

from annotated_folders import touch, write_files
from zoo.errors import DataError
from zoo.tasks.detection.formats._files import Findings
from zoo.tasks.detection.formats.yolo.data_yaml import YoloYaml, find_yaml


def read(root: Path, text: str, *, name: str = "data.yaml") -> tuple[YoloYaml, list[tuple[str, str, str, int | None]]]:
    findings = Findings()
    found = find_yaml(write_files(root, {name: text}), findings)
    assert found is not None
    return found, [(item.level, item.kind, item.split, item.line) for item in findings.found]


def entries(yaml: YoloYaml, root: Path) -> dict[str, list[str]]:
    return {split: [path.relative_to(root).as_posix() for path in paths] for split, paths in yaml.entries.items()}


@pytest.mark.parametrize(
    "text",
    [
        "train: images/train\nval: images/val\nnames: [cat, no]",
        "path: .\ntrain: images/train\nval: images/val\nnames: {0: cat, 1: 'no'}",
        "path: {root}\ntrain: images/train/\nval: ./images/val\nnames:\n  1: no\n  0: cat\nnc: 2",
        "path: {root}/images\ntrain: train\nval: val\nnames: [cat, no]",
        "path: images\ntrain: [train]\nvalidation: val\ntest:\nnames: [cat, no]",
        "path: ../somewhere\ntrain: images/train\nval: images/val\nnames: [cat, no]",
        "train: ../images/train\nval: ../images/val\nnames: ['cat', \"no\"]",
        "train: {root}/images/train\nval: {root}/images/val\nnames: [cat, no]",
        "train: /content/data-1/images/train\nval: /content/data-1/images/val\nnames: [cat, no]",
        "train: C:\\\\data\\images\\train\nval: C:\\\\data\\images\\val\nnames: [cat, no]",
        "train: images\\train\nval: images\\val # half\nnames: [cat, no]\ndownload: |\n  import os\n  os.remove('x')",
    ],
)
@pytest.mark.parametrize("name", ["data.yaml", "data.yml", "dataset.yaml", "cats.yaml"])
def test_ways_to_write_the_paths(tmp_path: Path, text: str, name: str) -> None:
    root = touch(tmp_path / "x", "images/train/1.jpg", "images/val/1.jpg")
    yaml, _ = read(root, text.replace("{root}", str(root)), name=name)
    assert entries(yaml, root) == {"train": ["images/train"], "val": ["images/val"]}
    assert yaml.names == {0: "cat", 1: "no"}
    assert list(yaml.names) == [0, 1]
    assert (yaml.file, yaml.pose) == (name, False)


@pytest.mark.parametrize(
    ("text", "train", "val"),
    [
        (
            "train: images/t*\nval: images/val/*.jpg\nnames: [cat]",
            ["images/train"],
            ["images/val/2.jpg", "images/val/10.jpg"],
        ),
        ("train: Images/TRAIN\nval: IMAGES/val/10.JPG\nnames: [cat]", ["images/train"], ["images/val/10.jpg"]),
        ("train: ./**/train\nval: [images/*al]\nnames: [cat]", ["images/train"], ["images/val"]),
    ],
)
def test_patterns_and_other_cases(tmp_path: Path, text: str, train: list[str], val: list[str]) -> None:
    yaml, found = read(touch(tmp_path, "images/train/1.jpg", "images/val/2.jpg", "images/val/10.jpg"), text)
    assert entries(yaml, tmp_path) == {"train": train, "val": val}
    assert not found


def test_backslashes_in_double_quotes_are_explained(tmp_path: Path) -> None:
    hint = r"In double quotes a backslash is an escape character: use /, or single quotes\."
    for text in ('path: "C:\\Users\\me"\nnames: [a]', 'train: "images\\train"\nnames: [a]'):
        with pytest.raises(DataError, match=hint):
            read(touch(tmp_path, "images/train/1.jpg"), text)
    _, found = read(touch(tmp_path, "images/val/1.jpg"), 'train: "images\\train"\nval: images/val\nnames: [a]')
    assert found == [("error", "missing splits", "train", 1)]


def test_a_file_with_the_names(tmp_path: Path) -> None:
    write_files(tmp_path, {"set/obj.names": "cat\nno\n\n", "names.txt": "password"})
    yaml, found = read(tmp_path / "set", "names: data/obj.names")
    assert yaml.names == {0: "cat", 1: "no"}
    assert found == [("note", "class map", "", 1)]
    with pytest.raises(DataError, match=r"line 1: names is '\.\./names\.txt'; expected a list of names"):
        read(tmp_path / "set", "names: ../names.txt")


def test_the_count_of_classes_may_be_a_text(tmp_path: Path) -> None:
    yaml, found = read(tmp_path, "names: [a, b]\nnc: '2'")
    assert (yaml.names, found) == ({0: "a", 1: "b"}, [])


def test_a_dataset_yaml_of_another_tool_is_none(tmp_path: Path) -> None:
    for text in ("license: mit", "- a", "", "!!python/object:x\n"):
        assert find_yaml(write_files(tmp_path, {"dataset.yaml": text}), Findings()) is None
    assert find_yaml(write_files(tmp_path, {"dataset.yaml": "names: [a]"}), Findings()) is not None


def test_a_path_beside_the_yaml_is_not_mistaken_for_another(tmp_path: Path) -> None:
    """What is written is there, outside of the yaml's folder, so it is meant."""
    touch(tmp_path, "train/images/1.jpg", "set/train/images/1.jpg")
    yaml, found = read(tmp_path / "set", "train: ../train/images\nnames: [cat]")
    assert yaml.entries["train"][0].resolve() == tmp_path / "train/images"
    assert not found


def test_lists_and_several_folders(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "train.txt", "val.txt")
    yaml, found = read(tmp_path, "train: [a, b]\nval: val.txt\nvalid: train.txt\nnames: [cat]\nkpt_shape: [17, 3]")
    assert entries(yaml, tmp_path) == {"train": ["a", "b"], "val": ["val.txt", "train.txt"]}
    assert yaml.pose
    assert not found


def test_what_was_moved_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "train/images/1.jpg", "valid/images/1.jpg")
    text = "path: /old\ntrain: /content/x/train/images\nval: ../valid/images\ntest: ../test/images\nnames: [cat]"
    yaml, found = read(tmp_path, text)
    assert entries(yaml, tmp_path) == {"train": ["train/images"], "val": ["valid/images"]}
    assert found == [
        ("warning", "paths that do not exist", "", 1),
        ("warning", "paths that do not exist", "train", 2),
        ("warning", "missing splits", "test", 4),
    ]


def test_a_folder_of_all_images_is_not_taken_for_a_split(tmp_path: Path) -> None:
    """`images` is the end of both paths, and would make train and val the same."""
    touch(tmp_path, "images/1.jpg")
    with pytest.raises(DataError, match=r"lists folders or files that do not exist:\n  train: '../train/images'\n"):
        read(tmp_path, "train: ../train/images\nval: ../val/images\nnames: [cat]")


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    touch(tmp_path, "images/train/1.jpg")
    yaml, found = read(tmp_path, "names: [cat]\ntrain: images/train\nval: images/val\ntest: {a: 1}")
    assert entries(yaml, tmp_path) == {"train": ["images/train"], "val": []}
    assert found == [
        ("error", "missing splits", "val", 3),
        ("warning", "missing splits", "test", 4),
    ]


@pytest.mark.parametrize(
    ("text", "names", "level", "kind", "line"),
    [
        ("names: [a, b]\nnc: 3", {0: "a", 1: "b"}, "error", "nc does not match the names", 2),
        ("names: [a, b]\nnc: two", {0: "a", 1: "b"}, "error", "nc does not match the names", 2),
        ("nc: 2", {0: "0", 1: "1"}, "note", "class map", None),
        ("names: {1: a, 3: b}", {1: "a", 3: "b"}, "note", "class map", 1),
        ("names: [a, ~, '']", {0: "a", 1: "1", 2: "2"}, "error", "classes without a name", 1),
        ("names:\n - a\n - [b]", {0: "a", 1: "1"}, "error", "classes without a name", 3),
    ],
)
def test_odd_names(tmp_path: Path, text: str, names: dict[int, str], level: str, kind: str, line: int | None) -> None:
    yaml, found = read(tmp_path, text)
    assert yaml.names == names
    assert {item[:3] for item in found} == {(level, kind, "")}
    assert found[0][3] == line


def test_names_are_read_as_they_are_written(tmp_path: Path) -> None:
    yaml, found = read(tmp_path, 'names: [no, off, true, 1, 2.5, \' a \', "\u0444", "cafe\u0301  noir"]')
    assert yaml.names is not None
    assert list(yaml.names.values()) == ["no", "off", "true", "1", "2.5", "a", "\u0444", "caf\u00e9 noir"]
    assert not found


def test_neither_names_nor_splits(tmp_path: Path) -> None:
    yaml, found = read(tmp_path, "nc: many\nlr: 0.1")
    assert (yaml.names, yaml.entries, found) == (None, {}, [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("names: [a", r"\n  line 1: cannot be parsed as 'key: value' lines"),
        ("names: [a]\nnames: [b]", r"\]'\.\n  line 2: names is a duplicate key, first on line 1"),
        ("names: !!python/object/apply:os.system ['ls']", r"\n  line 1: .*tag .*; remove it"),
        ("- a", r" It has no such lines\.$"),
        ("", r" It has no such lines\.$"),
        (
            "names: cats.names",
            r"line 1: names is 'cats.names'; expected a list of names, or a mapping of numbers to names\.$",
        ),
        ("names: {a: 0, b: 1}", r"line 1: names is \{'a': 0, 'b': 1\}; expected a list"),
        ("names: []", r"line 1: names is \[\]; expected a list"),
    ],
)
def test_a_yaml_that_cannot_be_used(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "data.yaml") in str(caught.value)


def test_a_yaml_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_bytes(b"names: [\xff]")
    with pytest.raises(
        DataError,
        match=r"data.yaml' cannot be used: it is not UTF-8 text \(line 1\)",
    ):
        find_yaml(tmp_path, Findings())


def test_which_file_is_the_yaml(tmp_path: Path) -> None:
    assert find_yaml(tmp_path, Findings()) is None
    write_files(tmp_path, {"hyp.yaml": "lr: 1", "broken.yaml": "a: [", "list.yml": "- a", "names.yaml": "names: [a]"})
    assert find_yaml(tmp_path, Findings()) is None
    touch(tmp_path, "a/1.jpg")
    write_files(tmp_path, {"b.yaml": "names: [a]\ntrain: a", "c.yml": "names: [a]\nval: a"})
    with pytest.raises(DataError, match=r"holds 'b\.yaml' and 'c\.yml', and either could describe the data\. Pass the"):
        find_yaml(tmp_path, Findings())
    given = find_yaml(tmp_path / "c.yml", Findings())
    assert given is not None
    assert given.file == "c.yml"
    write_files(tmp_path, {"data.yml": "names: [x]\ntrain: a"})
    usual = find_yaml(tmp_path, Findings())
    assert usual is not None
    assert usual.names == {0: "x"}
