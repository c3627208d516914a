"""Forward, loss and postprocessing of every family on a GPU that is not there: a tensor left on the CPU raises."""

import pytest
import torch

import zoo
from fake_device import fake_device, move
from small_detr import NAMES, shrink
from zoo.tasks.detection.postprocess import VALIDATION, Postprocess, select_detections

ROWS = [[0.0, 1.0, 32.0, 32.0, 20.0, 20.0], [1.0, 0.0, 40.0, 30.0, 10.0, 30.0]]


def there(device, *shape):
    return torch.zeros(shape, device=device)


def test_the_fake_device_finds_what_is_misplaced():
    with fake_device() as device:
        here = torch.zeros(3)
        with pytest.raises(Exception, match="same device"):
            there(device, 3) + here
        with pytest.raises(Exception, match=r"same device|an index on"):
            here[there(device, 3) > 0]
        assert len(there(device, 3)[there(device, 3) > 0]) == 2


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_050", "timm/test_vit", "timm/test_convnext"])
def test_classifiers(name):
    side = 160 if "vit" in name else 64
    model = move(zoo.get(name, num_classes=3))
    with fake_device() as device:
        for mode in (True, False):
            model.train(mode)
            outputs = model(there(device, 2, 3, side, side))
            value = model.loss(outputs, torch.zeros(2, dtype=torch.int64, device=device), label_smoothing=0.1)
            assert outputs.device.type == value.device.type == "cuda"


@pytest.mark.usefixtures("small_detector")
@pytest.mark.parametrize("assigner", ["task-aligned", "static"])
@pytest.mark.parametrize("form", ["varifocal", "balanced-focal"])
def test_yolo_nas(assigner, form):
    model = move(zoo.get("yolo_nas_s", num_classes=3))
    with fake_device() as device:
        images, rows = there(device, 2, 3, 64, 64), torch.tensor(ROWS).to(device)
        for mode in (True, False):
            outputs = model.train(mode)(images)
            value = model.loss(outputs, rows, assigner=assigner, classification=form)
            assert value.device.type == "cuda"
        find(model, outputs)


@pytest.mark.parametrize("name", NAMES)
def test_detectors_of_transformers(name, monkeypatch):
    pytest.importorskip("transformers")
    shrink(monkeypatch)
    model = move(zoo.get(name, num_classes=3))
    with fake_device() as device:
        outputs = model.eval()(there(device, 2, 3, 256, 256))
        find(model, outputs)


def find(model, outputs):
    boxes, scores = model.decode(outputs)
    for settings in (VALIDATION, Postprocess(), Postprocess(multi_label=False), Postprocess(class_agnostic=True)):
        for detections in select_detections(boxes, scores, settings):
            assert all(part.device.type == "cuda" for part in detections)
