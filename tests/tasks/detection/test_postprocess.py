from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.errors import InputError
from zoo.tasks.detection.postprocess import PUBLISHED, VALIDATION, Postprocess, select_detections

pytestmark = pytest.mark.numbers

RECORDED = np.load(Path(__file__).parents[2] / "fixtures" / "yolo_nas" / "postprocess.npz")
CASES = sorted({name.split("/")[0] for name in RECORDED.files if name.startswith("case")})
LONE = torch.tensor([[[0.0, 0, 10, 10], [100, 100, 120, 120], [200, 0, 220, 20]]])


def recorded_settings(case):
    conf, iou, nms_top_k, max_predictions, multi_label, class_agnostic = RECORDED[f"{case}/settings"].tolist()
    return Postprocess(
        conf=conf,
        iou=iou,
        nms_top_k=int(nms_top_k),
        max_predictions=int(max_predictions),
        multi_label=bool(multi_label),
        class_agnostic=bool(class_agnostic),
    )


def test_ten_cases_were_recorded_for_named_settings():
    assert len(CASES) == 10
    assert (Postprocess().conf, Postprocess().iou, Postprocess().nms_top_k) == (0.25, 0.7, 1024)
    assert (VALIDATION.conf, VALIDATION.iou, VALIDATION.nms_top_k) == (0.01, 0.7, 1000)
    assert (PUBLISHED.conf, PUBLISHED.iou, PUBLISHED.nms_top_k) == (0.03, 0.65, 1000)


@pytest.mark.parametrize("case", CASES)
def test_the_rows_are_those_of_super_gradients_to_the_bit(case):
    boxes, scores = torch.from_numpy(RECORDED["boxes"]), torch.from_numpy(RECORDED["scores"])
    images = select_detections(boxes, scores, recorded_settings(case))
    assert len(images) == 2
    for index, found in enumerate(images):
        rows = torch.cat([found.boxes, found.scores[:, None], found.labels[:, None].float()], dim=1)
        assert np.array_equal(rows.numpy(), RECORDED[f"{case}/image{index}"])
        assert found.labels.dtype == torch.int64


def test_an_anchor_may_have_several_labels():
    scores = torch.tensor([[[0.6, 0.9, 0.1], [0.0, 0.0, 0.7], [0.0, 0.0, 0.0]]])
    several, single = (select_detections(LONE, scores, Postprocess(multi_label=multi))[0] for multi in (True, False))
    assert several.labels.tolist() == [1, 2, 0]
    assert several.scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert single.labels.tolist() == [1, 2]
    assert single.boxes.tolist() == LONE[0, :2].tolist()
    scores = torch.tensor([[[0.25], [0.2500001], [0.2499999]]])
    settings = Postprocess(conf=0.25)
    assert len(select_detections(LONE, scores, settings)[0].scores) == 1
    assert len(select_detections(LONE, scores, settings.replace(multi_label=False))[0].scores) == 2


@pytest.mark.parametrize(("class_agnostic", "labels"), [(False, [0, 1]), (True, [0])])
def test_boxes_of_different_classes_suppress_each_other_if_asked(class_agnostic, labels):
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9.9]]])
    scores = torch.tensor([[[0.9, 0.0], [0.0, 0.8]]])
    found = select_detections(boxes, scores, Postprocess(class_agnostic=class_agnostic))[0]
    assert found.labels.tolist() == labels


def test_the_top_of_all_classes_is_taken_before_boxes_are_compared():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9.9], [100, 100, 120, 120]]])
    scores = torch.tensor([[[0.9], [0.8], [0.7]]])
    kept = [select_detections(boxes, scores, Postprocess(nms_top_k=top))[0].scores for top in (2, 3)]
    assert [len(scores) for scores in kept] == [1, 2]


def test_no_detection_gives_empty_tensors():
    empty = select_detections(LONE, torch.zeros(1, 3, 2))[0]
    assert empty.boxes.shape == (0, 4)
    assert empty.scores.shape == empty.labels.shape == (0,)
    assert select_detections(torch.zeros(0, 3, 4), torch.zeros(0, 3, 2)) == []
    boxes, scores = LONE.bfloat16().requires_grad_(), torch.full((1, 3, 1), 0.5).bfloat16().requires_grad_()
    found = select_detections(boxes, scores)[0]
    assert found.boxes.dtype == found.scores.dtype == torch.float32
    assert not found.boxes.requires_grad
    assert len(found.scores) == 3
    scores = torch.tensor([[[float("nan")], [0.9], [0.1]]])
    assert select_detections(LONE, scores)[0].scores.tolist() == pytest.approx([0.9])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"conf": 1.1}, r"conf is 1\.1; expected a number from 0 to 1"),
        ({"conf": float("nan")}, r"conf is nan; expected"),
        ({"conf": True}, r"conf is True; expected a number"),
        ({"iou": "0.5"}, r"iou is '0\.5'; expected a number from 0 to 1"),
        ({"nms_top_k": 0}, r"nms_top_k is 0; expected an integer, 1 or more"),
        ({"max_predictions": 10.0}, r"max_predictions is 10\.0; expected an integer"),
        ({"multi_label": 1}, r"multi_label is 1; expected true or false"),
        ({"class_agnostic": None}, r"class_agnostic is None; expected true or false"),
    ],
)
def test_wrong_settings(changes, text):
    with pytest.raises(InputError, match=text):
        Postprocess(**changes)
    with pytest.raises(InputError, match=text):
        Postprocess().replace(**changes)


@pytest.mark.parametrize("shape", [(1, 4, 2), (2, 3, 2), (3, 2)])
def test_shapes_that_do_not_belong_together(shape):
    with pytest.raises(InputError, match=r"boxes are \(1, 3, 4\) and scores .*; expected \(B, L, 4\) and \(B, L, C\)"):
        select_detections(LONE, torch.zeros(shape))
