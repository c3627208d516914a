"""The options of where a run computes, and of what it keeps so as not to compute it again."""

from typing import Annotated, Literal

from pydantic import Field

from zoo.data import DataOptions


class EngineOptions(DataOptions):
    """Where a run computes and in which numbers, besides the options of the data that the engine makes batches of."""

    micro_batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        default=None,
        description="images of a batch that are in the network at a time, their gradients added up; auto: as many as "
        "memory holds; null: the whole batch",
    )
    compile: bool = Field(default=False, description="compile the training step with torch.compile")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(default="auto", description="where it runs; auto: fastest")
    precision: Literal["no", "bf16", "fp16"] = Field(default="no", description="mixed precision; no: float32 alone")
    fuse_backbone: bool = Field(default=True, description="fold the norms of a frozen backbone into its convolutions")
    backbone_precision: Literal["auto", "no", "bf16", "fp16"] = Field(
        default="auto",
        description="of a frozen backbone; auto: bf16 on GPUs that have it and CPUs where it proves faster, else as "
        "precision says",
    )
    cache: Literal["auto", "off", "memory", "disk"] = Field(
        default="auto",
        description="where the features of a frozen backbone are kept; auto: where it pays, and says why",
    )
    cache_dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default="auto", description="numbers of kept features; auto: float16 for maps that it holds, else float32"
    )
    evaluate_every: int = Field(default=1, ge=1, description="epochs from one evaluation to the next")
