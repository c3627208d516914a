import json

from zoo.tasks.detection.annotations import Finding
from zoo.tasks.detection.report import BoxReport, SplitCounts


def finding(kind: str, level: str, number: int) -> Finding:
    return Finding(kind, level, "train", f"{number}.xml", number, f"text {number}")  # type: ignore[arg-type]


FOUND = (
    finding("bad lines", "error", 1),
    *(finding("boxes without area", "warning", number) for number in range(2, 7)),
    finding("bad lines", "error", 7),
    Finding("coordinates", "note", "", "", None, "from 1"),
    Finding("missing", "error", "val", "gone.jpg", None, "not there"),
)
REPORT = BoxReport(
    "/data",
    "YOLO",
    ("cat", "dog"),
    ((0, "cat"), (5, "dog")),
    {"train": SplitCounts(1200, (2345, 7), (1100, 3)), "val": SplitCounts(10, (0, 1), (0, 1))},
    FOUND,
)


def test_a_row_for_each_class_and_one_for_all() -> None:
    assert REPORT.rows() == [
        {"class": "cat", "train boxes": "2,345", "val boxes": "0", "train images": "1,100", "val images": "0"},
        {"class": "dog", "train boxes": "7", "val boxes": "1", "train images": "3", "val images": "1"},
    ]
    total = {"class": "all", "train boxes": "2,352", "val boxes": "1", "train images": "1,200", "val images": "10"}
    assert REPORT.totals() == total


def test_findings_are_grouped_with_errors_first_and_places_named_once() -> None:
    groups = REPORT.groups()
    assert [(group.level, group.kind, len(group.findings)) for group in groups] == [
        ("error", "bad lines", 2),
        ("error", "missing", 1),
        ("warning", "boxes without area", 5),
        ("note", "coordinates", 1),
    ]
    assert groups[2].places == "2.xml:2, 3.xml:3, 4.xml:4, ..."
    assert len(REPORT.errors) == 3
    found = [Finding("bad boxes", "error", "train", "a.json", 1, f"text {number}") for number in range(5)]
    found.append(Finding("bad boxes", "error", "val", "b.json", 1, "text"))
    report = BoxReport("/data", "COCO", (), (), {}, tuple(found))
    assert report.summary() == ["error: bad boxes: 6 (a.json:1, b.json:1). The first: text 0"]


def test_a_line_says_where_and_what() -> None:
    assert REPORT.summary() == [
        "error: bad lines: 2 (1.xml:1, 7.xml:7). The first: text 1",
        "error: missing: gone.jpg: not there",
        "warning: boxes without area: 5 (2.xml:2, 3.xml:3, 4.xml:4, ...). The first: text 2",
        "note: coordinates: from 1",
    ]


def test_plain_values_survive_json() -> None:
    values = REPORT.to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["class_map"] == [[0, "cat"], [5, "dog"]]
    assert values["splits"]["train"] == {
        "images": 1200,
        "boxes": {"cat": 2345, "dog": 7},
        "images_with": {"cat": 1100, "dog": 3},
    }
    assert len(values["findings"]) == len(FOUND)
    assert values["findings"][0] == {
        "kind": "bad lines", "level": "error", "split": "train", "file": "1.xml", "line": 1, "text": "text 1"
    }  # fmt: skip
