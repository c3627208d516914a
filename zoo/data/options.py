"""The options of images and batches, whatever the task."""

from typing import Literal

from pydantic import Field

from zoo._fields import Options


class DataOptions(Options):
    """What the model sees, and in which order. As long as its fields are many."""

    batch_size: int = Field(default=32, ge=1, description="images per batch and process")
    image_size: int | None = Field(default=None, ge=8, le=4096, description="side of the input, px; null: the weights'")
    augment: Literal["auto", "none", "crop-flip", "trivial"] = Field(
        default="auto",
        description="changes to training images; auto: none if the backbone is frozen, else crop-flip; trivial: "
        "crop-flip and one random operation more",
    )
    flip_probability: float = Field(default=0.5, ge=0, le=1, description="chance of a left-right flip")
    val_fraction: float = Field(default=0.2, gt=0, lt=1, description="share held out if no validation data is given")
    split_seed: int | None = Field(default=None, ge=0, description="seed of that choice; null: seed")
    classes: list[str] = Field(
        default=[], description="names by whose order the data's classes are numbered; others come after them"
    )
    skip_bad: bool = Field(default=False, description="leave out unreadable images instead of stopping")
    seed: int = Field(default=0, ge=0, description="seed of split, order and augmentation")
    num_workers: int | None = Field(default=None, ge=0, description="processes that read images; null: chosen")
    views: int = Field(
        default=1, ge=1, le=1000, description="changed versions of each image, repeated in turn; 1: new ones each epoch"
    )
    image_cache: Literal["off", "memory", "disk"] = Field(
        default="off", description="where decoded images are kept while a run lasts, to be decoded once"
    )
    image_cache_gb: float = Field(default=4.0, gt=0, description="most that they take, GB")
