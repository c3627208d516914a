"""YOLO-NAS as a model of this package: the network, its loss, its decoding, and the attributes that every model has."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, get_args

from torch import Tensor

from zoo.errors import InputError, did_you_mean
from zoo.models.detector import Detector
from zoo.models.families.yolo_nas.assigners import Assigner, StaticAssigner, TaskAlignedAssigner
from zoo.models.families.yolo_nas.heads import Outputs
from zoo.models.families.yolo_nas.loss import DetectionLosses, YoloNasLoss
from zoo.models.families.yolo_nas.network import Size, YoloNASNetwork
from zoo.tasks.detection import Predictions

AssignerName: TypeAlias = Literal["task-aligned", "static"]

ASSIGNERS: dict[str, Callable[[], Assigner]] = {"task-aligned": TaskAlignedAssigner, "static": StaticAssigner}
SETTINGS = ("classification", "class_weight", "iou_weight", "dfl_weight")


class YoloNAS(Detector, YoloNASNetwork):
    """A YOLO-NAS that can be trained, and that finds things on images.

    Args:
        size: One of `zoo.models.families.yolo_nas.network.SIZES`.
        num_classes: Number of classes.
        in_channels: Channels of the images; `predict` needs 3.

    Attributes:
        class_prefixes: Prefixes of the parameters that depend on the classes.
    """

    class_prefixes = tuple(f"heads.head{number}.cls_pred." for number in (1, 2, 3))

    def __init__(self, size: Size, *, num_classes: int = 80, in_channels: int = 3) -> None:
        super().__init__(size, num_classes=num_classes, in_channels=in_channels)

    def decode(self, outputs: Any) -> Predictions:
        """Return the boxes and scores of all places, of what `forward` gave."""
        predictions = outputs if isinstance(outputs[0], Tensor) else outputs[0]  # a traced network gives these alone
        return Predictions(*predictions)

    def loss(
        self,
        outputs: Outputs,
        rows: Tensor,
        *,
        assigner: AssignerName = "task-aligned",
        **settings: Any,
    ) -> Tensor:
        """Return the loss of a batch, a scalar in float32.

        Args:
            outputs: Of `forward`.
            rows: `(N, 6)` image index, class, centre x, centre y, width, height in pixels of the network's input.
            assigner: `task-aligned`, or `static` (ATSS), which looks at places only.
            settings: Of `YoloNasLoss`: classification, class_weight, iou_weight, dfl_weight.

        Raises:
            InputError: A setting is unknown or out of range, or the rows do not fit the batch.
        """
        return self._compare(outputs, rows, assigner, settings).total

    def loss_parts(
        self, outputs: Outputs, rows: Tensor, *, assigner: AssignerName = "task-aligned", **settings: Any
    ) -> dict[str, Tensor]:
        """Return the weighted terms of `loss`, without gradient; their sum in this order is the loss to the bit."""
        losses = self._compare(outputs, rows, assigner, settings)
        return {"classification": losses.classification, "iou": losses.iou, "dfl": losses.dfl}

    def _compare(
        self, outputs: Outputs, rows: Tensor, assigner: AssignerName, settings: Mapping[str, Any]
    ) -> DetectionLosses:
        _, raw = outputs
        return _make_criterion(assigner, settings)(raw, rows)

    def check_loss_params(self, params: Mapping[str, Any]) -> None:
        """Refuse settings that `loss` does not take.

        Raises:
            InputError: One is unknown or out of range.
        """
        settings = {"assigner": "task-aligned", **params}
        _make_criterion(settings.pop("assigner"), settings)


def _make_criterion(assigner: Any, settings: Mapping[str, Any]) -> YoloNasLoss:
    """Return the loss with these settings."""
    if not isinstance(assigner, str) or assigner not in ASSIGNERS:
        names = get_args(AssignerName)
        hint = did_you_mean(str(assigner), names)
        raise InputError(f"assigner is {assigner!r}; expected {' or '.join(names)}.{hint}")
    for name in settings:
        if name not in SETTINGS:
            raise InputError(
                f"the loss of YOLO-NAS has no setting {name!r}; expected assigner, {', '.join(SETTINGS)}."
                f"{did_you_mean(name, ('assigner', *SETTINGS))}"
            )
    return YoloNasLoss(assigner=ASSIGNERS[assigner](), **settings)
