"""RT-DETRv2: real-time detectors with queries on a ResNet-vd, in four sizes.

Code: transformers (huggingface/transformers, Apache-2.0), an optional extra; numbers of the sizes as in its conversion
script (`convert_rt_detr_v2_weights_to_hf.py`, commit 03bb2cc). Paper: arXiv 2407.17140; original: lyuwenyu/RT-DETR
(Apache-2.0). mAP is the authors', COCO 2017 val, 640 px, images stretched, values 0 to 1. The norms of the backbone
are frozen in all sizes; the authors train them in R18.
"""

from typing import Any

from zoo.models.families._detr import describe_detr
from zoo.models.families._detr.library import Architecture
from zoo.models.registry import register

PAPER = "arXiv:2407.17140"
SHALLOW = {"hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"}
DEEP = {"hidden_sizes": [256, 512, 1024, 2048], "layer_type": "bottleneck"}
SIZES: dict[str, dict[str, Any]] = {
    "r18": {
        "backbone_config": SHALLOW | {"depths": [2, 2, 2, 2]},
        "encoder_in_channels": [128, 256, 512],
        "hidden_expansion": 0.5,
        "decoder_layers": 3,
    },
    "r34": {
        "backbone_config": SHALLOW | {"depths": [3, 4, 6, 3]},
        "encoder_in_channels": [128, 256, 512],
        "hidden_expansion": 0.5,
        "decoder_layers": 4,
    },
    "r50": {
        "backbone_config": DEEP | {"depths": [3, 4, 6, 3]},
        "encoder_in_channels": [512, 1024, 2048],
        "decoder_layers": 6,
    },
    "r101": {
        "backbone_config": DEEP | {"depths": [3, 4, 23, 3]},
        "encoder_in_channels": [512, 1024, 2048],
        "encoder_hidden_dim": 384,
        "encoder_ffn_dim": 2048,
        "decoder_in_channels": [384, 384, 384],
        "decoder_layers": 6,
    },
}


def _facts(size: str, *, mean_ap: float, megabytes: float | None = None) -> dict[str, Any]:
    repo, source = f"PekingU/rtdetr_v2_{size}vd", "the authors of RT-DETRv2; COCO 2017"
    return describe_detr(open_size(size), repo=repo, source=source, paper=PAPER, mean_ap=mean_ap, megabytes=megabytes)


def open_size(size: str) -> Architecture:
    """Return the network of a size: r18, r34, r50 or r101."""
    numbers = SIZES[size]
    backbone = {"model_type": "rt_detr_resnet", "out_indices": [2, 3, 4]} | numbers["backbone_config"]
    return Architecture("rt_detr_v2", numbers | {"backbone_config": backbone})


@register(**_facts("r18", mean_ap=48.1), parameters=20.17)
def rtdetr_v2_r18(*, num_classes: int) -> Any:
    """Detector RT-DETRv2 with a ResNet-18-vd."""
    return _build("r18", num_classes)


@register(**_facts("r34", mean_ap=49.9, megabytes=126), parameters=31.42)
def rtdetr_v2_r34(*, num_classes: int) -> Any:
    """Detector RT-DETRv2 with a ResNet-34-vd."""
    return _build("r34", num_classes)


@register(**_facts("r50", mean_ap=53.4, megabytes=172), parameters=42.89)
def rtdetr_v2_r50(*, num_classes: int) -> Any:
    """Detector RT-DETRv2 with a ResNet-50-vd."""
    return _build("r50", num_classes)


@register(**_facts("r101", mean_ap=54.3), parameters=76.56)
def rtdetr_v2_r101(*, num_classes: int) -> Any:
    """Detector RT-DETRv2 with a ResNet-101-vd."""
    return _build("r101", num_classes)


def _build(size: str, num_classes: int) -> Any:
    from zoo.models.families._detr.detector import HybridDetr  # loads torch: only when a model is built

    return HybridDetr(open_size(size), num_classes=num_classes)
