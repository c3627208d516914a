import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset
from torchvision import tv_tensors

from image_files import make_image
from zoo.errors import DataError, InputError
from zoo.tasks.detection.annotations import BoxSource
from zoo.tasks.detection.formats._datasets import read_box_datasets

BOXES = [[1.0, 2.0, 5.0, 6.5], [0.0, 0.0, 9.0, 7.0]]
IMAGE = make_image()  # 9 x 7 pixels


class Made(Dataset[Any]):
    """Gives what it was made of."""

    def __init__(self, samples: list[Any], classes: list[str] | None = None) -> None:
        self.samples = samples
        if classes:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        if isinstance(self.samples[index], Exception):
            raise self.samples[index]
        return self.samples[index]


def made(*targets: Any, classes: list[str] | None = None) -> Made:
    return Made([(IMAGE, *target) if isinstance(target, tuple) else (IMAGE, target) for target in targets], classes)


def target(boxes: Any = BOXES, labels: Any = (0, 1), **more: Any) -> dict[str, Any]:
    return {"boxes": boxes, "labels": labels, **more}


def only(source: BoxSource, split: str = "all") -> Any:
    (image,) = source.splits[split].images
    return image


@pytest.mark.parametrize(
    "boxes",
    [
        BOXES,
        np.array(BOXES),
        torch.tensor(BOXES),
        torch.tensor(BOXES, dtype=torch.float64, requires_grad=True),
        tv_tensors.BoundingBoxes(BOXES, format="XYXY", canvas_size=(7, 9)),
        tv_tensors.BoundingBoxes([[1, 2, 4, 4.5], [0, 0, 9, 7]], format="XYWH", canvas_size=(7, 9)),
        tv_tensors.BoundingBoxes([[3, 4.25, 4, 4.5], [4.5, 3.5, 9, 7]], format="CXCYWH", canvas_size=(7, 9)),
    ],
    ids=["list", "array", "tensor", "with gradient", "xyxy", "xywh", "cxcywh"],
)
@pytest.mark.parametrize("labels", [[2, 0], np.array([2, 0]), torch.tensor([2, 0])], ids=["list", "array", "tensor"])
def test_boxes_and_labels_of_every_kind(boxes: Any, labels: Any) -> None:
    for sample in (target(boxes, labels), (boxes, labels)):
        source = read_box_datasets(made(sample))
        image = only(source)
        assert np.array_equal(image.boxes, BOXES)
        assert image.boxes.dtype == np.float64
        assert image.keys == (2, 0)
        assert image.name == "data[0]"
        assert image.crowd.tolist() == [False, False]
        assert image.size == ((7, 9) if isinstance(boxes, tv_tensors.BoundingBoxes) else None)
        assert source.names == {0: "0", 2: "2"}  # numbers with a gap are classes of these names
        assert (source.where, source.form, source.findings) == ("data set Made", "data set", ())
        assert source.splits["all"].reader(0) is IMAGE
        assert not source.splits["all"].in_threads


def test_the_callers_boxes_are_not_changed() -> None:
    boxes = tv_tensors.BoundingBoxes([[3.0, 4.0, 4.0, 4.0]], format="CXCYWH", canvas_size=(7, 9))
    read_box_datasets(made(target(boxes, [0])))
    assert boxes.tolist() == [[3, 4, 4, 4]]
    source = read_box_datasets(made(target(iscrowd=torch.tensor([0, 1])), target([], []), {"image_id": 7},
                                    target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))))  # fmt: skip
    assert [image.crowd.tolist() for image in source.splits["all"].images] == [[False, True], [], [], []]
    assert [image.boxes.shape for image in source.splits["all"].images] == [(2, 4), (0, 4), (0, 4), (0, 4)]


@pytest.mark.parametrize("crowd", [["0", "1"], [False, True], [None, True], [0.0, 1.0], np.array([0, 1])])
def test_ways_to_mark_a_crowd(crowd: Any) -> None:
    assert only(read_box_datasets(made(target(iscrowd=crowd)))).crowd.tolist() == [False, True]


def test_class_names_are_one_without_blanks_and_told() -> None:
    named = made(target(labels=[1, 0]), classes=["cat", "dog", "elk"])
    assert read_box_datasets(named).names == {0: "cat", 1: "dog", 2: "elk"}
    assert read_box_datasets(Subset(named, [0])).names == {0: "cat", 1: "dog", 2: "elk"}
    texts = made(target(labels=["dog", "cat"]), classes=["cat", "dog", "elk"])
    assert read_box_datasets(texts).names == {"cat": "cat", "dog": "dog", "elk": "elk"}
    assert read_box_datasets(made(target(labels=["dog", "cat"]))).names == {"cat": "cat", "dog": "dog"}
    assert only(read_box_datasets(made(target(labels=["dog", "cat"])))).keys == ("dog", "cat")
    source = read_box_datasets(made(target(labels=["cat ", "cat"]), target(labels=["cafe\u0301", "caf\u00e9"])))
    assert source.names == {"cat": "cat", "cat ": "cat", "cafe\u0301": "caf\u00e9", "caf\u00e9": "caf\u00e9"}
    assert [(finding.level, finding.kind) for finding in source.findings] == [
        ("warning", "labels with the same name")
    ] * 2
    assert source.findings[1].text == "'cat' and 'cat ' are the same class, 'cat'"
    named = read_box_datasets(made(target(labels=["cat ", "dog"]), classes=["cat", "dog"]))
    assert (named.names["cat "], [image.lost for image in named.splits["all"].images]) == ("cat", [0])
    source = read_box_datasets(made(target(labels=[1, -1]), target(labels=[1, 1])))
    assert source.findings[0].text == "box 1 has the class -1; expected one of 1; skipped"
    gaps = read_box_datasets(made(target(labels=[7, -1]), target(labels=[1, 1])))
    assert gaps.findings[0].text == "box 1 has the class -1; expected one of 1, 7; skipped"


def test_splits() -> None:
    one, two = made(target(labels=[0, 1])), made(target(labels=[0, 2]), target())
    pair = read_box_datasets((one, two))
    assert {name: len(split.images) for name, split in pair.splits.items()} == {"train": 1, "val": 2}
    assert pair.names == {0: "0", 1: "1", 2: "2"}  # of both
    assert [image.name for image in pair.splits["val"].images] == ["val[0]", "val[1]"]
    assert read_box_datasets((one, None)).splits.keys() == {"train"}
    assert read_box_datasets({"validation": two, "Training": one, "extra": one}).splits.keys() == {"val", "train"}
    samples = [(IMAGE, target()), (IMAGE, target())]
    assert len(read_box_datasets(samples).splits["all"].images) == 2  # a data set of two, not two data sets
    assert len(read_box_datasets((samples, samples)).splits["val"].images) == 2
    named = made(target(), classes=["a", "b"])
    assert read_box_datasets((named, two)).names == {0: "a", 1: "b"}
    with pytest.raises(DataError, match="splits have different class lists: train a, b; val b, a"):
        read_box_datasets((named, made(target(), classes=["b", "a"])))
    with pytest.raises(DataError, match="has the splits first, second; expected train, and val"):
        read_box_datasets({"first": one, "second": two})
    with pytest.raises(DataError, match="several splits for val: val, valid"):
        read_box_datasets({"val": one, "valid": two})
    with pytest.raises(DataError, match=r"\(None, None\)"):
        read_box_datasets((None, None))


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (("here", "there"), "train is the path 'here'; expected a data set"),
        (DataLoader(made(target())), "is a loader or stream .*Pass loader.dataset"),
        (Stream(), "of type Stream; expected a folder, or a data set"),
        (7, "the data is of type int; expected a folder"),
        ([], "the data has no samples"),
    ],
)
def test_what_is_no_data_set(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_box_datasets(source)


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (target(labels=[0]), "2 boxes and 1 labels; expected a label for each"),
        (target(labels=[0.5, 1.0]), "the label 0.5; expected class numbers or names"),
        (target(labels=[True, False]), "the label True"),
        (target(labels=0), "labels are of type int; expected one class"),
        (target(labels="ab"), "labels are of type str"),
        (target([[1, 2, 3]], [0]), r"boxes have shape \(1, 3\); expected \(N, 4\)"),
        (target([1, 2, 3, 4], [0]), r"boxes have shape \(4,\)"),
        (target([["a", 2, 3, 4]], [0]), "boxes are not numeric"),
        (target([[1, 2], [3]], [0, 1]), "boxes are not numeric"),
        (target(iscrowd=[0]), "2 boxes and 1 crowd flags; expected"),
        (
            target(iscrowd=[0, 2]),
            r"it has the crowd flag 2; expected 0 or 1",
        ),
        (
            target(iscrowd=[[0], [1, 1]]),
            r"it has the crowd flag \[0\]",
        ),
        (
            target(iscrowd="01"),
            r"it has the crowd flag '01'",
        ),
        (target(torch.tensor(BOXES, dtype=torch.bfloat16)), r"a tensor that cannot be read \(.*\); expected float32"),
        (target([[10**400, 0, 1, 1]], [0]), "boxes are not numeric"),
        ({"boxes": BOXES}, r"target is a mapping with the keys boxes; expected \(image, "),
        ([{"bbox": [1, 2, 3, 4]}], r"target is a list of 1; .*wrap_dataset_for_transforms_v2"),
        (3, r"target is of type int; expected \(image, "),
        ((BOXES, [0, 1], 3), "it is a tuple of 4; expected"),
    ],
)
def test_a_sample_that_cannot_be_read_is_an_error_of_its_own(sample: Any, reason: str) -> None:
    source = read_box_datasets(made(target(), sample, target([], [])))
    assert [image.name for image in source.splits["all"].images] == ["data[0]", "data[2]"]
    (finding,) = source.findings
    assert (finding.kind, finding.level, finding.place) == ("unreadable samples", "error", "data[1]")
    assert finding.text.endswith("; the sample is skipped")
    with pytest.raises(DataError, match=f"no sample of the data is usable. The first one, data.0.: .*{reason}"):
        read_box_datasets(made(sample))


def test_images_are_taken_from_the_samples_that_are_left() -> None:
    images = [make_image(seed=seed) for seed in range(3)]
    samples: list[Any] = [(image, target()) for image in images]
    samples[1] = OSError("the disk is gone")
    source = read_box_datasets(Made(samples))
    assert source.findings[0].text == "the data set raised OSError: the disk is gone; the sample is skipped"
    reader = source.splits["all"].reader
    assert [reader(0), reader(1)] == [images[0], images[2]]
    again = pickle.loads(pickle.dumps(reader))
    assert np.array_equal(np.asarray(again(1)), np.asarray(images[2]))
    samples[2] = OSError("now this one")
    with pytest.raises(InputError, match="raised OSError: now this one"):
        reader(1)


def test_single_boxes_are_left_out_and_told() -> None:
    nan = [[1.0, 2.0, float("nan"), 5.0], [1.0, 2.0, 3.0, 4.0]]
    source = read_box_datasets(
        made(target(nan, [0, 1]), target(labels=[0, 2]), target(labels=[-1, 1]), classes=["a", "b"])
    )
    assert [image.keys for image in source.splits["all"].images] == [(1,), (0,), (1,)]
    assert [image.lost for image in source.splits["all"].images] == [1, 1, 1]
    assert source.splits["all"].images[1].boxes.tolist() == [BOXES[0]]
    assert [(finding.level, finding.place, finding.text) for finding in source.findings] == [
        ("error", "data[0]", "the box [1.0, 2.0, nan, 5.0] is not finite; skipped"),
        ("error", "data[1]", "box 1 has the class 2; expected 0 to 1; skipped"),
        ("error", "data[2]", "box 0 has the class -1; expected 0 to 1; skipped"),
    ]
    texts = read_box_datasets(made(target(labels=["a", "x"]), classes=["a", "b"]))
    assert texts.findings[0].text == "box 1 has the class 'x'; expected one of 'a', 'b'; skipped"
    with pytest.raises(DataError, match="numbers and names"):
        read_box_datasets(made(target(labels=["a", 1])))


def test_shares_of_the_image_are_refused() -> None:
    with pytest.raises(DataError, match=r"boxes of train are between 0 and 1, .*expected x1, y1, x2, y2 in pixels"):
        read_box_datasets((made(target([[0.1, 0.2, 0.9, 1.0]], [0])), made(target())))
