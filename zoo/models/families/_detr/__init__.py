"""What the families of detectors of transformers have in common: how they are built and how their files are read."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from zoo.data import Letterbox
from zoo.models.families._coco import COCO_CLASSES
from zoo.models.families._detr.checkpoint import read_detr_file
from zoo.models.families._detr.library import Architecture
from zoo.weights import Weights

STRETCHED = Letterbox(content_size=(640, 640), keep_ratio=False)  # onto the whole canvas
POSTPROCESS: Mapping[str, Any] = {"conf": 0.4, "iou": 1.0, "nms_top_k": 300, "max_predictions": 300}  # no suppression


def describe_detr(
    architecture: Architecture,
    *,
    repo: str,
    source: str,
    paper: str,
    mean_ap: float,
    megabytes: float | None = None,
    preprocess: Letterbox = STRETCHED,
) -> dict[str, Any]:
    """Return the facts of a model that `zoo.models.registry.register` takes, all but its parameters.

    Args:
        architecture: The network.
        repo: On the Hub. No full commit and no SHA-256 of it are known here: the head of `main` is taken, unpinned.
        source: Who trained the weights, on what.
        paper: Where it was published.
        mean_ap: Their published mAP@[.5:.95] on COCO 2017 val, per cent.
        megabytes: Of the file of weights, as its page shows it; None if that was not seen.
        preprocess: How images come onto the canvas.
    """
    return {
        "task": "detection",
        "preprocess": preprocess,
        "postprocess": POSTPROCESS,
        "weights": Weights(
            repo=repo,
            revision=None,
            sha256=None,
            licence="apache-2.0",
            source=source,
            mean_ap=mean_ap,
            megabytes=megabytes,
        ),
        "num_classes": len(COCO_CLASSES),
        "classes": COCO_CLASSES,
        "paper": paper,
        "read_foreign": partial(read_detr_file, architecture=architecture, classes=COCO_CLASSES),
    }
