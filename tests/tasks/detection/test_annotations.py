import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from zoo.tasks.detection.annotations import Annotated, BoxSource, BoxSplit, Finding, no_boxes


def test_findings_have_a_place_and_boxes_can_be_joined() -> None:
    assert Finding("boxes without area", "warning", "train", "a/b.xml", 12, "left out").place == "a/b.xml:12"
    assert Finding("images without boxes", "warning", "val", "c.jpg", None, "kept").place == "c.jpg"
    joined = np.concatenate([no_boxes(), [[1.0, 2.0, 3.0, 4.0]]])
    assert no_boxes().shape == (0, 4)
    assert joined.dtype == np.float64
    assert joined.tolist() == [[1, 2, 3, 4]]


def test_a_source_survives_pickling_and_does_not_change() -> None:
    image = Annotated("a.jpg", np.array([[0.0, 0, 5, 5]]), ("cat",), (3,), np.array([False]), "a.xml", (10, 12))
    source = BoxSource("/data", "Pascal VOC", {"all": BoxSplit("all", str, (image,))}, {"cat": "cat"})
    copy = pickle.loads(pickle.dumps(source))
    assert copy.splits["all"].images[0].boxes.tolist() == [[0, 0, 5, 5]]
    assert copy.splits["all"].images[0].size == (10, 12)
    assert not copy.splits["all"].images[0].is_relative
    assert copy.findings == ()
    with pytest.raises(FrozenInstanceError):
        image.name = "b.jpg"  # type: ignore[misc]
