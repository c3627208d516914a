"""Detectors of transformers with few parameters, under the names of the models whose kind they are."""

import json
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from zoo.models import registry
from zoo.models.catalog import find_entry
from zoo.models.families._coco import COCO_CATEGORIES, COCO_CLASSES
from zoo.models.families._detr.checkpoint import read_detr_file
from zoo.models.families._detr.detector import DetrDetector, HybridDetr, RfDetr
from zoo.models.families._detr.library import Architecture

HYBRID: dict[str, Any] = {
    "encoder_in_channels": [32, 64, 128],
    "encoder_hidden_dim": 32,
    "encoder_ffn_dim": 64,
    "encoder_attention_heads": 4,
    "hidden_expansion": 0.5,
    "d_model": 32,
    "num_queries": 50,
    "num_denoising": 20,
    "decoder_in_channels": [32, 32, 32],
    "decoder_ffn_dim": 64,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
}
RESNET = {
    "model_type": "rt_detr_resnet",
    "embedding_size": 16,
    "hidden_sizes": [16, 32, 64, 128],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "out_indices": [2, 3, 4],
}
HGNET = {
    "model_type": "hgnet_v2",
    "hidden_sizes": [16, 32, 64, 128],
    "stem_channels": [3, 8, 8],
    "stage_in_channels": [8, 16, 32, 64],
    "stage_mid_channels": [8, 16, 16, 16],
    "stage_out_channels": [16, 32, 64, 128],
    "stage_num_blocks": [1, 1, 1, 1],
    "stage_downsample": [False, True, True, True],
    "stage_light_block": [False, False, True, True],
    "stage_kernel_size": [3, 3, 5, 5],
    "stage_numb_of_layers": [2, 2, 2, 2],
    "out_indices": [2, 3, 4],
    "use_learnable_affine_block": True,
}
DINOV2 = {
    "model_type": "rf_detr_dinov2",
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "out_features": ["stage1", "stage3"],
    "image_size": 64,
    "patch_size": 16,
    "num_windows": 2,
}
SMALL = {
    "dfine_n": Architecture("d_fine", HYBRID | {"backbone_config": HGNET, "depth_mult": 0.34}),
    "rtdetr_v2_r18": Architecture("rt_detr_v2", HYBRID | {"backbone_config": RESNET}),
    "rfdetr_n": Architecture(
        "rf_detr",
        {
            "backbone_config": DINOV2,
            "d_model": 32,
            "decoder_self_attention_heads": 4,
            "decoder_cross_attention_heads": 4,
            "decoder_n_points": 2,
            "decoder_ffn_dim": 64,
            "decoder_layers": 2,
            "num_queries": 40,
            "group_detr": 3,
        },
        COCO_CATEGORIES,
    ),
}
NAMES = tuple(SMALL)


def build_small(name: str, *, num_classes: int) -> DetrDetector:
    kind = RfDetr if name.startswith("rfdetr") else HybridDetr
    return kind(SMALL[name], num_classes=num_classes)


def shrink(monkeypatch: Any) -> None:
    """Register the small networks under the names of the large ones."""
    for name, architecture in SMALL.items():
        read = partial(read_detr_file, architecture=architecture, classes=COCO_CLASSES)
        entry = replace(find_entry(name), build=partial(build_small, name), read_foreign=read)
        monkeypatch.setitem(registry._ENTRIES, name, entry)


def save_as_transformers(name: str, folder: Path, *, num_classes: int, **changes: Any) -> Any:
    """Write a random network as transformers does, with its names on disk; `changes` go into `config.json`."""
    network = _make_network(name, num_classes)
    network.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text("utf8"))
    (folder / "config.json").write_text(json.dumps(config | changes), "utf8")
    return network


@cache
def _make_network(name: str, num_classes: int) -> Any:
    import torch

    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        torch.manual_seed(1)
        return SMALL[name].make_network(num_classes).eval()
