"""The options of an optimizer step."""

from pydantic import Field

from zoo._fields import Options, Params


class StepOptions(Options):
    """How a step is taken."""

    optimizer: str = Field(
        default="SGD", description="name in torch.optim or timm, or a registered one; SGD uses momentum 0.9 by default"
    )
    optimizer_params: Params = Field(default={}, description="other arguments of the optimizer, such as momentum")
    clip_grad_norm: float | None = Field(default=None, gt=0, description="maximum gradient norm (clipping); null: off")
    ema_decay: float | None = Field(
        default=None, gt=0, lt=1, description="decay of the exponential moving average (EMA) of the weights; null: off"
    )
    ema_warmup: bool = Field(default=False, description="ramp the EMA decay up from 0: at most 1 - step ** (-2/3)")
    freeze_norm_stats: bool = Field(default=False, description="do not update the running statistics of any norm layer")
