"""The options of where a run computes, and of what it keeps so as not to compute it again."""

from typing import Annotated, Literal

from pydantic import Field

from zoo.data import DataOptions


class EngineOptions(DataOptions):
    """Where a run computes and in which numbers, besides the options of the data that the engine makes batches of."""

    micro_batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        default=None,
        description="images per micro-batch; gradients are accumulated over the batch; auto: the largest size that "
        "fits in memory; null: the whole batch",
    )
    compile: bool = Field(default=False, description="compile the training step with torch.compile")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="device to run on; auto: the fastest available"
    )
    precision: Literal["no", "bf16", "fp16"] = Field(default="no", description="mixed precision; no: float32")
    fuse_backbone: bool = Field(
        default=True, description="fold the norm layers of a frozen backbone into its convolutions"
    )
    backbone_precision: Literal["auto", "no", "bf16", "fp16"] = Field(
        default="auto",
        description="precision of a frozen backbone; auto: bf16 on GPUs that support it and on CPUs where it measures "
        "faster, else as in precision",
    )
    cache: Literal["auto", "off", "memory", "disk"] = Field(
        default="auto",
        description="where to cache the features of a frozen backbone; auto: disk or memory if it saves time",
    )
    cache_dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default="auto",
        description="dtype of cached features; auto: float16 for feature maps within its range, else float32",
    )
    evaluate_every: int = Field(default=1, ge=1, description="epochs between evaluations")
