from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import zoo.tasks.detection.check as module
from image_files import make_image, write_image
from zoo.errors import InputError
from zoo.tasks.detection.annotations import Annotated, BoxSource, BoxSplit, Finding, no_boxes
from zoo.tasks.detection.check import check_boxes
from zoo.tasks.detection.report import BoxReport

MAP = (("cat", "cat"), ("dog", "dog"))
NAMES = ("cat", "dog")


def note(name: str, *boxes: Sequence[Any], **more: Any) -> Annotated:
    """Annotations of an image; each box is a class and four numbers, and stands in lines 10, 20, 30 ..."""
    table = np.array([box[1:5] for box in boxes], np.float64).reshape(-1, 4) if boxes else no_boxes()
    crowd = np.array([len(box) > 5 for box in boxes], bool)
    lines = tuple(range(10, 10 * len(boxes) + 10, 10))
    return Annotated(name, table, tuple(box[0] for box in boxes), lines, crowd, **more)


def split(name: str, images: list[Annotated], pictures: list[Any]) -> BoxSplit:
    return BoxSplit(name, pictures.__getitem__, tuple(images))


def check(*splits: BoxSplit, findings: tuple[Finding, ...] = (), **options: Any) -> tuple[Any, BoxReport]:
    source = BoxSource("here", "test", {part.name: part for part in splits}, dict(MAP), findings)
    return check_boxes(source, MAP, NAMES, **options)


def check_one(*boxes: Sequence[Any], size: tuple[int, int] = (100, 80), **more: Any) -> tuple[Any, BoxReport]:
    """Check boxes in one image of 100 x 80 pixels."""
    images, report = check(split("train", [note("one.jpg", *boxes, **more)], [make_image(size)]))
    return images["train"].boxes[0], report


def kinds(report: BoxReport) -> list[tuple[str, str, str]]:
    """What was found, but for classes without a box."""
    return [(f.kind, f.place, f.level) for f in report.findings if f.kind != "classes without a box"]


def texts(report: BoxReport, kind: str) -> list[str]:
    return [finding.text for finding in report.findings if finding.kind == kind]


def scene(seed: int) -> Image.Image:
    return make_image((6, 5), seed).resize((90, 70), Image.Resampling.BICUBIC)


def test_good_boxes_stay_as_they_are() -> None:
    boxes, report = check_one(("dog", 0, 0, 100, 80), ("cat", 1.5, 2, 50.25, 60))
    assert boxes.xyxy.tolist() == [[0, 0, 100, 80], [1.5, 2, 50.25, 60]]
    assert (boxes.xyxy.dtype, boxes.labels.dtype, boxes.crowd.dtype) == (np.float32, np.int64, np.bool_)
    assert boxes.labels.tolist() == [1, 0]
    assert report.findings == ()
    assert report.splits["train"].boxes == (1, 1)
    boxes, report = check_one(("cat", 0.1, 0.25, 0.5, 1.000001), is_relative=True)
    assert boxes.xyxy.tolist() == [pytest.approx([10, 20, 50, 80])]
    assert kinds(report) == []  # a rounding error is not worth a word


def test_boxes_without_area_are_left_out() -> None:
    boxes, report = check_one(
        ("cat", 5, 5, 5, 5),
        ("cat", 10, 10, 40, 40),
        ("dog", 30, 10, 30, 40),
        ("dog", 7, 7, 8, 60),
        file="one.xml",
    )
    assert boxes.xyxy.tolist() == [[10, 10, 40, 40]]
    assert kinds(report) == [("boxes without area", f"one.xml:{line}", "warning") for line in (10, 30, 40)]
    assert texts(report, "boxes without area")[1] == "'dog' at x 30 to 30, y 10 to 40; skipped"


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_an_image_whose_annotations_are_not_all_known_is_not_used(name: str) -> None:
    images = [note("a.jpg", ("cat", 10, 10, 40, 40)), note("b.jpg", ("cat", 10, 10, 40, 40), lost=2), note("c.jpg")]
    pictures = [scene(seed) for seed in range(3)]
    used, report = check(split(name, images, pictures))
    assert used[name].names == ("a.jpg", "c.jpg")  # what the file itself says has nothing in it stays
    assert used[name].positions == (0, 2)
    assert (report.splits[name].images, report.splits[name].boxes) == (2, (1, 0))
    assert texts(report, "images with invalid annotations") == [
        "2 of its 3 annotations are invalid; the image is skipped"
    ]


@pytest.mark.parametrize("box", [("dog", 30, 10, 20, 40), ("dog", 10, 40, 20, 39.5)])
@pytest.mark.parametrize("is_relative", [False, True])
def test_a_negative_width_or_height_is_an_error_and_its_image_not_used(box: Any, is_relative: bool) -> None:
    scale = 100 if is_relative else 1
    shares = [(key, *(side / scale for side in sides)) for key, *sides in (("cat", 10, 10, 40, 40), box)]
    images, report = check(
        split("train", [note("one.jpg", *shares, file="one.xml", is_relative=is_relative)], [make_image((100, 100))])
    )
    assert len(images["train"]) == 0
    assert kinds(report) == [
        ("boxes with negative width or height", "one.xml:20", "error"),
        ("images with invalid annotations", "one.jpg", "warning"),
    ]
    sides = f"'dog' at x {box[1]:g} to {box[3]:g}, y {box[2]:g} to {box[4]:g}"
    assert report.findings[0].text == f"{sides}; expected a width and a height of 0 or more"


def test_an_image_of_which_no_box_can_be_used_is_no_image_without_boxes() -> None:
    for boxes in ([("cat", 200, 200, 300, 300)], [("cat", 5, 5, 5, 9), ("dog", 0, 0, 0.5, 0.5)]):
        images, report = check(split("train", [note("one.jpg", *boxes)], [make_image((100, 80))]))
        assert len(images["train"]) == 0
        assert texts(report, "images without a valid box") == [
            "all its boxes are invalid; the image is skipped, since it would be trained as an empty image"
        ]
        assert not texts(report, "images without boxes")


def test_boxes_outside_are_left_out_and_those_partly_outside_clipped() -> None:
    boxes, report = check_one(
        ("cat", 120, 10, 150, 40),
        ("cat", -20, 10, 30, 90),
        ("cat", 99.5, 10, 150, 40),
        ("cat", 0, 0, 100.5, 80.4),
        ("cat", 50, 20, 101, 40),
        file="one.json",
    )
    assert boxes.xyxy.tolist() == [[0, 10, 30, 80], [0, 0, 100, 80], [50, 20, 100, 40]]
    assert kinds(report) == [
        ("boxes outside the image", "one.json:10", "warning"),
        ("boxes partly outside the image", "one.json:20", "warning"),
        ("boxes outside the image", "one.json:30", "warning"),
        ("boxes partly outside the image", "one.json:50", "warning"),
    ]
    text = "'cat' at x -20 to 30, y 10 to 90, in an image of 100 x 80 pixels; clipped to it"
    assert texts(report, "boxes partly outside the image")[0] == text


def test_boxes_that_are_there_twice() -> None:
    boxes, report = check_one(
        ("cat", 10, 10, 50, 50),
        ("dog", 10, 10, 50, 50),
        ("cat", 10, 10, 50, 50),
        ("cat", 12, 10, 52, 50),  # IoU 38 / 42 with the first
        ("dog", 60, 10, 90, 50),
        ("dog", 65, 10, 95, 50),  # IoU 25 / 35
        ("cat", 11, 10, 51, 50, "crowd"),
    )
    assert boxes.labels.tolist() == [0, 1, 0, 1, 1, 0]
    assert kinds(report) == [
        ("identical boxes of different classes", "one.jpg:20", "warning"),
        ("duplicate boxes", "one.jpg:30", "warning"),
        ("near-duplicate boxes", "one.jpg:40", "warning"),
    ]
    assert texts(report, "near-duplicate boxes") == [
        "'cat' at x 12 to 52, y 10 to 50, overlaps the one on line 10 with an IoU of 0.90; both are kept"
    ]
    assert texts(report, "identical boxes of different classes") == [
        "'dog' at x 10 to 50, y 10 to 50, identical to a 'cat' box; both are kept"
    ]


def test_many_boxes_on_one_thing_are_told_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    same = [("cat", 10, 10, 50, 50 + i / 100) for i in range(9)]
    boxes, report = check_one(*same, ("dog", 10, 10, 50, 50))
    found = texts(report, "near-duplicate boxes")
    assert len(found) == 8
    assert len(boxes.labels) == 10
    monkeypatch.setattr(module, "BOXES_AT_A_TIME", 2)
    assert texts(check_one(*same)[1], "near-duplicate boxes") == found


def test_a_image_of_another_size_than_stated() -> None:
    assert kinds(check_one(("cat", 0, 0, 9, 9), size=(100, 80))[1]) == []
    for stated in ((80, 100), (100, 80), (8, 10)):
        image = note("one.jpg", ("cat", 0, 0, 9, 9), size=stated)
        _, report = check(split("train", [image], [make_image((100, 80))]))
        found = texts(report, "images with a different size than annotated")
        assert len(found) == (stated != (80, 100))
        assert not any("EXIF" in text for text in found)  # the file says nothing of the kind
    assert found == ["the annotation says 10 x 8 pixels, the image has 100 x 80; check whether the boxes fit"]


@pytest.mark.parametrize("decode", [True, False])
def test_images_that_are_turned(tmp_path: Path, decode: bool) -> None:
    """Only a stated size proves in which of the two frames the boxes are."""
    path = str(write_turned(tmp_path / "turned.jpg"))  # 80 x 100 pixels when upright
    said = {}
    for name, stated in (("raw", (80, 100)), ("upright", (100, 80)), ("unknown", None), ("other", (9, 9))):
        image = note("one.jpg", ("cat", 0, 0, 9, 9), size=stated)
        _, report = check(split("train", [image], [path]), check=decode)
        said[name] = [(f.level, f.text) for f in report.findings if f.kind != "classes without a box"]
    start = "the annotation says"
    turned = "because of its EXIF orientation; check whether the boxes are rotated too"
    assert said == {
        "raw": [("warning", f"{start} 100 x 80 pixels, the image has 80 x 100 {turned}")],
        "upright": [],
        "unknown": [("note", "it has EXIF orientation 6; boxes are assumed to refer to the rotated image")],
        "other": [("warning", f"{start} 9 x 9 pixels, the image has 80 x 100; check whether the boxes fit")],
    }
    assert not kinds(check(split("train", [note("one.jpg")], [path]))[1])[0][0].startswith("images with an EXIF")


def test_images_that_are_almost_black(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 4096, (20, 30)).astype(np.uint16)  # 12 bits in a file of 16
    Image.fromarray(deep).save(tmp_path / "deep.png")
    images = [
        str(tmp_path / "deep.png"),
        Image.new("RGB", (30, 20), (0, 3, 0)),
        Image.new("RGB", (30, 20), (0, 0, 90)),
    ]
    notes = [note(name, ("cat", 0, 0, 9, 9)) for name in ("deep", "dark", "good")]
    told = [(f.place, f.text) for f in check(split("train", notes, images))[1].findings if "black" in f.kind]
    assert [place for place, _ in told] == ["deep", "dark"]
    assert (
        "of 65,535, which is read as 16 of 255: almost black. If its values have 12 bits, multiply them" in told[0][1]
    )
    assert told[1][1] == "its brightest value is 3 of 255"


@pytest.mark.parametrize(
    "boxes",
    [
        [("cat", 0.1, 0.2, 0.5, 0.9)],
        [("cat", 0.1, 0.2, 0.5, 0.9), ("dog", 0, 0, 1, 1), ("dog", 0.5, 0.5, 0.5, 0.5)],
        [("cat", 0.5, 0.5, 1.5, 1.5)],  # centre, width and height read as a corner
    ],
)
def test_boxes_in_shares_of_the_sides_are_an_error(boxes: Any) -> None:
    images, report = check(split("train", [note("one.jpg", *boxes, file="a.json")], [make_image((100, 80))]))
    assert len(images["train"]) == 0
    assert kinds(report) == [
        ("boxes in relative coordinates", "a.json:10", "error"),
        ("images with invalid annotations", "one.jpg", "warning"),
    ]
    end = "; all boxes of the image seem to be relative (0 to 1); expected pixels"
    assert report.errors[0].text.endswith(end)


def test_a_speck_beside_other_boxes_is_no_share() -> None:
    boxes, report = check_one(("cat", 0, 0, 0.6, 0.6), ("dog", 10, 10, 40, 40))
    assert boxes.labels.tolist() == [1]
    assert kinds(report) == [("boxes without area", "one.jpg:10", "warning")]


def test_more_boxes_than_a_detector_returns() -> None:
    boxes = [("cat", x, y, x + 2, y + 2) for x in range(0, 60, 3) for y in range(0, 48, 3)]
    found = [f for f in check_one(*boxes, size=(64, 64))[1].findings if f.kind == "images with very many boxes"]
    assert [(f.level, f.text) for f in found] == [
        ("note", "320 boxes; detectors return at most 300 per image, so some cannot be detected")
    ]
    boxes, report = check_one()
    assert boxes.xyxy.shape == (0, 4)
    assert texts(report, "images without boxes") == ["it has no boxes; it is trained as an empty image"]


def test_boxes_of_one_line_are_told_apart_by_what_the_file_calls_them() -> None:
    ids = ("annotation 7", "annotation 8", "annotation 'x'")
    boxes = (("cat", 5, 5, 5, 9), ("cat", 10, 10, 50, 50), ("cat", 11, 10, 50, 50))
    _, report = check_one(*boxes, file="a.json", ids=ids)
    assert texts(report, "boxes without area") == ["'cat' at x 5 to 5, y 5 to 9 (annotation 7 of one.jpg); skipped"]
    assert texts(report, "near-duplicate boxes") == [
        "'cat' at x 11 to 50, y 10 to 50 (annotation 'x' of one.jpg), overlaps the one, annotation 8, with an IoU of "
        "0.97; both are kept"
    ]


def write_turned(path: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6
    make_image((100, 80)).save(path, exif=exif)
    return path


@pytest.mark.parametrize("decode", [True, False])
def test_sizes_are_those_of_the_upright_image(tmp_path: Path, decode: bool) -> None:
    pictures = [str(write_turned(tmp_path / "turned.jpg")), str(write_image(tmp_path / "plain.png", (30, 20)))]
    pictures += [np.zeros((11, 12, 3), np.uint8), Path(pictures[1]).read_bytes()]  # type: ignore[list-item]
    notes = [note(f"{i}", ("cat", 0, 0, 9, 9)) for i in range(4)]
    images, _ = check(split("train", notes, pictures), check=decode)
    assert images["train"].sizes == ((100, 80), (20, 30), (11, 12), (20, 30))


@pytest.mark.parametrize("decode", [True, False])
def test_images_that_cannot_be_read_are_left_out(tmp_path: Path, decode: bool) -> None:
    good = str(write_image(tmp_path / "good.png"))
    (tmp_path / "text.jpg").write_text("buy milk")
    (tmp_path / "empty.jpg").touch()
    bad = [str(tmp_path / name) for name in ("text.jpg", "empty.jpg", "missing.jpg")]

    def refuse(position: int, /) -> Any:
        if position == 5:
            raise InputError("the row is broken")
        return [*bad, good, good][position]

    notes = [note(f"{i}.jpg", ("cat", 0, 0, 9 - i, 7)) for i in range(6)]
    images, report = check(BoxSplit("train", refuse, tuple(notes), in_threads=True), check=decode)
    assert images["train"].names == ("3.jpg", "4.jpg")
    assert images["train"].positions == (3, 4)
    assert [boxes.xyxy[0, 2] for boxes in images["train"].boxes] == [6, 5]
    assert images["train"].read(0)[0].size == (9, 7)
    assert [(error.kind, error.place, error.text) for error in report.errors] == [
        ("unreadable images", place, f"{reason}; the image is skipped")
        for place, reason in (
            ("0.jpg", "not an image; expected JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, JPEG 2000 or AVIF"),
            ("1.jpg", "empty file (0 bytes)"),
            ("2.jpg", "the file does not exist"),
            ("5.jpg", "the row is broken"),
        )
    ]


def test_a_cut_off_image_is_found_by_decoding_alone(tmp_path: Path) -> None:
    path = write_image(tmp_path / "cut.jpg", (60, 60))
    path.write_bytes(path.read_bytes()[:2000])
    part = split("train", [note("cut.jpg", ("cat", 0, 0, 9, 9))], [str(path)])
    assert [error.place for error in check(part)[1].errors] == ["cut.jpg"]
    assert check(part, check=False)[1].errors == ()


@pytest.mark.parametrize("in_threads", [True, False])
def test_progress_and_order(in_threads: bool) -> None:
    seen: list[tuple[int, int]] = []
    pictures = [make_image((20 + i, 20)) for i in range(50)]
    notes = [note(f"{i}", ("cat", 0, 0, 9, 9)) for i in range(50)]
    parts = [BoxSplit(name, pictures.__getitem__, tuple(notes), in_threads) for name in ("train", "val")]
    images, _ = check(*parts, on_progress=lambda done, total: seen.append((done, total)))
    assert images["val"].sizes == tuple((20, 20 + i) for i in range(50))
    assert seen == [(count, 100) for count in (16, 32, 48, 50, 66, 82, 98, 100)]


def test_classes_without_a_box_are_told_for_each_split() -> None:
    _, report = check(
        split("train", [note("a", ("cat", 0, 0, 9, 9), ("dog", 0, 0, 9, 8, "crowd"))], [scene(0)]),
        split("val", [note("b", ("dog", 0, 0, 9, 9))], [scene(1)]),
    )
    assert texts(report, "classes without a box") == [
        "'dog' has no box in train; the class cannot be trained",
        "'cat' has no box in val; the class cannot be evaluated",
    ]
    assert report.splits["train"].boxes == (1, 0)
    assert report.splits["train"].images_with == (1, 0)


def test_the_same_image_in_two_splits(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1), ("c", 2)):
        scene(seed).save(tmp_path / f"{name}.png")
    (tmp_path / "again.png").write_bytes((tmp_path / "a.png").read_bytes())
    scene(1).resize((80, 60)).save(tmp_path / "smaller.png")

    def part(name: str, *files: str) -> BoxSplit:
        notes = [note(f"{name}/{file}.png", ("cat", 0, 0, 9, 9), ("dog", 20, 20, 40, 40)) for file in files]
        return split(name, notes, [str(tmp_path / f"{file}.png") for file in files])

    train, val = part("train", "a", "b", "c", "c"), part("val", "again", "smaller")
    _, report = check(train, val)
    assert [(f.kind, f.split, f.place, f.text) for f in report.findings] == [
        ("duplicate images", "train", "train/c.png", "it is identical to train/c.png"),
        (
            "duplicate images in two splits",
            "val",
            "val/again.png",
            "it is identical to train/a.png in train, which inflates the score",
        ),
        (
            "near-duplicate images in two splits",
            "val",
            "val/smaller.png",
            report.findings[-1].text,
        ),
    ]
    assert report.findings[-1].text.startswith("it looks like train/b.png of train (")
    assert check(train, val, check=False)[1].findings == ()
    _, alone = check(part("all", "a", "b", "smaller", "c"))
    assert [(f.kind, f.place) for f in alone.findings] == [("near-duplicate images", "all/smaller.png")]
    assert alone.findings[0].text.startswith("it looks like all/b.png (")


def test_objects_that_are_no_files_are_compared_by_their_pixels() -> None:
    array = np.asarray(scene(3))
    _, report = check(
        split("train", [note("a", ("cat", 0, 0, 9, 9))], [array]),
        split("val", [note("b", ("cat", 0, 0, 9, 9))], [Image.fromarray(array)]),
    )
    assert texts(report, "duplicate images in two splits") == [
        "it is identical to a in train, which inflates the score"
    ]


def crowded(count: int, without: int, empty: int = 0) -> BoxSplit:
    """Images that all have a dog, and all but some a cat."""
    both = ("cat", 0, 0, 9, 9), ("dog", 20, 20, 40, 40)
    notes = [note(f"{i}", *(both[1:] if i < without else both)) for i in range(count - empty)]
    notes += [note(f"empty {i}") for i in range(empty)]
    return split("train", notes, [make_image((50, 50))] * count)


def test_a_class_that_nearly_all_images_have() -> None:
    def found(*counts: int) -> list[tuple[str, str]]:
        report = check(crowded(*counts), check=False)[1]
        return [(f.level, f.place) for f in report.findings if f.kind == "images without 'cat' boxes"]

    assert found(40, 2) == [("note", "0"), ("note", "1")]
    assert found(40, 3) == []  # 92.5 %
    assert found(19, 1) == []  # too few to tell
    assert found(20, 1) == [("note", "0")]
    assert found(45, 2, 5) == [("note", "0"), ("note", "1")]  # without any box is told by itself
    report = check(crowded(40, 2), check=False)[1]
    text = "it has no 'cat' box, unlike 95% of the images: possibly a missing label"
    assert texts(report, "images without 'cat' boxes") == [text, text]
    assert texts(report, "images without 'dog' boxes") == []


def test_many_boxes_outside_put_the_unit_in_doubt() -> None:
    inside = [("cat", 5 * i, 0, 5 * i + 4, 9) for i in range(15)]
    outside = [("cat", 50, 0, 110 + i, 9 + i) for i in range(9)]
    assert texts(check_one(*inside, *outside)[1], "boxes in doubtful coordinates") == []
    (text,) = texts(check_one(*inside, *outside, ("cat", 200, 200, 300, 300))[1], "boxes in doubtful coordinates")
    assert text.startswith("40% of all boxes extend beyond their images; perhaps they use other coordinates")


def test_findings_of_the_reader_are_kept_and_errors_come_first() -> None:
    found = (
        Finding("coordinates", "note", "", "", None, "from 1"),
        Finding("broken lines", "error", "train", "a.txt", 3, "4 columns"),
    )
    part = split("train", [note("a", ("cat", 0, 0, 99, 9))], [make_image((50, 50))])
    _, report = check(part, findings=found)
    assert [finding.level for finding in report.findings] == ["error", "warning", "warning", "note"]
    assert report.errors == found[1:]
