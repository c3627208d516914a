"""A network that is nothing but the end of a detector, and settings of it."""

import torch
from torch import nn

from zoo.tasks.detection.export import Tail
from zoo.tasks.detection.postprocess import Predictions


class Boxes(nn.Module):
    """Gives boxes and scores that lie in its input."""

    def __init__(self, settings):
        super().__init__()
        self.tail = Tail(self)
        self.tail.settings = settings

    postprocess = None

    @staticmethod
    def decode(outputs):
        return Predictions(*outputs)

    def forward(self, boxes, scores):
        return self.tail((boxes, scores))


SETTINGS = [
    {"conf": 0.3},
    {"conf": 0.3, "multi_label": False},
    {"conf": 0.3, "class_agnostic": True, "iou": 0.4},
    {"conf": 0.1, "nms_top_k": 60, "max_predictions": 20},
]


def make_boxes(images, places=120, classes=5):
    generator = torch.Generator().manual_seed(images)
    corner = 200 * torch.rand(images, places, 2, generator=generator)
    boxes = torch.cat([corner, corner + 20 + 40 * torch.rand(images, places, 2, generator=generator)], -1)
    return boxes, torch.rand(images, places, classes, generator=generator)
