from typing import Any

import numpy as np
import pytest
import torch
from torchvision.ops import box_convert
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes

from zoo.data import load_transform
from zoo.errors import DataError, InputError
from zoo.tasks.detection.augment import Boxed
from zoo.tasks.detection.user_transform import change_boxed, check_boxes_transform

COLOURS = torch.tensor([[250, 0, 0], [0, 250, 0], [0, 0, 250]])


def make_boxed() -> Boxed:
    """Three rectangles on gray, each of the colour of its class."""
    pixels = np.full((60, 80, 3), 128, np.uint8)
    xyxy, labels = torch.tensor([[5.0, 5, 20, 30], [30, 10, 70, 25], [40, 35, 60, 55]]), torch.tensor([2, 0, 1])
    for label, (left, top, right, bottom) in zip(labels, xyxy.int().tolist(), strict=True):
        pixels[top:bottom, left:right] = COLOURS[label]
    return Boxed(pixels, xyxy, labels)


def change(transform: Any, seed: int = 0) -> Boxed:
    torch.manual_seed(seed)
    return change_boxed(make_boxed(), load_transform(transform), "a.png")


def check_drawn(boxed: Boxed) -> None:
    """Every box lies on its thing."""
    for label, (left, top, right, bottom) in zip(boxed.labels, boxed.xyxy.round().int().tolist(), strict=True):
        inside = torch.from_numpy(boxed.pixels[top + 1 : bottom - 1, left + 1 : right - 1].copy())
        assert (inside.int() - COLOURS[label]).abs().max() < 20


def test_boxes_and_labels_follow_what_torchvision_does():
    composed = v2.Compose([v2.RandomIoUCrop(), v2.RandomHorizontalFlip(0.5), v2.SanitizeBoundingBoxes()])
    sizes = set()
    for seed in range(30):
        made = change(composed, seed)
        check_drawn(made)
        sizes.add((made.pixels.shape, len(made.labels)))
    assert len(sizes) > 5


def test_boxes_that_are_cut_away_are_dropped_with_their_labels():
    made = change(v2.Compose([v2.Pad(0), lambda image, target: crop(image, target, 25)]))
    assert made.labels.tolist() == [0, 1]
    check_drawn(made)


def crop(image: Any, target: dict[str, Any], left: int) -> Any:
    cut = v2.functional.crop
    return cut(image, 0, left, 60, 55), {**target, "boxes": cut(target["boxes"], 0, left, 60, 55)}


class Flip:
    """Mirrors images and boxes as a `Compose` of albumentations is called."""

    __module__ = "albumentations.core.composition"

    def __init__(self, form: str, fields: tuple[str, ...]) -> None:
        params = type("Params", (), {"format": form, "label_fields": fields})
        self.processors = {"bboxes": type("Processor", (), {"params": params})}
        self.form, self.fields, self.seeds = form, fields, []

    def set_random_seed(self, seed: int) -> None:
        self.seeds.append(seed)

    def __call__(self, *, image: Any, bboxes: Any, **fields: Any) -> dict[str, Any]:
        assert set(fields) == set(self.fields)
        inner = {"pascal_voc": "xyxy", "albumentations": "xyxy", "coco": "xywh", "yolo": "cxcywh"}[self.form]
        sides = torch.tensor([80.0, 60, 80, 60] if self.form in ("albumentations", "yolo") else [1.0] * 4)
        xyxy = box_convert(torch.tensor([box[:4] for box in bboxes]) * sides, inner, "xyxy")
        assert torch.allclose(xyxy, make_boxed().xyxy, atol=1e-4)
        mirrored = torch.stack([80 - xyxy[:, 2], xyxy[:, 1], 80 - xyxy[:, 0], xyxy[:, 3]], 1)
        rest = [tuple(box[4:]) for box in bboxes]
        given = (box_convert(mirrored, "xyxy", inner) / sides).tolist()
        boxes = [(*box, *more) for box, more in zip(given, rest, strict=True)]
        return {  # without the first box, as where too little of it is left
            "image": image[:, ::-1],
            "bboxes": boxes[1:],
            **{name: values[1:] for name, values in fields.items()},
        }


@pytest.mark.parametrize("form", ["pascal_voc", "albumentations", "coco", "yolo"])
@pytest.mark.parametrize("fields", [(), ("labels",), ("kinds", "places")])
def test_every_form_of_boxes_of_albumentations_is_understood(form, fields):
    flip = Flip(form, fields)
    check_boxes_transform(load_transform(flip))
    made = change(flip)
    assert made.labels.tolist() == [0, 1]
    check_drawn(made)
    change(flip)
    change(flip, seed=1)
    assert flip.seeds[0] == flip.seeds[1] != flip.seeds[2]


def test_one_of_albumentations_that_would_not_move_boxes_is_refused():
    flip = Flip("coco", ())
    flip.processors = {}
    with pytest.raises(InputError, match=r"does not move boxes: pass bbox_params="):
        check_boxes_transform(load_transform(flip))


def give(**changes: Any) -> Any:
    return lambda image, target: (image, {**target, **changes})


@pytest.mark.parametrize(
    ("transform", "text"),
    [
        (lambda image, target: image, r"returned a Image; expected the image and a dict of 'boxes' and 'labels'"),
        (give(boxes=None), r"returned no tensor 'boxes'"),
        (
            give(labels=torch.tensor([0, 1])),
            r"returned 3 boxes and labels of shape \(2,\); expected one label for each",
        ),
        (give(labels=torch.tensor([0, 1, 9])), r"returned the labels \[9\], which the image did not have"),
        (give(boxes=torch.tensor([[0.0, 0, 90, 9]] * 3)), r"the box \[0\.0, 0\.0, 90\.0, 9\.0\], which reaches out of"),
        (give(boxes=torch.full((3, 4), torch.nan)), r"expected \(n, 4\), finite"),
        (v2.Compose([v2.ToDtype(torch.float32, scale=True)]), r"returned float32 \(3, 60, 80\)"),
    ],
)
def test_what_it_returns_is_checked_and_the_image_named(transform, text):
    with pytest.raises(DataError, match=text + r".*\n*.*The image is 'a\.png'"):
        change(transform)


def test_boxes_of_another_form_are_converted():
    converted = v2.ConvertBoundingBoxFormat("CXCYWH")
    made = change(v2.Compose([converted]))
    assert isinstance(converted(BoundingBoxes([[0, 0, 2, 2]], format="XYXY", canvas_size=(4, 4))), BoundingBoxes)
    assert torch.allclose(made.xyxy, make_boxed().xyxy)
