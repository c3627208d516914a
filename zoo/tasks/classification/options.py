"""The preset's fields that classifiers alone have."""

from typing import Annotated, Literal

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
    class_weights: Literal["none", "balanced", "effective"] | dict[str, Annotated[float, Field(gt=0)]] = Field(
        default="none",
        description="classifiers: weight of each class in the loss; balanced: 1 / its training images; effective: 1 / "
        "their effective number (Cui et al. 2019); or relative weights by class name, 1 for others",
    )
    focal_gamma: float | None = Field(
        default=None,
        gt=0,
        description="classifiers: gamma of the focal loss (Lin et al. 2017), for example 2; null: plain cross-entropy",
    )
    sampler: Literal["shuffle", "balanced"] = Field(
        default="shuffle",
        description="classifiers: shuffle: each training image once per epoch; balanced: as many images per epoch, "
        "drawn with replacement, each class equally often",
    )
    image_root: str | None = Field(
        default=None,
        description="classifiers: folder that image paths of a table start in; null: the table's",
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
