"""The options of an optimizer step."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from zoo._fields import Options, Params


class StepOptions(Options):
    """How a step is taken, or how the head is solved without steps."""

    solver: Literal["exact", "prototype", "auto"] | None = Field(
        default=None,
        description="classifiers: solve the linear head on a frozen backbone instead of training it in steps; exact: "
        "logistic regression with an L2 penalty, at its optimum; prototype: nearest class mean, for 1 to 5 images per "
        "class; auto: one of the two by the images per class; null: train in steps",
    )
    l2: float | None = Field(
        default=None,
        gt=0,
        description="L2 penalty of solver=exact and head_init=exact: l2 / 2 times the squared weights on standardised "
        "features, beside the mean loss; null: chosen by cross-validation within the training images",
    )
    head_init: Literal["exact"] | None = Field(
        default=None,
        description="classifiers: start training from a linear head that was solved on the features of the starting "
        "weights; null: from a new head",
    )
    optimizer: str = Field(
        default="SGD", description="name in torch.optim or timm, or a registered one; SGD uses momentum 0.9 by default"
    )
    optimizer_params: Params = Field(default={}, description="other arguments of the optimizer, such as momentum")
    clip_grad_norm: float | None = Field(default=None, gt=0, description="maximum gradient norm (clipping); null: off")
    ema_decay: float | None = Field(
        default=None, gt=0, lt=1, description="decay of the exponential moving average (EMA) of the weights; null: off"
    )
    ema_warmup: bool = Field(default=False, description="ramp the EMA decay up from 0: at most 1 - step ** (-2/3)")
    swa_epochs: int | None = Field(
        default=None,
        ge=2,
        description="average the weights after each of the last N epochs (SWA) and keep the mean if it scores better "
        "than the best epoch; null: no average",
    )
    freeze_norm_stats: bool = Field(default=False, description="do not update the running statistics of any norm layer")

    @field_validator("swa_epochs", "patience", check_fields=False)
    @classmethod
    def _one_average(cls, value: int | None, info: ValidationInfo) -> int | None:
        """A mean of the last epochs needs to know these, and weights that are not averaged already."""
        mean = value if info.field_name == "swa_epochs" else info.data.get("swa_epochs")
        if mean is None or value is None:
            return value
        said, epochs = f"swa_epochs is {mean}", info.data.get("epochs", mean)
        if info.field_name == "patience":  # a field of the whole preset, as epochs is
            raise ValueError(f"{said}, but with patience the last epochs are not known. Remove one of them.")
        if mean > epochs:
            raise ValueError(f"{said}, and the run has {epochs} epochs. Set it to {epochs} or less.")
        if info.data.get("ema_decay") is not None:
            raise ValueError(f"{said}, and ema_decay averages the weights already. Remove one of them.")
        return value
