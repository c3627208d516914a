import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from image_files import make_image, write_image
from zoo.errors import DataError, InputError
from zoo.tasks.detection.annotations import BoxSource, BoxSplit
from zoo.tasks.detection.data import BoxData, check_box_data, find_box_source, number_classes, open_box_data

ROOT = Path(__file__).parents[3]
BCCD = ROOT.parent / "shared" / "data" / "bccd"
needs_bccd = pytest.mark.skipif(not BCCD.is_dir(), reason="the blood cells (BCCD) are not here")

# What README.md of the data says is wrong with it: numbers of images
PAIRS = ["00013", "00020", "00100", "00251", "00403", "00104", "00331", "00284"]
NO_RED_CELLS = {
    *("00134", "00150", "00224", "00249", "00250", "00267", "00268", "00322"),
    *("00147", "00152", "00330", "00350", "00258", "00303", "00327"),
}


def write_yolo(root: Path, counts: dict[str, int], names: str = "[cat, dog]", box: str = "0.5 0.5 0.5 0.5") -> Path:
    """Write images of 40 x 30 pixels with a box of class 0 in the even and one of class 1 in the odd ones."""
    for seed, (split, count) in enumerate(counts.items()):
        for number in range(count):
            write_image(root / "images" / split / f"{number}.png", (40, 30), seed=1000 * seed + number)
            label = root / "labels" / split / f"{number}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(f"{number % 2} {box}\n")
    lines = [f"{split}: images/{split}" for split in counts]
    (root / "data.yaml").write_text("\n".join([f"names: {names}", *lines]))
    return root


def counts(data: BoxData) -> dict[str, list[int]]:
    return {split: list(numbers.values()) for split, numbers in data.describe()["counts"].items()}


def sample(label: Any = 0, seed: int = 0, box: tuple[float, ...] = (1, 1, 8, 6)) -> Any:
    return make_image(seed=seed), {"boxes": torch.tensor([box]), "labels": [label]}


def set_of(*labels: Any, seed: int = 0) -> list[Any]:
    return [sample(label, seed + number) for number, label in enumerate(labels)]


def test_a_folder_with_splits(tmp_path: Path) -> None:
    data = open_box_data(str(write_yolo(tmp_path, {"train": 5, "val": 3, "test": 2})))
    assert data.classes == ("cat", "dog")
    assert data.class_map == ((0, "cat"), (1, "dog"))
    assert counts(data) == {"train": [3, 2], "val": [2, 1], "test": [1, 1]}
    assert (data.source, data.skipped, data.loaders) == (str(tmp_path), (), None)
    assert data.form.startswith("YOLO")
    assert data.train is not None
    assert data.train.names[0] == "images/train/0.png"
    image, boxes = data.train.read(1)
    assert (image.size, image.mode) == ((40, 30), "RGB")
    assert boxes.xyxy.tolist() == [[10, 7.5, 30, 22.5]]
    assert boxes.labels.tolist() == [1]
    assert open_box_data(data) is data
    assert counts(open_box_data(tmp_path / "data.yaml")) == counts(data)


def test_train_alone_is_split_and_test_serves_as_val(tmp_path: Path) -> None:
    write_yolo(tmp_path / "first", {"train": 20})
    data = open_box_data(tmp_path / "first", val_fraction=0.2, seed=3)
    assert counts(data) == {"train": [8, 8], "val": [2, 2]}
    assert data.train is not None
    assert data.val is not None
    assert not set(data.train.names) & set(data.val.names)
    for images in (data.train, data.val):  # images and boxes have stayed together
        for index, name in enumerate(images.names):
            number = int(Path(name).stem)
            assert images.boxes[index].labels.tolist() == [number % 2]
            found = np.asarray(images.read(index)[0])
            assert np.array_equal(found, np.asarray(make_image((40, 30), number)))
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    again = open_box_data(tmp_path / "second", val_fraction=0.2, seed=3, check=False)
    assert again.val is not None
    assert again.val.names == data.val.names
    assert again.describe()["digest"] == data.describe()["digest"]
    other = open_box_data(tmp_path / "first", val_fraction=0.2, seed=4)
    assert other.describe()["digest"] != data.describe()["digest"]
    assert not [group for group in data.report.groups() if group.kind == "test used as val"]
    tested = open_box_data(write_yolo(tmp_path / "third", {"train": 4, "test": 2}))
    assert [group.level for group in tested.report.groups() if group.kind == "test used as val"] == ["warning"]
    assert counts(tested) == {"train": [2, 2], "val": [1, 1], "test": [1, 1]}


def test_rare_classes_come_to_both_sides() -> None:
    common = set_of(*[0] * 40)
    rare = [(make_image(seed=100 + i), {"boxes": [[0, 0, 9, 7], [1, 1, 5, 5]], "labels": [0, 7]}) for i in range(5)]
    data = open_box_data([*common, *rare])
    assert counts(data) == {"train": [36, 4], "val": [9, 1]}
    with pytest.raises(DataError, match="too few images to hold one out for val"):
        open_box_data(set_of(0))
    assert counts(open_box_data((set_of(3, 3), set_of(3, seed=9)))) == {"train": [2], "val": [1]}


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"train": 5, "val": 2}, names="{0: cat, 1: dog, 2: cells}")
    data = open_box_data(tmp_path, classes=["elk", "dog", "cat"])
    assert data.classes == ("elk", "dog", "cat")
    assert data.class_map == ((1, "dog"), (0, "cat"))  # the class without a box may be missing
    assert counts(data) == {"train": [0, 2, 3], "val": [0, 1, 1]}
    with pytest.raises(DataError, match=r"classes that are not in the class list: 'dog' \(3 boxes\)\. Did you mean"):
        open_box_data(tmp_path, classes=["cat", "dogs"])
    with pytest.raises(InputError, match="classes lists 'cat' twice"):
        open_box_data(tmp_path, classes=["cat", "cat"])


def test_numbers_without_names_are_named_by_the_given_classes() -> None:
    data = open_box_data((set_of(0, 2), set_of(2, seed=9)), classes=["cat", "dog", "elk"])
    assert data.class_map == ((0, "cat"), (2, "elk"))
    assert counts(data) == {"train": [1, 0, 1], "val": [0, 0, 1]}
    with pytest.raises(DataError, match=r"not in the class list: '2' \(2 boxes\)"):
        open_box_data((set_of(0, 2), set_of(2, seed=9)), classes=["cat", "dog"])


def test_numbers_without_names_are_no_places_among_the_names_of_a_model() -> None:
    pair = (set_of(0, 2), set_of(2, seed=9))
    text = "^the labels of the data are numbers without names, but the classes of the model have names: 'cat', 'dog',"
    with pytest.raises(DataError, match=text):
        open_box_data(pair, classes=["cat", "dog", "elk"], by_name=True)
    data = open_box_data(pair, classes=["2", "10", "0"], by_name=True)
    assert data.class_map == ((2, "2"), (0, "0"))
    assert not data.named
    assert open_box_data(pair, classes=["cat", "dog", "elk"]).named


def test_boxes_are_numbered_like_the_classes_of_a_model(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"train": 5, "val": 2}, names="{0: cat, 1: 'caf\u00e9 ', 2: cells}")
    data = open_box_data(tmp_path, like=["cafe\u0301", "x", "cells"])
    assert data.classes == ("caf\u00e9", "cells", "cat")
    assert data.class_map == ((1, "caf\u00e9"), (2, "cells"), (0, "cat"))
    assert counts(data) == {"train": [2, 0, 3], "val": [1, 0, 1]}
    assert data.options == {"skip_bad": False, "classes": ["caf\u00e9", "cells", "cat"]}


def test_classes_of_the_same_name_are_one() -> None:
    split = BoxSplit("all", make_image, ())
    source = BoxSource("here", "test", {"all": split}, {3: "cell", 7: "dog", 9: "cell"})
    assert number_classes(source, None) == (((3, "cell"), (9, "cell"), (7, "dog")), ("cell", "dog"))


def test_given_classes_are_compared_without_blanks_and_unicode_forms() -> None:
    source = BoxSource(
        "here", "test", {"all": BoxSplit("all", make_image, ())}, {3: "caf\u00e9", 7: "dog", 9: "red cell"}
    )
    given = ("red  cell ", "dog", "cafe\u0301")
    assert number_classes(source, given) == (((9, "red  cell "), (7, "dog"), (3, "cafe\u0301")), given)
    both = ("dog ", "dog", "caf\u00e9", "red cell")
    assert dict(number_classes(source, both)[0])[7] == "dog"  # the very name wins


def test_for_evaluation_nothing_is_split_and_one_split_may_be_taken(tmp_path: Path) -> None:
    assert counts(open_box_data(set_of(0, 1), evaluation=True)) == {"val": [1, 1]}
    write_yolo(tmp_path, {"train": 3, "val": 3, "test": 1})
    (tmp_path / "labels/train/0.txt").write_text("0 0.5\n")
    (tmp_path / "images/test/0.png").write_bytes(b"nothing")
    data = open_box_data(tmp_path, evaluation=True, only="val")
    assert (data.classes, counts(data)) == (("cat", "dog"), {"val": [2, 1]})
    with pytest.raises(DataError, match=r"images/test/0\.png: not an image"):
        open_box_data(tmp_path, evaluation=True, only="test")
    with pytest.raises(InputError, match="unknown split 'dev'; expected train, val or test"):
        open_box_data(tmp_path, evaluation=True, only="dev")
    with pytest.raises(
        DataError, match="the data has no split 'test'; it has no splits; use val to evaluate all of it"
    ):
        open_box_data(set_of(0), evaluation=True, only="test")
    assert counts(open_box_data(set_of(0), evaluation=True, only="val")) == {"val": [1]}
    with pytest.raises(DataError, match="no split 'test'; it has train, val"):
        open_box_data((set_of(0), set_of(0)), evaluation=True, only="test")


def spoil(root: Path) -> Path:
    write_yolo(root, {"train": 6, "val": 3})
    (root / "labels/train/0.txt").write_text("0 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.5\n")
    (root / "labels/train/1.txt").write_text("7 0.5 0.5 0.5 0.5\n")
    (root / "images/train/2.png").write_bytes((root / "images/train/2.png").read_bytes()[:300])
    (root / "labels/val/0.txt").write_text("")
    return root


def test_errors_stop_and_are_listed_with_file_and_line(tmp_path: Path) -> None:
    spoil(tmp_path)
    with pytest.raises(DataError) as caught:
        open_box_data(tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("3 errors in the data (YOLO")
    assert [line.split(": ")[0].strip() for line in lines[1:4]] == [
        "labels/train/0.txt:2",
        "labels/train/1.txt:1",
        "images/train/2.png",
    ]
    assert lines[4].startswith("Repair them, or pass skip_bad=True (--skip-bad)")


def test_with_skip_bad_the_rest_is_used_and_all_is_told(tmp_path: Path) -> None:
    data = open_box_data(spoil(tmp_path), skip_bad=True)
    assert counts(data) == {"train": [1, 2], "val": [1, 1]}
    assert data.train is not None
    assert len(data.train) == 3
    assert [finding.place for finding in data.skipped] == [
        "labels/train/0.txt:2",
        "labels/train/1.txt:1",
        "images/train/2.png",
    ]
    described = data.describe()
    assert described["skipped"][2]["name"] == "images/train/2.png"
    assert described["findings"]["images without boxes"] == 1
    assert described["findings"]["images with invalid annotations"] == 2
    assert described["images"] == {"train": 3, "val": 3}
    assert json.loads(json.dumps(described)) == described


def test_with_skip_bad_an_image_with_a_box_that_cannot_be_read_is_not_used() -> None:
    broken = [(make_image(seed=seed), {"boxes": boxes, "labels": [0] * len(boxes)})
              for seed, boxes in enumerate(([[0, 0, 9, 7], [5, 1, 2, 6]], [[0, float("nan"), 9, 7]], []))]  # fmt: skip
    data = open_box_data((set_of(0, 0) + broken, set_of(0, seed=50) + broken), skip_bad=True)
    assert counts(data) == {"train": [2], "val": [1]}
    assert data.describe()["images"] == {"train": 3, "val": 2}  # those where nothing is marked stay
    assert data.describe()["findings"]["images with invalid annotations"] == 4
    assert [finding.place for finding in data.skipped] == ["train[3]", "val[2]", "train[2]", "val[1]"]


def test_many_errors_are_cut(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"train": 30, "val": 1}, box="0.5 0.5 0.5")
    with pytest.raises(DataError, match=r"31 errors in the data [^$]*\n  \.\.\. and 11 more\nRepair") as caught:
        open_box_data(tmp_path)
    assert str(caught.value).count("\n") == 22


def test_nothing_to_learn_or_to_score(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"train": 2, "val": 2}, box="0.5 0.5 0.0 0.0")
    for evaluation in (False, True):
        with pytest.raises(
            DataError,
            match=r"train has no usable image\. [^$]*txt:1: 'cat' .*skipped",
        ):
            open_box_data(tmp_path, evaluation=evaluation)
    bare = [(make_image(), {"boxes": [], "labels": []})] * 3
    with pytest.raises(DataError, match=r"train has 3 images but no usable box; expected at least one\."):
        open_box_data((bare, set_of(0)), check=False)
    gone = (set_of(0, 1), [(b"", {"boxes": [[0, 0, 9, 7]], "labels": [0]})])
    with pytest.raises(
        DataError,
        match=r"val has no usable image\. Add images, or remove val\. Found:\n  val\[0\]: empty file \(0 bytes\); "
        r"the image is skipped",
    ):
        open_box_data(gone, skip_bad=True)
    with pytest.raises(InputError, match="val_fraction is 1; expected a number between 0 and 1"):
        open_box_data(set_of(0, 1), val_fraction=1)


def test_when_nothing_could_be_read_the_errors_say_why(tmp_path: Path) -> None:
    write_image(tmp_path / "JPEGImages/a.png")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations/a.xml").write_text("<annotation>\n<object>\n</annotation>\n")
    for skip_bad in (False, True):
        with pytest.raises(DataError, match=r"1 error in the data \(Pascal VOC, .*\n  Annotations/a\.xml:3: "):
            open_box_data(tmp_path, skip_bad=skip_bad)
    report = check_box_data(tmp_path)
    assert [error.place for error in report.errors] == ["Annotations/a.xml:3"]


def test_the_check_splits_nothing_off_and_raises_nothing(tmp_path: Path) -> None:
    report = check_box_data(spoil(tmp_path))
    assert len(report.errors) == 3
    assert {name: part.images for name, part in report.splits.items()} == {"train": 3, "val": 3}
    assert check_box_data(tmp_path, only="val").errors == ()
    assert check_box_data(set_of(0, 1)).splits.keys() == {"all"}


@pytest.fixture(scope="module")
def cells() -> BoxData:
    return open_box_data(BCCD)


@needs_bccd
def test_the_blood_cells_are_all_there(cells: BoxData) -> None:
    assert (cells.form, cells.skipped) == ("Pascal VOC", ())
    assert cells.classes == ("Platelets", "RBC", "WBC")
    assert cells.describe()["images"] == {"train": 205, "val": 87, "test": 72}
    assert counts(cells) == {"train": [209, 2381, 214], "val": [83, 967, 87], "test": [69, 805, 71]}
    images_with = {name: part.images_with for name, part in cells.report.splits.items()}
    assert images_with == {"train": (117, 197, 204), "val": (45, 83, 86), "test": (39, 69, 68)}
    for images in (cells.train, cells.val, cells.test):
        assert images is not None
        assert set(images.sizes) == {(480, 640)}
        boxes = np.concatenate([boxes.xyxy for boxes in images.boxes])
        assert boxes.min() >= 0
        assert boxes.max(axis=0).tolist() == [boxes[:, 0].max(), boxes[:, 1].max(), 640, 480]


@needs_bccd
def test_the_defects_of_the_blood_cells_are_found(cells: BoxData) -> None:
    found = {group.kind: group.findings for group in cells.report.groups()}
    assert [(finding.split, finding.place) for finding in found["boxes without area"]] == [
        ("train", "Annotations/BloodImage_00343.xml:50"),
        ("val", "Annotations/BloodImage_00338.xml:158"),
    ]
    for finding, x in zip(found["boxes without area"], (181, 504), strict=True):
        assert finding.line is not None
        after = (BCCD / finding.file).read_text().splitlines()[finding.line - 1 : finding.line + 11]
        assert {f"<xmin>{x}</xmin>", f"<xmax>{x}</xmax>"} <= {line.strip() for line in after}
    pairs = [(finding.split, Path(finding.file).stem[-5:]) for finding in found["near-duplicate boxes"]]
    assert [name for _, name in pairs] == PAIRS
    assert [split for split, _ in pairs] == ["train"] * 5 + ["val"] * 2 + ["test"]
    bare = found["images without 'RBC' boxes"]
    assert sorted(Path(finding.file).stem[-5:] for finding in bare) == sorted(NO_RED_CELLS)
    assert {Path(finding.file).stem[-5:] for finding in found["images without 'WBC' boxes"]} >= {"00327"}
    (twin,) = found["near-duplicate images in two splits"]
    assert (twin.split, twin.file) == ("val", "JPEGImages/BloodImage_00037.jpg")
    assert twin.text == "it looks like JPEGImages/BloodImage_00038.jpg of train (4 of 64 bits differ)"
    assert cells.report.errors == ()


@needs_bccd
def test_without_the_check_the_blood_cells_are_the_same(cells: BoxData) -> None:
    quick = open_box_data(BCCD, check=False)
    assert quick.describe()["digest"] == cells.describe()["digest"]
    assert quick.describe()["counts"] == cells.describe()["counts"]


def test_readers_are_tried_on_paths_and_data_sets_on_objects(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"train": 1})
    assert find_box_source(tmp_path).form.startswith("YOLO")
    assert find_box_source(set_of(0)).form == "data set"


def test_a_split_that_is_there_is_scored_whatever_others_are_called(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"test": 2, "pruebas": 1})
    (tmp_path / "data.yaml").unlink(missing_ok=True)
    assert "splits that are not read" in {finding.kind for finding in find_box_source(tmp_path).findings}
    data = open_box_data(tmp_path, evaluation=True, only="test")
    assert [len(part) for part in (data.train, data.val, data.test) if part is not None] == [2, 2]
    with pytest.raises(DataError, match="its name does not name a split"):
        open_box_data(tmp_path)
