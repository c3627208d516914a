"""YOLO-NAS: detectors found by an architecture search, of QARepVGG blocks, in three sizes.

Code: written anew after super-gradients (Deci-AI/super-gradients, commit e0ccacf, Apache-2.0), with its parameter
names `backbone neck heads`. mAP from that repository's table: COCO 2017 val, 640 px, FP16. The weights are not free:
see `NOTICE`. Their SHA-256 are those that LibreYOLO pins.
"""

from functools import partial
from pathlib import Path
from typing import Any

from zoo.data import Letterbox
from zoo.errors import WeightsError
from zoo.models.families._coco import COCO_CLASSES
from zoo.models.registry import Shapes, register
from zoo.weights import ConvertedCheckpoint, FileWeights, Weights

LICENCE = "licenseref-yolo-nas-non-commercial"
NOTICE = (
    "The YOLO-NAS weights are under Deci.AI's licence, not Apache-2.0: no commercial or production use, no "
    "redistribution.",
    "The same terms apply to models fine-tuned from them, but not to models trained from random weights.",
)
MIRROR = "CondadosAI/detectors"  # a copy with the same names, seen in public use since 2026-09; not verified yet
SERVERS = (  # the last one has been silent since October 2024
    "https://sg-hub-nv.s3.amazonaws.com/models",
    "https://d2gjn4b69gu75n.cloudfront.net/models",
    "https://sghub.deci.ai/models",
)
STEMS = ("backbone.stem.conv.branch_3x3.conv.weight", "backbone.stem.conv.rbr_reparam.weight")  # (48, channels, 3, 3)
PREDICTOR = "heads.head1.cls_pred.weight"  # (classes, width, 1, 1)
WIDTHS = {64: "yolo_nas_s", 96: "yolo_nas_m", 128: "yolo_nas_l"}


def read_checkpoint(path: Path, *, with_processing: bool = True) -> ConvertedCheckpoint:
    """Read a `.pth` of super-gradients; nothing in it is run.

    Args:
        path: The file.
        with_processing: Whether to read class names and preprocessing, too.

    Raises:
        WeightsError: It cannot be read as data, or its preprocessing cannot be had here.
    """
    from zoo.models.families.yolo_nas.sg_checkpoint import read_sg_checkpoint

    tensors, config, notes = read_sg_checkpoint(path, with_processing=with_processing)
    names, rows = config.get("classes"), tensors[PREDICTOR].shape[:1] if PREDICTOR in tensors else ()
    if names and rows and len(names) != rows[0]:
        del config["classes"]
        notes = (*notes, f"its {len(names)} class names were ignored: the weights have {rows[0]} classes")
    return ConvertedCheckpoint(tensors, config, notes)


def find_name(shapes: Shapes) -> str | None:
    """Return the name of the model that a state dict is of, by names and shapes; None if it is no YOLO-NAS."""
    shape = shapes.get(PREDICTOR, ())
    return WIDTHS.get(shape[1]) if len(shape) == 4 else None


def _read_options(name: str, shapes: Shapes) -> dict[str, Any]:
    """Return the options that weights are for.

    Raises:
        WeightsError: They are of another size.
    """
    other = find_name(shapes)
    if other not in (None, name):
        raise WeightsError(f"these weights are for {other}, not for {name}. Use {other} instead.")
    stem = next((shapes[key] for key in STEMS if len(shapes.get(key, ())) == 4), None)
    return {"in_channels": stem[1]} if stem else {}


def _facts(name: str, *, sha256: str, mean_ap: float) -> dict[str, Any]:
    filename = f"{name}_coco.pth"
    return {
        "task": "detection",
        "preprocess": Letterbox(),
        "postprocess": {"conf": 0.25, "iou": 0.7, "nms_top_k": 1024, "max_predictions": 300},
        "weights": FileWeights(
            filename=filename,
            sha256=sha256,
            mirror=Weights(
                repo=MIRROR,
                filename=f"{name.replace('_', '-')}.safetensors",
                revision=None,
                sha256=None,
                licence=LICENCE,
                notice=NOTICE,
            ),
            locations=tuple(f"{server}/{filename}" for server in SERVERS),
            licence=LICENCE,
            notice=NOTICE,
            source="Deci.AI, COCO 2017",
            mean_ap=mean_ap,
            repo_setting="yolo_nas_repo",
        ),
        "num_classes": len(COCO_CLASSES),
        "classes": COCO_CLASSES,
        "paper": "https://github.com/Deci-AI/super-gradients/blob/master/YOLONAS.md",
        "options": {"in_channels": range(1, 257)},
        "read_options": partial(_read_options, name),
        "read_foreign": read_checkpoint,
    }


@register(
    **_facts("yolo_nas_s", sha256="c1b1d9148ab8ae5d5984699547e850955ff9efccaf568c67b3d605acb4bfe1cb", mean_ap=47.5),
    parameters=19.05,
)
def yolo_nas_s(*, num_classes: int, in_channels: int = 3) -> Any:
    """Detector of YOLO-NAS, small."""
    return _build("s", num_classes, in_channels)


@register(
    **_facts("yolo_nas_m", sha256="b194fc7fa196f76161c6356558bedf04fb99a62325a74a36a4bec3ca8ba48250", mean_ap=51.55),
    parameters=51.18,
)
def yolo_nas_m(*, num_classes: int, in_channels: int = 3) -> Any:
    """Detector of YOLO-NAS, medium."""
    return _build("m", num_classes, in_channels)


@register(
    **_facts("yolo_nas_l", sha256="91a06beaa1ce1a651d6691e3198061da996eafc8890503238dedacbd4c392a32", mean_ap=52.22),
    parameters=66.98,
)
def yolo_nas_l(*, num_classes: int, in_channels: int = 3) -> Any:
    """Detector of YOLO-NAS, large."""
    return _build("l", num_classes, in_channels)


def _build(size: str, num_classes: int, in_channels: int) -> Any:
    from zoo.models.families.yolo_nas.model import YoloNAS  # loads torch: only when a model is built
    from zoo.models.families.yolo_nas.network import SIZES

    return YoloNAS(SIZES[size], num_classes=num_classes, in_channels=in_channels)
