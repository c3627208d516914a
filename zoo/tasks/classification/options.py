"""The preset's fields that classifiers alone have."""

from typing import Literal

from pydantic import Field

from zoo._fields import Options as Section


class Options(Section):
    """Options of classifiers, flat in a preset."""

    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="label smoothing: share of the target spread over all classes",
    )
    crop_pct: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="fraction of the shorter side that the evaluation crop keeps; null: the model's",
    )
    crop_scale_min: float = Field(
        default=0.35, gt=0, le=1, description="smallest random crop, as a fraction of the image area"
    )
    resizer: Literal["pillow", "torch"] = Field(
        default="pillow",
        description="library that resizes training images of classifiers; torch: twice as fast, 1 in 300 values "
        "differs by 1",
    )
