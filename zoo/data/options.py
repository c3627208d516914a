"""The options of images and batches, whatever the task."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_serializer, field_validator

from zoo._fields import Options, Words
from zoo.data.user_transform import check_transform, name_transform


class DataOptions(Options):
    """What the model sees, and in which order. As long as its fields are many."""

    batch_size: int = Field(default=32, ge=1, description="images per batch and process")
    image_size: int | None = Field(default=None, ge=8, le=4096, description="input size, px; null: the model's")
    decode: Literal["fast", "full"] | None = Field(
        default=None,
        description="fast: JPEGs are decoded at a half, a quarter or an eighth of their size where that leaves at "
        "least twice the pixels that are needed; full: at their size; null: fast, but full with compat; kept with the "
        "model, which predicts alike",
    )
    augment: Literal["auto", "none", "crop-flip", "trivial", "rand", "augmix", "imagenet", "cifar10", "svhn"] = Field(
        default="auto",
        description="augmentation of training images; none: turned off; auto: none with a frozen backbone and no other "
        "augmentation set, else crop-flip; others: crop-flip and TrivialAugment, RandAugment, AugMix, or the "
        "AutoAugment policy of that data set",
    )
    flip_probability: float = Field(default=0.5, ge=0, le=1, description="probability of a horizontal flip")
    vertical_flip: float = Field(default=0.0, ge=0, le=1, description="probability of a vertical flip")
    max_rotation: float = Field(
        default=0.0, ge=0, le=180, description="random rotation by up to this angle either way, degrees"
    )
    grayscale: float = Field(default=0.0, ge=0, le=1, description="probability that an image becomes gray")
    transform: Annotated[Any, Words("a string module:name, or null; in Python also a callable object")] = Field(
        default=None,
        description="your own transform, called with each decoded training image before it is resized: module:name of "
        "one of torchvision or albumentations, or of a function without arguments that makes one; imported from the "
        "current folder or the Python path",
    )
    sampler: Literal["shuffle", "balanced", "repeat"] = Field(
        default="shuffle",
        description="shuffle: each training image once per epoch; balanced (classifiers): as many images per epoch, "
        "drawn with replacement, each class equally often; repeat (detectors): images of rare classes several times "
        "per epoch (LVIS, Gupta et al. 2019)",
    )
    val_fraction: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="fraction of the training images held out for validation if the data has no val split",
    )
    split_seed: int | None = Field(default=None, ge=0, description="random seed of that split; null: seed")
    classes: list[str] = Field(default=[], description="class names in order; other classes of the data follow")
    skip_bad: bool = Field(default=False, description="skip unreadable images instead of stopping")
    seed: int = Field(default=0, ge=0, description="random seed of split, order and augmentation")
    num_workers: int | None = Field(
        default=None, ge=0, description="data-loading processes; null: chosen automatically"
    )
    views: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="augmented versions of each image to cache and use in turn; 1: new ones each epoch",
    )
    image_cache: Literal["off", "memory", "disk"] = Field(
        default="off", description="where to cache decoded images during a run"
    )
    image_cache_gb: float = Field(default=4.0, gt=0, description="size limit of image_cache, GB")

    @field_validator("transform")
    @classmethod
    def _name_or_object(cls, transform: Any) -> Any:
        return check_transform(transform)

    @field_serializer("transform")
    def _by_name(self, transform: Any) -> str | None:
        return name_transform(transform)
