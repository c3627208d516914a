"""The preset's fields that classifiers alone have."""

from typing import Annotated, Literal

from pydantic import Field

from zoo._fields import Options as Section


class Options(Section):
    """Options of classifiers, flat in a preset."""

    labels: Literal["single", "multi"] = Field(
        default="single", description="classifiers: labels of an image: one class, or multi: any number of labels"
    )
    multi_label_loss: Literal["bce", "asymmetric"] = Field(
        default="bce",
        description="loss of labels=multi: binary cross-entropy, or asymmetric (Ridnik et al. 2021), for many labels "
        "of which an image has few",
    )
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
    image_root: str | None = Field(
        default=None,
        description="classifiers: folder that image paths of a table start in; null: the table's",
    )
    exclude: str | None = Field(
        default=None,
        description="classifiers: table with a column path of images to leave out (zoo data check writes one); null: "
        "none",
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
    color_jitter: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="classifiers: random brightness, contrast and saturation, each times 1 - x to 1 + x",
    )
    random_erasing: float = Field(
        default=0.0, ge=0, le=1, description="classifiers: probability that a random rectangle is erased"
    )
    mixup_alpha: float = Field(
        default=0.0,
        ge=0,
        description="classifiers: mixup (Zhang et al. 2018): images of a batch are blended in pairs, in shares of "
        "Beta(x, x), for example 0.2; 0: off; with cutmix_alpha every other batch on average",
    )
    cutmix_alpha: float = Field(
        default=0.0,
        ge=0,
        description="classifiers: CutMix (Yun et al. 2019): a part of each image is replaced by another one's, its "
        "share from Beta(x, x), for example 1; 0: off",
    )
    augment_magnitude: int | None = Field(
        default=None,
        ge=0,
        le=30,
        description="strength of augment=rand (0 to 30) or augmix (1 to 10); null: 9 or 3",
    )
    rand_ops: int | None = Field(default=None, ge=1, le=14, description="operations per image of augment=rand; null: 2")
    resizer: Literal["pillow", "torch"] = Field(
        default="pillow",
        description="library that resizes training images of classifiers; torch: twice as fast, 1 in 300 values "
        "differs by 1",
    )
