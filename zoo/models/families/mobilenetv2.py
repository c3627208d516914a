"""MobileNetV2: inverted residual blocks for small devices, in five widths and depths, from timm.

Paper: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", https://arxiv.org/abs/1801.04381. Code:
timm (huggingface/pytorch-image-models, Apache-2.0), parameter names unchanged: `conv_stem bn1 blocks conv_head bn2
classifier`. Weights: trained by timm's author; top-1 from timm's table at 224 px. Weights that come from TensorFlow
need its padding: option `pad_type="same"`, which their `config.json` sets.
"""

from typing import Any

from zoo.data import Preprocess
from zoo.models.registry import register
from zoo.weights import Weights

FACTS: dict[str, Any] = {
    "task": "classification",
    "preprocess": Preprocess(crop_pct=0.875),
    "paper": "https://arxiv.org/abs/1801.04381",
    "options": {"global_pool": ("avg", "max", "avgmax", "catavgmax"), "pad_type": ("", "same")},
}


@register(
    **FACTS,
    parameters=1.97,
    weights=Weights(
        repo="timm/mobilenetv2_050.lamb_in1k",
        revision=None,
        sha256=None,
        licence="apache-2.0",
        source="ImageNet-1k, LAMB",
        top1=65.93,
    ),
)
def mobilenetv2_050(**options: Any) -> Any:
    """MobileNetV2 at half width."""
    return _build("mobilenetv2_050", **options)


@register(
    **FACTS,
    aliases=("mobilenet_v2",),
    parameters=3.50,
    weights=Weights(
        repo="timm/mobilenetv2_100.ra_in1k",
        revision="f3ff81ba89de0bc46b546568ebeab2edef6b9d49",
        sha256="55ea4fb3a96010b933710ebf44fc965b070d5cd054d3f35e44f2d1320b4a714e",
        licence="apache-2.0",
        source="ImageNet-1k, RandAugment",
        top1=72.91,
        megabytes=14.2,
    ),
)
def mobilenetv2_100(**options: Any) -> Any:
    """MobileNetV2 at full width."""
    return _build("mobilenetv2_100", **options)


@register(
    **FACTS,
    parameters=4.52,
    weights=Weights(
        repo="timm/mobilenetv2_110d.ra_in1k",
        revision=None,
        sha256=None,
        licence="apache-2.0",
        source="ImageNet-1k, RandAugment",
        top1=75.06,
        megabytes=18.3,
    ),
)
def mobilenetv2_110d(**options: Any) -> Any:
    """MobileNetV2 at width 1.1, deeper by 1.2."""
    return _build("mobilenetv2_110d", **options)


@register(
    **FACTS,
    parameters=5.83,
    weights=Weights(
        repo="timm/mobilenetv2_120d.ra_in1k",
        revision=None,
        sha256=None,
        licence="apache-2.0",
        source="ImageNet-1k, RandAugment",
        top1=77.30,
    ),
)
def mobilenetv2_120d(**options: Any) -> Any:
    """MobileNetV2 at width 1.2, deeper by 1.4."""
    return _build("mobilenetv2_120d", **options)


@register(
    **FACTS,
    parameters=6.11,
    weights=Weights(
        repo="timm/mobilenetv2_140.ra_in1k",
        revision=None,
        sha256=None,
        licence="apache-2.0",
        source="ImageNet-1k, RandAugment",
        top1=76.53,
    ),
)
def mobilenetv2_140(**options: Any) -> Any:
    """MobileNetV2 at width 1.4."""
    return _build("mobilenetv2_140", **options)


def _build(name: str, **options: Any) -> Any:
    from zoo.models.classifier import build_timm  # loads torch: only when a model is built

    return build_timm(name, **options)
