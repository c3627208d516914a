from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotated_folders import BCCD, Content, contents, names, told, touch, voc_xml, write_files
from tasks.detection.formats.contract import FormatContract
from zoo.errors import DataError
from zoo.tasks.detection.annotations import BoxSource
from zoo.tasks.detection.drawing import import_supervision
from zoo.tasks.detection.formats.voc import read_voc

NEEDS_BCCD = pytest.mark.skipif(not BCCD.is_dir(), reason="the shared data set of blood cells does not exist")


def kit(root: Path, *names: str, split: str | None = None) -> Path:
    """Write images with a cat each."""
    for name in names:
        write_files(root, {f"Annotations/{name}.xml": voc_xml(f"{name}.jpg", ("cat", 1, 2, 30, 40))})
        touch(root, f"JPEGImages/{name}.jpg")
    return root


def lists(root: Path, **names: str) -> Path:
    return write_files(root, {f"ImageSets/Main/{split}.txt": text for split, text in names.items()})


def read(root: Path) -> BoxSource:
    source = read_voc(root)
    assert source is not None
    return source


class TestVoc(FormatContract):
    name = "Pascal VOC"
    image = "JPEGImages/a.jpg"
    annotation = "Annotations/a.xml"

    def files(self, image: str, side: object = 20) -> dict[str, Content]:
        boxes = [("cat", 1, 2, width, 40) for width in (20, side)]
        return {self.annotation: voc_xml(image.removeprefix("JPEGImages/"), *boxes)}

    def save_by_supervision(self, dataset: Any, root: Path) -> None:
        dataset.as_pascal_voc(str(root / "images"), str(root / "annotations"))


def test_a_folder_without_lists_is_one_split(tmp_path: Path) -> None:
    source = read(kit(tmp_path, "img10", "img9"))
    split = source.splits["all"]
    assert names(source) == {"all": ["JPEGImages/img9.jpg", "JPEGImages/img10.jpg"]}
    assert [split.reader(place) for place in (0, 1)] == [str(tmp_path / image.name) for image in split.images]
    assert split.in_threads
    assert (source.form, source.where, source.names) == ("Pascal VOC", str(tmp_path), {"cat": "cat"})
    image = split.images[0]
    assert (image.file, image.size, image.lines, image.is_relative) == ("Annotations/img9.xml", (48, 64), (4,), False)
    assert image.crowd.tolist() == [False]


def test_pixels_are_counted_from_1(tmp_path: Path) -> None:
    objects = [("b", 1, 1, 64, 48), ("a10", 5, 6, 7, 8), ("a9", 2, 3, 2, 3), ("b", 9, 3, 4, 8), ("b", 5, 3, 4, 8)]
    write_files(tmp_path, {"Annotations/1.xml": voc_xml("1.jpg", *objects)})
    source = read(touch(tmp_path, "JPEGImages/1.jpg"))
    boxes = source.splits["all"].images[0].boxes
    assert boxes.tolist() == [[0, 0, 64, 48], [4, 5, 7, 8], [2, 3, 2, 3], [9, 2, 4, 8], [5, 2, 4, 8]]  # swapped stay so
    assert boxes.dtype == np.float64
    assert list(source.names) == ["a9", "a10", "b"]
    assert [finding.text for finding in source.findings] == [
        "none of 5 boxes starts at 0: coordinates are read as 1-based and converted to 0-based"
    ]
    assert source.findings[0].level == "note"


def test_coordinates_with_fractions_are_taken_as_they_are(tmp_path: Path) -> None:
    """The truth is known: boxes are drawn from 0, in no whole pixels, and written with two digits in one split only."""
    rng = np.random.default_rng(0)
    firsts = rng.integers(100, 3000, (20, 2))
    truth = np.concatenate([firsts, firsts + rng.integers(200, 900, (20, 2))], axis=1) / 100
    truth[15:] = truth[15:].round() + np.array([1, 1, 9, 9])  # what happens to be whole is of the same tool
    for number, box in enumerate(truth.tolist()):
        folder = "train" if number < 15 else "test"
        write_files(
            tmp_path, {f"{folder}/{number}.xml": voc_xml(f"{number}.jpg", ("cat", *box)), f"{folder}/{number}.jpg": ""}
        )
    source = read(tmp_path)
    boxes = np.concatenate([image.boxes for split in ("train", "test") for image in source.splits[split].images])
    np.testing.assert_array_equal(boxes, truth)
    assert [finding.text for finding in source.findings] == [
        "15 of 20 boxes have fractions, so coordinates are used unchanged, not converted from 1-based"
    ]
    for split in ("train", "test"):  # alone they are read as together
        alone = read(tmp_path / split).splits["all"].images
        np.testing.assert_array_equal(
            [image.boxes for image in alone], [image.boxes for image in source.splits[split].images]
        )


def test_a_few_fractions_do_not_move_the_other_boxes(tmp_path: Path) -> None:
    """VOC2012 counts from 1 and has some fractions in a few files."""
    objects = [("cat", 2 + n % 9, 3, 20 + n % 7, 30) for n in range(199)]
    write_files(
        tmp_path, {"Annotations/1.xml": voc_xml("1.jpg", ("cat", 4.5, 5, 9, 10), *objects), "JPEGImages/1.jpg": ""}
    )
    source = read(tmp_path)
    boxes = source.splits["all"].images[0].boxes
    assert boxes[:2].tolist() == [[4.5, 5, 9, 10], [1, 2, 20, 30]]
    assert source.findings[0].text == (
        "none of 200 boxes starts at 0: coordinates are read as 1-based and converted to 0-based, except 1 "
        "with fractions, used unchanged"
    )


def test_all_splits_are_counted_alike(tmp_path: Path) -> None:
    """A box of train begins at 0; those of test do not, and are counted from 0 as well, also if test is read alone."""
    write_files(tmp_path, {"train/1.xml": voc_xml("1.jpg", ("cat", 0, 3, 9, 9)), "train/1.jpg": ""})
    write_files(tmp_path, {"test/2.xml": voc_xml("2.jpg", ("cat", 5, 3, 9, 9)), "test/2.jpg": ""})
    assert contents(read(tmp_path)) == {
        "train": {"train/1.jpg": [("cat", [0, 3, 9, 9])]},
        "test": {"test/2.jpg": [("cat", [5, 3, 9, 9])]},
    }
    assert contents(read(tmp_path / "test")) == {"all": {"2.jpg": [("cat", [5, 3, 9, 9])]}}


def test_a_single_0_tells_that_pixels_are_counted_from_0(tmp_path: Path) -> None:
    kit(tmp_path, "1")
    write_files(tmp_path, {"Annotations/2.xml": voc_xml("2.jpg", ("cat", 3, 3, 9, 9), ("cat", 5, 0, 7, 8))})
    source = read(touch(tmp_path, "JPEGImages/2.jpg"))
    assert [image.boxes.tolist() for image in source.splits["all"].images] == [
        [[1, 2, 30, 40]],
        [[3, 3, 9, 9], [5, 0, 7, 8]],
    ]
    assert told(source) == [("note", "coordinates", "", "Annotations/2.xml:14")]
    assert "1 of 3 boxes start at 0, so coordinates are 0" in source.findings[0].text


def test_what_is_left_of_the_image_says_nothing_about_the_count(tmp_path: Path) -> None:
    write_files(tmp_path, {"Annotations/1.xml": voc_xml("1.jpg", ("cat", -3, 2, 30, 40))})
    assert read(touch(tmp_path, "JPEGImages/1.jpg")).splits["all"].images[0].boxes.tolist() == [[-4, 1, 30, 40]]


def test_lists_make_splits(tmp_path: Path) -> None:
    kit(tmp_path, "1", "2", "3", "my image 1")
    lists(tmp_path, train="2\n1.jpg\n\n", val="3\r\n", test="my image 1\n", trainval="1\n2\n3\n")
    source = read(tmp_path)
    assert names(source) == {
        "train": ["JPEGImages/1.jpg", "JPEGImages/2.jpg"],
        "val": ["JPEGImages/3.jpg"],
        "test": ["JPEGImages/my image 1.jpg"],
    }
    assert told(source) == [("note", "coordinates", "", "")]


def test_an_xml_that_is_in_no_list_is_told(tmp_path: Path) -> None:
    source = read(lists(kit(tmp_path, "1", "2"), train="1"))
    assert names(source) == {"train": ["JPEGImages/1.jpg"]}
    assert told(source)[0] == ("warning", "xml files in no list", "", "Annotations/2.xml")
    assert source.findings[0].text == "1 xml file is in no list, and not used"


@pytest.mark.parametrize("folder", ["VOC2007", "VOCdevkit/VOC2012", "data/my set"])
def test_a_folder_in_a_folder(tmp_path: Path, folder: str) -> None:
    kit(tmp_path / folder, "1")
    assert names(read(tmp_path)) == {"all": [f"{folder}/JPEGImages/1.jpg"]}


def test_years_are_read_together(tmp_path: Path) -> None:
    lists(kit(tmp_path / "VOC2007", "1", "2"), train="1", test="2")
    lists(kit(tmp_path / "VOC2012", "1", "3"), train="1", val="3")
    assert names(read(tmp_path)) == {
        "train": ["VOC2007/JPEGImages/1.jpg", "VOC2012/JPEGImages/1.jpg"],
        "val": ["VOC2012/JPEGImages/3.jpg"],
        "test": ["VOC2007/JPEGImages/2.jpg"],
    }


def test_other_data_sets_are_not_mixed(tmp_path: Path) -> None:
    kit(tmp_path / "cells", "1")
    kit(tmp_path / "cars", "1")
    with pytest.raises(DataError, match=r"holds several Pascal VOC data sets, 'cars' and 'cells'\. Pass the path"):
        read_voc(tmp_path)


def test_xml_files_beside_the_images(tmp_path: Path) -> None:
    for folder, split in (("train", "train"), ("valid", "val"), ("test", "test")):
        write_files(tmp_path, {f"{folder}/{split}.xml": voc_xml(f"{split}.jpg", ("cat", 1, 1, 2, 2))})
        touch(tmp_path, f"{folder}/{split}.jpg")
    assert names(read(tmp_path)) == {"train": ["train/train.jpg"], "val": ["valid/val.jpg"], "test": ["test/test.jpg"]}
    assert names(read(tmp_path / "train")) == {"all": ["train.jpg"]}


@pytest.mark.parametrize(
    "files",
    [[], ["a.jpg"], ["train/cat/a.jpg"], ["pom.xml"], ["Annotations/a.json", "JPEGImages/a.jpg"], ["a.jpg", "b/x.xml"]],
)
def test_what_is_no_voc(tmp_path: Path, files: list[str]) -> None:
    assert read_voc(touch(tmp_path, *files)) is None
    assert read_voc(tmp_path / "none") is None
    (tmp_path / "file.xml").touch()
    assert read_voc(tmp_path / "file.xml") is None


def test_which_image_an_xml_is_of(tmp_path: Path) -> None:
    cat = ("cat", 1, 1, 2, 2)
    write_files(
        tmp_path,
        {
            "Annotations/by_name.xml": voc_xml("other.png", cat),
            "Annotations/no_name.xml": voc_xml("", cat),
            "Annotations/no_suffix.xml": voc_xml("no_suffix", cat),
            "Annotations/below.xml": voc_xml("sub/x.jpg", cat),
            "Annotations/both.xml": voc_xml("else.jpg", cat),
            "Annotations/copied.xml": voc_xml("no_name.bmp", cat),
        },
    )
    files = ["other.png", "no_name.bmp", "no_suffix.JPEG", "sub/x.jpg", "both.jpg", "else.jpg", "copied.jpg"]
    source = read(touch(tmp_path, *(f"JPEGImages/{name}" for name in files)))
    assert {image.file: image.name for image in source.splits["all"].images} == {
        "Annotations/by_name.xml": "JPEGImages/other.png",
        "Annotations/no_name.xml": "JPEGImages/no_name.bmp",
        "Annotations/no_suffix.xml": "JPEGImages/no_suffix.JPEG",
        "Annotations/below.xml": "JPEGImages/sub/x.jpg",
        "Annotations/both.xml": "JPEGImages/else.jpg",
        "Annotations/copied.xml": "JPEGImages/copied.jpg",
    }
    assert told(source)[:-1] == [
        ("warning", "xml files that name another image", "all", "Annotations/both.xml"),
        ("warning", "xml files that name another image", "all", "Annotations/copied.xml"),
    ]
    assert source.findings[0].text == "its filename is 'else.jpg', but 'both.jpg' exists too; 'else.jpg' is used"
    assert source.findings[1].text == "its filename is 'no_name.bmp', but 'copied.jpg' exists too; 'copied.jpg' is used"


def test_no_file_name_leads_out_of_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "data"
    outside = touch(tmp_path, "secret.jpg") / "secret.jpg"
    write_files(
        root,
        {
            "Annotations/1.xml": voc_xml("../../secret.jpg", ("cat", 1, 1, 2, 2)),
            "Annotations/2.xml": voc_xml(str(outside), ("cat", 1, 1, 2, 2)),
            "Annotations/3.xml": voc_xml("C:\\images\\3.jpg", ("cat", 1, 1, 2, 2)),
        },
    )
    source = read(touch(root, "JPEGImages/3.jpg"))
    assert names(source) == {"all": ["JPEGImages/3.jpg"]}
    assert told(source)[:-1] == [
        ("error", "missing images", "all", "Annotations/1.xml"),
        ("error", "missing images", "all", "Annotations/2.xml"),
        ("warning", "file names outside the folder", "all", "Annotations/3.xml"),
    ]


def test_images_and_xml_files_that_do_not_pair(tmp_path: Path) -> None:
    kit(tmp_path, "1")
    write_files(tmp_path, {f"Annotations/{n}.xml": voc_xml("3.jpg", ("cat", 1, 1, 2, 2)) for n in (2, 4)})
    source = read(touch(tmp_path, "JPEGImages/3.jpg", "JPEGImages/5.jpg", "JPEGImages/notes.txt"))
    assert names(source) == {"all": ["JPEGImages/1.jpg", "JPEGImages/3.jpg"]}
    assert told(source)[:-1] == [
        ("error", "images with two xml files", "all", "Annotations/4.xml"),
        ("warning", "images without an xml", "all", "JPEGImages/5.jpg"),
    ]


def test_a_missing_image(tmp_path: Path) -> None:
    write_files(tmp_path, {"Annotations/1.xml": voc_xml("a.jpg", ("cat", 1, 1, 2, 2))})
    source = read(kit(tmp_path, "2"))
    assert told(source)[0] == ("error", "missing images", "all", "Annotations/1.xml")
    assert source.findings[0].text == ("there is neither 'a.jpg' in 'JPEGImages' nor an image file '1'; skipped")
    assert names(source) == {"all": ["JPEGImages/2.jpg"]}


def test_bad_objects_are_left_out_and_told_with_their_lines(tmp_path: Path) -> None:
    objects = [
        ("cat", 1, 2, "many", 40),
        ("  ", 1, 2, 3, 4),
        ("good one\n", 1, 2, 3, 4),
        ("cat", "nan", 2, 3, 4),
        ("cat", 1, "inf", 3, 4),
        ("cat", 1, 2, 3, "1e999"),
        ("cat", "", 2, 3, 4),
    ]
    text = voc_xml("1.jpg", *objects).replace("</annotation>", "<object><name>polygon</name></object></annotation>")
    source = read(write_files(tmp_path, {"Annotations/1.xml": text, "JPEGImages/1.jpg": ""}))
    image = source.splits["all"].images[0]
    assert (image.keys, image.boxes.tolist(), image.lines) == (("good one",), [[0, 1, 3, 4]], (24,))
    assert image.lost == 7
    assert [(finding.kind, finding.line, finding.text) for finding in source.findings if finding.level == "error"] == [
        ("unreadable boxes", 10, "xmax is 'many'; expected a number. The box is skipped"),
        ("objects without a name", 14, "expected <name>; skipped"),
        ("unreadable boxes", 39, "xmin is 'nan'; expected a number. The box is skipped"),
        ("unreadable boxes", 50, "ymin is 'inf'; expected a number. The box is skipped"),
        ("unreadable boxes", 62, "ymax is '1e999'; expected a number. The box is skipped"),
        ("unreadable boxes", 69, "xmin is ''; expected a number. The box is skipped"),
        ("unreadable boxes", 75, "xmin is missing; expected a number. The box is skipped"),
    ]


def test_xml_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.tasks.detection.formats.voc.MAX_XML_BYTES", 2000)
    kit(tmp_path, "ok")
    write_files(
        tmp_path,
        {
            "Annotations/1.xml": "<annotation>\n<object>\n",
            "Annotations/3.xml": "<svg/>",
            "Annotations/5.xml": b"<annotation>\n<filename>\xe9.jpg</filename></annotation>",
            "Annotations/7.xml": "<annotation>" + " " * 2000,
            "Annotations/8.xml": '<?xml version="1.0" encoding="nonsense"?><annotation/>',
        },
    )
    source = read(touch(tmp_path, *(f"JPEGImages/{number}.jpg" for number in (1, 3, 5, 7, 8))))
    assert names(source) == {"all": ["JPEGImages/ok.jpg"]}
    errors = [(finding.place, finding.text) for finding in source.findings if finding.level == "error"]
    assert {finding.kind for finding in source.findings} == {"unreadable xml files", "coordinates"}
    assert errors == [
        ("Annotations/1.xml:3", "it is not XML: no element found; skipped"),
        ("Annotations/3.xml", "its root tag is <svg>; expected <annotation>; skipped"),
        (
            "Annotations/5.xml:2",
            "it is not XML: not well-formed (invalid token); skipped. It is not UTF-8: save it as UTF-8, or "
            "declare its encoding in the first line",
        ),
        ("Annotations/7.xml", "it is longer than 2,000 bytes; skipped"),
        ("Annotations/8.xml", "unknown encoding: nonsense; skipped"),
    ]


def test_difficult_objects_are_used_and_counted(tmp_path: Path) -> None:
    objects = [("cat", 1, 2, 3, 4), ("cat", 2, 3, 4, 5)]
    text = voc_xml("1.jpg", *objects, extra="<difficult>1</difficult>")
    source = read(write_files(tmp_path, {"Annotations/1.xml": text, "JPEGImages/1.jpg": ""}))
    assert source.splits["all"].images[0].keys == ("cat", "cat")
    assert told(source)[1] == ("warning", "difficult objects", "all", "Annotations/1.xml:4")
    assert source.findings[1].text == "2 objects are marked difficult, and used like all others"


@pytest.mark.parametrize(
    "size", ["", "<size><width>a</width><height>4</height></size>", "<size><width>5</width></size>"]
)
def test_no_size(tmp_path: Path, size: str) -> None:
    text = f"<annotation><filename>1.jpg</filename>{size}</annotation>"
    source = read(write_files(tmp_path, {"Annotations/1.xml": text, "JPEGImages/1.jpg": ""}))
    image = source.splits["all"].images[0]
    assert (image.size, image.boxes.shape, image.keys, image.crowd.shape) == (None, (0, 4), (), (0,))
    assert not source.findings


def test_no_text_of_an_xml_outside_is_quoted(tmp_path: Path) -> None:
    secret = voc_xml("password-1.jpg", ("cat", "password-2", 1, 2, 3))
    write_files(tmp_path, {"secret.xml": secret, "secret": "<password-3/>", "data/JPEGImages/1.jpg": ""})
    (tmp_path / "data/Annotations").mkdir()
    (tmp_path / "data/Annotations/1.xml").symlink_to(tmp_path / "secret.xml")
    (tmp_path / "data/Annotations/2.xml").symlink_to(tmp_path / "secret")
    source = read(tmp_path / "data")
    assert told(source) == [
        ("error", "unreadable boxes", "all", "Annotations/1.xml:8"),
        ("error", "unreadable xml files", "all", "Annotations/2.xml"),
    ]
    assert not any("password" in finding.text for finding in source.findings)


def test_names_that_are_written_in_several_ways_are_one_class(tmp_path: Path) -> None:
    objects = [(name, 1, 2, 3, 4) for name in ("caf\u00e9", "cafe\u0301", " caf\u00e9 ", "caf\u00e9\n")]
    source = read(write_files(tmp_path, {"Annotations/1.xml": voc_xml("1.jpg", *objects), "JPEGImages/1.jpg": ""}))
    assert source.splits["all"].images[0].keys == ("caf\u00e9",) * 4
    assert source.names == {"caf\u00e9": "caf\u00e9"}


def test_folder_and_path_are_never_used(tmp_path: Path) -> None:
    text = voc_xml("1.jpg", ("cat", 1, 1, 2, 2)).replace(
        "<filename>", "<folder>elsewhere</folder><path>/etc/passwd</path><filename>"
    )
    source = read(write_files(tmp_path, {"Annotations/1.xml": text, "JPEGImages/1.jpg": ""}))
    assert names(source) == {"all": ["JPEGImages/1.jpg"]}


@NEEDS_BCCD
def test_blood_cells() -> None:
    source = read(BCCD)
    found = {
        split: (len(part.images), Counter(key for image in part.images for key in image.keys))
        for split, part in source.splits.items()
    }
    assert found == {
        "train": (205, {"RBC": 2382, "WBC": 214, "Platelets": 209}),
        "val": (87, {"RBC": 968, "WBC": 87, "Platelets": 83}),
        "test": (72, {"RBC": 805, "WBC": 71, "Platelets": 69}),
    }
    assert list(source.names) == ["Platelets", "RBC", "WBC"]
    assert told(source) == [("note", "coordinates", "", "")]
    images = {image.name: image for part in source.splits.values() for image in part.images}
    assert {image.size for image in images.values()} == {(480, 640)}
    boxes = np.concatenate([image.boxes for image in images.values()])
    assert (boxes.min(axis=0)[:2].tolist(), boxes.max(axis=0)[2:].tolist()) == ([0, 0], [640, 480])
    flat = [
        (image.file, image.lines[row], image.boxes[row].tolist())
        for image in images.values()
        for row in np.flatnonzero((image.boxes[:, 2:] <= image.boxes[:, :2]).any(axis=1))
    ]
    assert sorted(flat) == [
        ("Annotations/BloodImage_00338.xml", 158, [504, 337, 504, 337]),
        ("Annotations/BloodImage_00343.xml", 50, [181, 329, 181, 329]),
    ]


def by_name(dataset: Any) -> dict[str, tuple[list[str], Any]]:
    """Return names of classes and boxes by the name of an image, of a data set of supervision."""
    return {
        Path(path).name: ([dataset.classes[key] for key in found.class_id], found.xyxy)
        for path, found in dataset.annotations.items()
    }


@NEEDS_BCCD
def test_supervision_reads_the_same_of_blood_cells() -> None:
    """But for the two boxes whose ends are equal: it takes them for one pixel."""
    supervision = import_supervision()
    theirs = by_name(supervision.DetectionDataset.from_pascal_voc(str(BCCD / "JPEGImages"), str(BCCD / "Annotations")))
    source = read(BCCD)
    images = [image for split in source.splits.values() for image in split.images]
    assert len(theirs) == len(images) == 364
    differ = []
    for image in images:
        labels, boxes = theirs[Path(image.name).name]
        assert labels == list(image.keys)
        differ += [(image.file, row) for row in np.flatnonzero((boxes != image.boxes).any(axis=1))]
    assert sorted(differ) == [("Annotations/BloodImage_00338.xml", 12), ("Annotations/BloodImage_00343.xml", 3)]
