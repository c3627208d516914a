"""The preset's fields that detectors alone have."""

from pydantic import Field

from zoo._fields import Options as Section
from zoo._fields import Params


class Options(Section):
    """Options of detectors, flat in a preset."""

    loss_params: Params = Field(
        default={}, description="detectors: arguments of the model's loss, such as assigner, iou_weight, dfl_weight"
    )
    photometric: float = Field(default=0.0, ge=0, le=1, description="detectors: probability of colour jitter")
    zoom_out: float = Field(default=0.0, ge=0, le=1, description="detectors: probability of zoom-out (padding)")
    iou_crop: float = Field(
        default=0.0, ge=0, le=1, description="detectors: probability of a random crop that keeps boxes"
    )
    scale_jitter: float = Field(
        default=0.0, ge=0, le=0.9, description="detectors: random scaling by 1 / (1 + x) to 1 + x"
    )
    multi_scale: float = Field(
        default=0.0, ge=0, le=0.9, description="detectors: random input size per batch, 1 - x to 1 + x times image_size"
    )
    mosaic: float = Field(
        default=0.0, ge=0, le=1, description="detectors: probability of mosaic (four images combined)"
    )
    mixup: float = Field(default=0.0, ge=0, le=1, description="detectors: probability of mixup (two images blended)")
    plain_epochs: int = Field(default=0, ge=0, description="detectors: epochs at the end without mosaic and mixup")
    repeat_threshold: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="detectors: with sampler=repeat: a class in a smaller fraction f of the training images is "
        "repeated sqrt(x / f) times",
    )
