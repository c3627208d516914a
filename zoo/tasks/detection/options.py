"""The preset's fields that detectors alone have."""

from pydantic import Field

from zoo._fields import Options as Section
from zoo._fields import Params


class Options(Section):
    """Options of detectors, flat in a preset."""

    loss_params: Params = Field(
        default={}, description="detectors: arguments of the model's own loss, such as assigner, iou_weight, dfl_weight"
    )
    photometric: float = Field(default=0.0, ge=0, le=1, description="detectors: chance of other light and colours")
    zoom_out: float = Field(default=0.0, ge=0, le=1, description="detectors: chance of a larger empty canvas around it")
    iou_crop: float = Field(default=0.0, ge=0, le=1, description="detectors: chance of a crop that keeps some boxes")
    scale_jitter: float = Field(
        default=0.0, ge=0, le=0.9, description="detectors: images scaled by up to 1 + this, or divided by it"
    )
    multi_scale: float = Field(
        default=0.0, ge=0, le=0.9, description="detectors: batches at sides of 1 - this to 1 + this times the input's"
    )
    mosaic: float = Field(default=0.0, ge=0, le=1, description="detectors: chance of four images put together")
    mixup: float = Field(default=0.0, ge=0, le=1, description="detectors: chance of two images blended")
    plain_epochs: int = Field(default=0, ge=0, description="detectors: epochs at the end without mosaic and mixup")
