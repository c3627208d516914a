"""What a notebook shows of a plan, a model, data and detections: whole HTML, in which names are text."""

import numpy as np
import pytest
from PIL import Image

import zoo
from boxed_folder import write_boxed
from html_page import Page
from zoo.tasks.detection.result import DetectionResult

EVIL = "<b>&"


def read(value):
    page = Page(value._repr_html_())
    assert page.open == []
    return page.text


def test_a_plan_is_its_table():
    plan = zoo.plan("timm/test_resnet", lr=0.01, epochs=3)
    text = read(plan)
    assert "3 epochs × 100 steps (assumed)" in text
    assert all(cell in text for row in plan.rows() for cell in row.values())


def test_a_model_tells_classes_input_licence_and_parts():
    text = read(zoo.get("timm/test_resnet", pretrained=False, classes=[EVIL, "bee"]))
    for told in (f"2: {EVIL}, bee", "RGB", "code Apache-2.0", "fc", "Linear"):
        assert told in text


@pytest.mark.parametrize("task", ["classification", "detection"])
def test_data_are_counts_of_classes(task, tmp_path):
    if task == "detection":
        write_boxed(tmp_path, train=3, val=2)
    else:
        for split, name in (("train", EVIL), ("train", "bee"), ("val", EVIL), ("val", "bee")):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), "red").save(tmp_path / split / name / "0.png")
    data = zoo.open_data(tmp_path, task=task)
    text = read(data)
    assert all(name in text for name in data.classes)
    assert "trainval" in text.replace("\n", "")


def test_detections_are_a_picture_with_their_boxes():
    found = DetectionResult(
        source="image 0",
        boxes=np.array([[1, 2, 30, 40]], np.float32),
        scores=np.array([0.75], np.float32),
        labels=np.array([0]),
        classes=(EVIL,),
        size=(64, 64),
        file="0.png",
        item=Image.new("RGB", (64, 64)),
    )
    page = Page(found._repr_html_())
    assert [load[:23] for load in page.loads] == ["data:image/jpeg;base64,"]
    assert f"{EVIL}0.75123040" in page.text
