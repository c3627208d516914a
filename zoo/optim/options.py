"""The options of an optimizer step."""

from pydantic import Field

from zoo._fields import Options, Params


class StepOptions(Options):
    """How a step is taken."""

    optimizer: str = Field(
        default="SGD", description="name in torch.optim, timm or registered; SGD has momentum 0.9 unless told"
    )
    optimizer_params: Params = Field(default={}, description="further arguments of the optimizer, such as momentum")
    clip_grad_norm: float | None = Field(default=None, gt=0, description="longest gradient, as 2-norm; null: any")
    ema_decay: float | None = Field(
        default=None, gt=0, lt=1, description="share that an average of the weights keeps at each step; null: none"
    )
    ema_warmup: bool = Field(
        default=False, description="let that share rise with the steps, from 0: at most 1 - step ** (-2/3)"
    )
    freeze_norm_stats: bool = Field(default=False, description="keep running statistics of norm layers, trained or not")
