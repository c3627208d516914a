"""The open door to the rest of timm: `timm/<any name of timm>`, with or without a tag, behind the same interface.

Code: timm (huggingface/pytorch-image-models, Apache-2.0). The weights are those of timm's own table, at the head of
their repository: unpinned, with the licence that timm states. Models whose classifier is not one linear layer are
refused, because features and head could not be told apart.
"""

from functools import partial
from typing import Any

from zoo.data import Preprocess
from zoo.errors import InputError, did_you_mean
from zoo.models.registry import Entry
from zoo.weights import Weights


def has_model(name: str) -> bool:
    """Whether timm has a model of this name, with or without a tag."""
    import timm

    return bool(timm.is_model(name.partition(".")[0]))


def open_entry(name: str) -> Entry:
    """Return an entry for a name of timm, for example `vit_tiny_patch16_224` or `resnet50.tv_in1k`.

    Raises:
        InputError: If timm has no such model or tag, or it is not for square RGB images.
    """
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = did_you_mean(architecture, timm.list_models())
        raise InputError(f"timm has no model {architecture!r}.{near} timm.list_models() lists all.")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise InputError(
            f"timm's {architecture} has no weights {tag!r}.{did_you_mean(tag, tags)} "
            f"Known: {', '.join(tags) or 'none'}."
        )
    config: Any = timm.models.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
    channels, height, width = config.input_size
    if channels != 3 or height != width:
        raise InputError(f"timm's {name} takes images of {channels}x{height}x{width}; expected square RGB images.")
    has_weights = bool(config.hf_hub_id)
    return Entry(
        name=f"timm/{name}",
        task="classification",
        build=partial(_build, architecture),
        summary=f"{architecture} of timm",
        parameters=None,
        preprocess=Preprocess(
            image_size=height,
            mean=tuple(config.mean),
            std=tuple(config.std),
            interpolation=config.interpolation,
            crop_pct=config.crop_pct,
            crop_mode=config.crop_mode,
        ),
        weights=Weights(
            repo=config.hf_hub_id, revision=None, sha256=None, licence=config.license or "unknown", source="timm"
        )
        if has_weights
        else None,
        num_classes=config.num_classes,
        paper=config.paper_ids or "",
        options={
            "global_pool": ("avg", "max", "avgmax", "catavgmax", "map", "token"),
            "pad_type": ("", "same"),
        },
    )


def _build(architecture: str, **options: Any) -> Any:
    from zoo.models.classifier import build_timm

    return build_timm(architecture, **options)
