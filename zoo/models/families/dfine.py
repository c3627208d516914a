"""D-FINE: detectors with queries whose boxes are refined as distributions, in five sizes.

Code: transformers (huggingface/transformers, Apache-2.0), an optional extra; numbers of the sizes as in its conversion
script (`convert_d_fine_original_pytorch_checkpoint_to_hf.py`, commit 1e98d00). Paper: arXiv 2410.13842; original:
Peterande/D-FINE (Apache-2.0). The weights of S, M and X saw Objects365 before COCO. mAP is the authors', COCO 2017 val,
640 px, images stretched, values 0 to 1. The norms of the backbone are frozen in all sizes; the authors train them in
the small ones.
"""

from typing import Any

from zoo.models.families._detr import describe_detr
from zoo.models.families._detr.library import Architecture
from zoo.models.registry import register

PAPER = "arXiv:2410.13842"
STAGES = {  # of the backbone, an HGNetV2: the same in all sizes
    "model_type": "hgnet_v2",
    "stage_downsample": [False, True, True, True],
    "stage_light_block": [False, False, True, True],
    "stage_kernel_size": [3, 3, 5, 5],
    "out_indices": [2, 3, 4],
}
B0 = STAGES | {
    "hidden_sizes": [128, 256, 512, 1024],
    "stem_channels": [3, 16, 16],
    "stage_in_channels": [16, 64, 256, 512],
    "stage_mid_channels": [16, 32, 64, 128],
    "stage_out_channels": [64, 256, 512, 1024],
    "stage_num_blocks": [1, 1, 2, 1],
    "stage_numb_of_layers": [3, 3, 3, 3],
    "use_learnable_affine_block": True,
}
B2 = STAGES | {
    "hidden_sizes": [192, 384, 768, 1536],
    "stem_channels": [3, 24, 32],
    "stage_in_channels": [32, 96, 384, 768],
    "stage_mid_channels": [32, 64, 128, 256],
    "stage_out_channels": [96, 384, 768, 1536],
    "stage_num_blocks": [1, 1, 3, 1],
    "stage_numb_of_layers": [4, 4, 4, 4],
    "use_learnable_affine_block": True,
}
B4 = STAGES | {
    "hidden_sizes": [256, 512, 1024, 2048],
    "stem_channels": [3, 32, 48],
    "stage_in_channels": [48, 128, 512, 1024],
    "stage_mid_channels": [48, 96, 192, 384],
    "stage_out_channels": [128, 512, 1024, 2048],
    "stage_num_blocks": [1, 1, 3, 1],
    "stage_numb_of_layers": [6, 6, 6, 6],
    "use_learnable_affine_block": False,
}
B5 = STAGES | {
    "hidden_sizes": [256, 512, 1024, 2048],
    "stem_channels": [3, 32, 64],
    "stage_in_channels": [64, 128, 512, 1024],
    "stage_mid_channels": [64, 128, 256, 512],
    "stage_out_channels": [128, 512, 1024, 2048],
    "stage_num_blocks": [1, 2, 5, 2],
    "stage_numb_of_layers": [6, 6, 6, 6],
    "use_learnable_affine_block": False,
}
SIZES: dict[str, dict[str, Any]] = {
    "n": {
        "backbone_config": B0 | {"out_indices": [3, 4]},
        "num_feature_levels": 2,
        "feat_strides": [16, 32],
        "encoder_in_channels": [512, 1024],
        "encoder_hidden_dim": 128,
        "encoder_ffn_dim": 512,
        "encode_proj_layers": [1],
        "hidden_expansion": 0.34,
        "depth_mult": 0.5,
        "d_model": 128,
        "decoder_in_channels": [128, 128],
        "decoder_ffn_dim": 512,
        "decoder_n_points": [6, 6],
        "decoder_layers": 3,
    },
    "s": {
        "backbone_config": B0,
        "encoder_in_channels": [256, 512, 1024],
        "hidden_expansion": 0.5,
        "depth_mult": 0.34,
        "decoder_n_points": [3, 6, 3],
        "decoder_layers": 3,
    },
    "m": {
        "backbone_config": B2,
        "encoder_in_channels": [384, 768, 1536],
        "depth_mult": 0.67,
        "decoder_n_points": [3, 6, 3],
        "decoder_layers": 4,
    },
    "l": {
        "backbone_config": B4,
        "encoder_in_channels": [512, 1024, 2048],
        "decoder_n_points": [3, 6, 3],
        "decoder_layers": 6,
    },
    "x": {
        "backbone_config": B5,
        "encoder_in_channels": [512, 1024, 2048],
        "encoder_hidden_dim": 384,
        "encoder_ffn_dim": 2048,
        "decoder_in_channels": [384, 384, 384],
        "decoder_n_points": [3, 6, 3],
        "decoder_layers": 6,
    },
}


def _facts(size: str, *, repo: str, mean_ap: float, megabytes: float) -> dict[str, Any]:
    data = "Objects365, then COCO 2017" if "obj" in repo else "COCO 2017"
    source = f"the authors of D-FINE; {data}"
    place = f"ustc-community/{repo}"
    return describe_detr(open_size(size), repo=place, source=source, paper=PAPER, mean_ap=mean_ap, megabytes=megabytes)


def open_size(size: str) -> Architecture:
    """Return the network of a size: n, s, m, l or x."""
    return Architecture("d_fine", SIZES[size])


@register(**_facts("n", repo="dfine-nano-coco", mean_ap=42.8, megabytes=15.3), parameters=3.77)
def dfine_n(*, num_classes: int) -> Any:
    """Detector D-FINE, nano."""
    return _build("n", num_classes)


@register(**_facts("s", repo="dfine-small-obj2coco", mean_ap=50.7, megabytes=41.5), parameters=10.31)
def dfine_s(*, num_classes: int) -> Any:
    """Detector D-FINE, small."""
    return _build("s", num_classes)


@register(**_facts("m", repo="dfine-medium-obj2coco", mean_ap=55.1, megabytes=78.7), parameters=19.56)
def dfine_m(*, num_classes: int) -> Any:
    """Detector D-FINE, medium."""
    return _build("m", num_classes)


@register(**_facts("l", repo="dfine-large-coco", mean_ap=54.0, megabytes=126), parameters=31.24)
def dfine_l(*, num_classes: int) -> Any:
    """Detector D-FINE, large."""
    return _build("l", num_classes)


@register(**_facts("x", repo="dfine-xlarge-obj2coco", mean_ap=59.3, megabytes=252), parameters=62.62)
def dfine_x(*, num_classes: int) -> Any:
    """Detector D-FINE, extra large."""
    return _build("x", num_classes)


def _build(size: str, num_classes: int) -> Any:
    from zoo.models.families._detr.detector import HybridDetr  # loads torch: only when a model is built

    return HybridDetr(open_size(size), num_classes=num_classes)
