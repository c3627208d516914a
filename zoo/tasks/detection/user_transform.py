"""A transform of the user's own on an image with boxes: torchvision's v2, albumentations, or any function."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_convert, clip_boxes_to_image

from zoo.data import UserTransform
from zoo.errors import InputError
from zoo.tasks.detection.augment import Boxed

OVERHANG = 1.0  # pixels by which a box may reach out of its image, from rounding


def change_boxed(boxed: Boxed, user: UserTransform, name: str) -> Boxed:
    """Return what becomes of an image and its boxes.

    Boxes are clipped to the image, and those that have no area left are dropped.

    Raises:
        DataError: The transform failed, or returned no RGB image of bytes, boxes outside of it, or labels that do not
            match them.
    """
    made, xyxy, labels = (_call_albumentations if user.is_albumentations else _call_v2)(boxed, user, name)
    pixels = user.check_pixels(made, name)
    if xyxy.ndim != 2 or xyxy.shape[1] != 4 or not xyxy.isfinite().all():
        raise user.refuse(name, f"returned boxes of shape {tuple(xyxy.shape)}; expected (n, 4), finite")
    if labels.shape != xyxy.shape[:1]:
        raise user.refuse(
            name,
            f"returned {len(xyxy)} boxes and labels of shape {tuple(labels.shape)}; expected one label for each box",
        )
    if unknown := set(labels.tolist()) - set(boxed.labels.tolist()):
        raise user.refuse(name, f"returned the labels {sorted(unknown)}, which the image did not have")
    clipped = clip_boxes_to_image(xyxy, pixels.shape[:2])
    if len(xyxy) and (worst := (clipped - xyxy).abs().amax(dim=1)).max() > OVERHANG:
        box = [round(value, 1) for value in xyxy[int(worst.argmax())].tolist()]
        raise user.refuse(
            name,
            f"returned the box {box}, which reaches out of the image of {pixels.shape[1]} x {pixels.shape[0]} pixels",
        )
    kept = (clipped[:, 2:] > clipped[:, :2]).all(dim=1)
    return Boxed(pixels, clipped[kept], labels[kept])


def check_boxes_transform(user: UserTransform | None) -> None:
    """Refuse a transform of albumentations that would leave boxes where they were.

    Raises:
        InputError: It has no `bbox_params`.
    """
    if user is not None and user.is_albumentations and "bboxes" not in getattr(user.call, "processors", {}):
        raise InputError(
            f"the transform {user.name} does not move boxes: pass bbox_params=A.BboxParams(format='pascal_voc', "
            "label_fields=['labels']) to A.Compose."
        )


def _call_v2(boxed: Boxed, user: UserTransform, name: str) -> tuple[Any, Tensor, Tensor]:
    from torchvision.tv_tensors import BoundingBoxes, Image

    image = Image(torch.from_numpy(boxed.pixels.copy()).permute(2, 0, 1))
    boxes = BoundingBoxes(boxed.xyxy, format="XYXY", canvas_size=boxed.pixels.shape[:2])
    made = user.apply(name, image, {"boxes": boxes, "labels": boxed.labels})
    if not isinstance(made, (tuple, list)) or len(made) != 2 or not isinstance(made[1], dict):
        raise user.refuse(
            name, f"returned a {type(made).__name__}; expected the image and a dict of 'boxes' and 'labels'"
        )
    pixels, target = made
    if missing := [key for key in ("boxes", "labels") if not isinstance(target.get(key), Tensor)]:
        raise user.refuse(name, f"returned no tensor {missing[0]!r}; expected a dict of 'boxes' and 'labels'")
    given = target["boxes"]
    form = given.format.value.lower() if isinstance(given, BoundingBoxes) else "xyxy"
    xyxy = given.as_subclass(Tensor).to(torch.float32)
    return pixels, box_convert(xyxy, form, "xyxy") if form != "xyxy" else xyxy, target["labels"].to(torch.int64)


def _call_albumentations(boxed: Boxed, user: UserTransform, name: str) -> tuple[Any, Tensor, Tensor]:
    """Call a transform of albumentations; label fields get the places of the boxes, by which they are found again."""
    params = user.call.processors["bboxes"].params  # type: ignore[attr-defined]
    fields, size = params.label_fields or (), boxed.pixels.shape[:2]
    places = list(range(len(boxed.xyxy)))
    boxes = [tuple(box) for box in _to_form(boxed.xyxy, params.format, size).tolist()]
    if not fields:
        boxes = [(*box, place) for box, place in zip(boxes, places, strict=True)]
    made = user.apply(name, image=np.ascontiguousarray(boxed.pixels), bboxes=boxes, **dict.fromkeys(fields, places))
    left = made[fields[0]] if fields else [box[4] for box in made["bboxes"]]
    table = torch.tensor([tuple(box[:4]) for box in made["bboxes"]], dtype=torch.float32).reshape(-1, 4)
    xyxy = _from_form(table, params.format, made["image"].shape[:2])
    return made["image"], xyxy, boxed.labels[torch.tensor([int(place) for place in left], dtype=torch.int64)]


_FORMS = {"pascal_voc": "xyxy", "albumentations": "xyxy", "coco": "xywh", "yolo": "cxcywh"}
_SHARES = ("albumentations", "yolo")  # of the image's sides


def _to_form(xyxy: Tensor, form: str, size: tuple[int, ...]) -> Tensor:
    boxes = box_convert(xyxy, "xyxy", _FORMS[form])
    return Tensor(boxes / _sides(size) if form in _SHARES else boxes)


def _from_form(boxes: Tensor, form: str, size: tuple[int, ...]) -> Tensor:
    return Tensor(box_convert(boxes * _sides(size) if form in _SHARES else boxes, _FORMS[form], "xyxy"))


def _sides(size: tuple[int, ...]) -> Tensor:
    return torch.tensor([size[1], size[0]] * 2, dtype=torch.float32)
