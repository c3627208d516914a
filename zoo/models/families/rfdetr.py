"""RF-DETR: detectors with queries on a windowed DINOv2, in four sizes.

Code: transformers (huggingface/transformers, Apache-2.0), an optional extra. Paper: arXiv 2511.09554; original:
roboflow/rf-detr (Apache-2.0), whose `config.py` (commit 8d5d163) the numbers of the sizes are of: nano to large, the
large one that of 2026. Its larger sizes are not free and are not here. mAP is the authors', COCO 2017 val, at the size
of each, images stretched, ImageNet's mean and deviation. Both sides of the input are multiples of 32 px (patches of
16 in windows of 2).

Its weights have a class for each of the category numbers 0 to 90 of COCO; the 80 in use are kept.
"""

from typing import Any

from zoo.models.families._coco import COCO_CATEGORIES
from zoo.models.families._detr import STRETCHED, describe_detr
from zoo.models.families._detr.library import Architecture
from zoo.models.registry import register

PAPER = "arXiv:2511.09554"
SIZES: dict[str, dict[str, Any]] = {
    "n": {"image_size": 384, "decoder_layers": 2},
    "s": {"image_size": 512, "decoder_layers": 3},
    "m": {"image_size": 576, "decoder_layers": 4},
    "l": {"image_size": 704, "decoder_layers": 4},
}
DINOV2: dict[str, Any] = {
    "model_type": "rf_detr_dinov2",
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "out_features": ["stage3", "stage6", "stage9", "stage12"],
    "patch_size": 16,
    "num_windows": 2,
}
DECODER: dict[str, Any] = {
    "d_model": 256,
    "decoder_self_attention_heads": 8,
    "decoder_cross_attention_heads": 16,
    "decoder_n_points": 2,
    "num_queries": 300,
}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def _facts(size: str, *, repo: str, mean_ap: float) -> dict[str, Any]:
    side = SIZES[size]["image_size"]
    source = "Roboflow; COCO 2017"
    preprocess = STRETCHED.resized(side).replace(**IMAGENET)
    facts: dict[str, Any] = {"source": source, "paper": PAPER, "mean_ap": mean_ap, "preprocess": preprocess}
    return describe_detr(open_size(size), repo=f"Roboflow/{repo}", **facts)


def open_size(size: str) -> Architecture:
    """Return the network of a size: n, s, m or l."""
    numbers = SIZES[size]
    backbone = DINOV2 | {"image_size": numbers["image_size"]}
    settings = DECODER | {"backbone_config": backbone, "decoder_layers": numbers["decoder_layers"]}
    return Architecture("rf_detr", settings, COCO_CATEGORIES)


@register(**_facts("n", repo="rf-detr-nano", mean_ap=48.4), parameters=30.43)
def rfdetr_n(*, num_classes: int) -> Any:
    """Detector RF-DETR, nano."""
    return _build("n", num_classes)


@register(**_facts("s", repo="rf-detr-small", mean_ap=53.0), parameters=32.07)
def rfdetr_s(*, num_classes: int) -> Any:
    """Detector RF-DETR, small."""
    return _build("s", num_classes)


@register(**_facts("m", repo="rf-detr-medium", mean_ap=54.7), parameters=33.65)
def rfdetr_m(*, num_classes: int) -> Any:
    """Detector RF-DETR, medium."""
    return _build("m", num_classes)


@register(**_facts("l", repo="rf-detr-large", mean_ap=56.5), parameters=33.89)
def rfdetr_l(*, num_classes: int) -> Any:
    """Detector RF-DETR, large."""
    return _build("l", num_classes)


def _build(size: str, num_classes: int) -> Any:
    from zoo.models.families._detr.detector import RfDetr  # loads torch: only when a model is built

    return RfDetr(open_size(size), num_classes=num_classes)
