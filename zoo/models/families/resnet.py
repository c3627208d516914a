"""ResNet: residual networks of basic (18, 34) and bottleneck (50, 101) blocks, from timm.

Paper: He et al., "Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385. Code: timm
(huggingface/pytorch-image-models, Apache-2.0), parameter names unchanged: `conv1 bn1 layer1 … layer4 fc`. Weights:
recipe A1 / A1H of Wightman et al., "ResNet strikes back", https://arxiv.org/abs/2110.00476; top-1 from timm's table at
224 px.
"""

from typing import Any

from zoo.data import Preprocess
from zoo.models.registry import register
from zoo.weights import Weights

FACTS: dict[str, Any] = {
    "task": "classification",
    "preprocess": Preprocess(crop_pct=0.95),
    "paper": "https://arxiv.org/abs/1512.03385",
    "options": {"global_pool": ("avg", "max", "avgmax", "catavgmax")},
}


@register(
    **FACTS,
    parameters=11.69,
    weights=Weights(
        repo="timm/resnet18.a1_in1k",
        revision="b9c542640ca04a6acab6e1ecff124a2d6ef1951d",
        sha256="80c49dee3da4822c009c5a7fe591e9223c5a2cfcf95a4067ca4dfb5a7b89c612",
        licence="apache-2.0",
        source="ImageNet-1k, recipe A1",
        top1=71.50,
        megabytes=46.8,
    ),
)
def resnet18(**options: Any) -> Any:
    """Residual network of 18 layers."""
    return _build("resnet18", **options)


@register(
    **FACTS,
    parameters=21.80,
    weights=Weights(
        repo="timm/resnet34.a1_in1k",
        revision=None,
        sha256=None,
        licence="apache-2.0",
        source="ImageNet-1k, recipe A1",
        top1=76.42,
    ),
)
def resnet34(**options: Any) -> Any:
    """Residual network of 34 layers."""
    return _build("resnet34", **options)


@register(
    **FACTS,
    parameters=25.56,
    weights=Weights(
        repo="timm/resnet50.a1_in1k",
        revision="5d9e13b8fdab4d9718bcf2c8f5c3af01878367e8",
        sha256="773525d5821de224f8f30c33377b7a795d7863e08522698200d3217d3f2a41bb",
        licence="apache-2.0",
        source="ImageNet-1k, recipe A1",
        top1=80.38,
        megabytes=102,
    ),
)
def resnet50(**options: Any) -> Any:
    """Residual network of 50 layers."""
    return _build("resnet50", **options)


@register(
    **FACTS,
    parameters=44.55,
    weights=Weights(
        repo="timm/resnet101.a1h_in1k",
        revision="21721ac354aff8c4fbc371f3c4e46fa8832d4d68",
        sha256="1a076c0384295e7d3704f201c5711ff245507db934230bab72ff3014a95f90fe",
        licence="apache-2.0",
        source="ImageNet-1k, recipe A1H",
        top1=81.95,
        megabytes=179,
    ),
)
def resnet101(**options: Any) -> Any:
    """Residual network of 101 layers."""
    return _build("resnet101", **options)


def _build(name: str, **options: Any) -> Any:
    from zoo.models.classifier import build_timm  # loads torch: only when a model is built

    return build_timm(name, **options)
