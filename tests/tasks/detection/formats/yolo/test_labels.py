import numpy as np
import pytest

from zoo.tasks.detection.formats._files import Findings
from zoo.tasks.detection.formats.yolo.labels import is_label_line, parse_labels


def parse(
    text: str, keys: list[int] | None = None, *, pose: bool = False
) -> tuple[list[tuple[int, list[float]]], list]:
    findings = Findings()
    labels = parse_labels(text, keys, findings, pose=pose)
    boxes = [(label.key, np.round(label.box, 9).tolist()) for label in labels]
    return boxes, [(finding.level, finding.kind, finding.line, finding.text) for finding in findings.found]


def test_boxes_become_corners() -> None:
    boxes, found = parse("0 0.5 0.5 1 1\n\n 2\t.25 0.5  .1 2e-1 \r\n1.0 0.9 0.9 0.4 0.4")
    assert boxes == [(0, [0, 0, 1, 1]), (2, [0.2, 0.4, 0.3, 0.6]), (1, [0.7, 0.7, 1.1, 1.1])]
    assert not found
    assert [label.line for label in parse_labels("0 .5 .5 1 1\n\n0 .5 .5 1 1\r0 .5 .5 1 1", None, Findings())] == [
        1,
        3,
        4,
    ]
    boxes, found = parse("0 0.5 0.5 0 0.2\n0 0.5 0.5 -0.2 0.2\n0 1.5 -0.5 0.1 0.1")
    assert boxes == [(0, [0.5, 0.4, 0.5, 0.6]), (0, [0.6, 0.4, 0.4, 0.6]), (0, [1.45, -0.55, 1.55, -0.45])]
    assert not found
    boxes, found = parse("900 0.5 0.5 1 1\n-1 0.5 0.5 1 1")
    assert boxes == [(900, [0, 0, 1, 1])]
    assert found[0][3] == "class '-1'; expected 0 or more. The line is skipped"


@pytest.mark.parametrize("text", ["", "\n", " \r\n \n"])
def test_an_empty_file_has_no_boxes(text: str) -> None:
    assert parse(text) == ([], [])


COUNT, READ, CLASS = (
    "label lines with the wrong number of columns",
    "unreadable label lines",
    "class numbers out of range",
)


@pytest.mark.parametrize(
    ("line", "kind", "text"),
    [
        ("0 0.5 0.5 0.2", COUNT, "4 columns in '0 0.5 0.5 0.2'; expected 5, class cx cy w h"),
        ("0,0.5,0.5,0.2,0.2", COUNT, "1 column in '0,0.5,0.5,0.2,0.2'; expected 5, class cx cy w h"),
        ("0 0.5 0.5 0.2 0.2 0.97", COUNT, "6 columns in '0 0.5 0.5 0.2 0.2 0.97'; expected 5, class cx cy w h"),
        ("cat 0.5 0.5 0.2 0.2", READ, "'cat' is not a number; expected class cx cy w h"),
        ("0 0.5 0.5 wide 0.2", READ, "'wide' is not a number; expected class cx cy w h"),
        ("0 0.5 nan 0.2 0.2", READ, "'nan' is not a number; expected class cx cy w h"),
        ("0 0.5 0.5 inf 0.2", READ, "'inf' is not a number; expected class cx cy w h"),
        ("0.5 0.5 0.5 0.2 0.2", READ, "class 0.5 is not a whole number"),
        ("3 0.5 0.5 0.2 0.2", CLASS, "class '3'; expected one of the 3 named classes"),
        ("-1 0.5 0.5 0.2 0.2", CLASS, "class '-1'; expected one of the 3 named classes"),
        ("1e300 0.5 0.5 0.2 0.2", CLASS, "class '1e300'; expected one of the 3 named classes"),
        (
            "1 320 240 100 80",
            "boxes not in relative coordinates",
            "'320 240 100 80' are not between 0 and 1, relative to the image size; perhaps they are pixels",
        ),
    ],
)
def test_bad_lines_are_left_out(line: str, kind: str, text: str) -> None:
    boxes, found = parse(f"1 0.5 0.5 1 1\n{line}\n2 0.5 0.5 1 1", [0, 1, 2])
    assert [key for key, _ in boxes] == [1, 2]
    assert found == [("error", kind, 2, f"{text}. The line is skipped")]


def test_polygons_become_boxes() -> None:
    boxes, found = parse("0 .5 .5 .2 .2\n1 .1 .2 .5 .1 .3 .6\n2 .1 .1 .2 .1 .2 .2 .1 .2\n0 .1 .2 .3 .4 .5 .6 .7\n")
    assert boxes == [(0, [0.4, 0.4, 0.6, 0.6]), (1, [0.1, 0.1, 0.5, 0.6]), (2, [0.1, 0.1, 0.2, 0.2])]
    assert found == [
        (
            "error",
            "label lines with the wrong number of columns",
            4,
            "8 columns in '0 .1 .2 .3 .4 .5 .6 .7'; expected 5, class cx cy w h. The line is skipped",
        ),
        ("warning", "polygons", 2, "2 polygons are read as their bounding boxes"),
    ]


def test_key_points_are_passed_over_and_no_polygon() -> None:
    boxes, found = parse("0 .5 .5 .2 .2 .4 .4 2 .6 .6 2\n0 .5 .5 .2 .2 .4 .4\n", pose=True)
    assert boxes == [(0, [0.4, 0.4, 0.6, 0.6])] * 2
    assert not found
    line = "0 0.5 0.5 0.2 0.2 0.45 0.45 2 0.55 0.5 1.0"
    boxes, found = parse(line)
    assert (boxes, [item[:3] for item in found]) == ([], [("error", "key points not declared in the yaml", 1)])
    assert parse(line, pose=True) == ([(0, [0.4, 0.4, 0.6, 0.6])], [])
    whole = "0 0 0 1 0 1 1 0 1 0 0"  # a polygon, closed
    assert parse(whole)[0] == [(0, [0, 0, 1, 1])]


@pytest.mark.parametrize(
    ("line", "label"),
    [
        ("0 0.5 0.5 0.2 0.2", True),
        ("12 1 2 3 4 5 6", True),
        ("0 0.5 0.5 0.2", False),
        ("0.5 0.5 0.5 0.2 0.2", False),
        ("cat 0.5 0.5 0.2 0.2", False),
        ("images/train/1.jpg", False),
        ("1 2 3 and 4", False),
        ("", False),
    ],
)
def test_lines_that_look_like_labels(line: str, label: bool) -> None:
    assert is_label_line(line) is label
