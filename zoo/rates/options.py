"""The options that say which parameter learns when, and how fast."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, ValidationInfo, ValidatorFunctionWrapHandler, field_validator

from zoo._fields import Params, Words
from zoo.rates.checks import check_rates, check_unfreezing
from zoo.rates.schedules.options import ScheduleOptions
from zoo.rates.spec import GroupSettings

UNFREEZING = "a mapping of epochs to a prefix, or to a list of prefixes"


class RateOptions(ScheduleOptions):
    """What learns, how fast, and along which curve. As long as its fields are many."""

    lr: NonNegativeFloat | dict[str, NonNegativeFloat | GroupSettings] = Field(
        default=0.01,
        description="learning rate; or a mapping of parameter-name prefixes and layer kinds (backbone, @norm, "
        "backbone@norm) to rates or settings (listed below), with 'default' for the rest; 0 freezes",
    )
    mode: Literal["head", "low_lr", "full"] | None = Field(
        default=None,
        description="what to train with a single lr: head only, low_lr (backbone at a lower rate) or full (all at lr); "
        "null: head, or full with layer_decay, first_lr or a model without a defined head",
    )
    backbone_lr_factor: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="backbone learning rate divided by lr, in mode low_lr and for parts unfrozen later",
    )
    layer_decay: float | None = Field(
        default=None, gt=0, le=1, description="learning-rate factor from each layer to the one before it; null: off"
    )
    first_lr: float | None = Field(
        default=None,
        gt=0,
        description="learning rate of the first layer, lr being that of the last; geometric in between",
    )
    unfreeze: Annotated[dict[str, str | list[str]], Words(UNFREEZING)] = Field(
        default={},
        description="when to unfreeze, as epochs trained before: prefixes; for example {3: layer4, 6: default}",
    )
    weight_decay: float | None = Field(
        default=None, ge=0, description="weight decay; null: the optimizer's default, 1e-4 for SGD"
    )
    decay_norm_and_bias: bool = Field(
        default=False, description="apply weight decay to norm layers, biases and all 1-D parameters too"
    )
    gradient_centralization: bool = Field(
        default=False, description="subtract the mean of each gradient with 2 or more dimensions"
    )
    order: list[str] = Field(default=[], description="names of all trained parameters, in the optimizer's order")
    unmatched: Literal["error", "warn", "ignore"] = Field(
        default="error", description="what to do if a key of lr matches no parameter"
    )
    training_params: Params = Field(default={}, description="values passed to the model's parameter-group hooks")

    @field_validator("lr", mode="wrap")
    @classmethod
    def _rates(cls, lr: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        return check_rates(lr, handler, info.data.get("compat"))

    @field_validator("unfreeze", mode="wrap")
    @classmethod
    def _unfreezing(cls, unfreeze: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        return check_unfreezing(unfreeze, handler)

    @field_validator("mode")
    @classmethod
    def _one_plan(cls, mode: str | None, info: ValidationInfo) -> str | None:
        if mode is not None and isinstance(info.data.get("lr"), dict):
            raise ValueError(
                f"mode is {mode!r}, but lr is a mapping and already sets every learning rate. Remove one of them."
            )
        return mode

    @field_validator("layer_decay", "first_lr")
    @classmethod
    def _one_fall(cls, value: float | None, info: ValidationInfo) -> float | None:
        name, mode = str(info.field_name), info.data.get("mode")
        if value is None:
            return value
        if isinstance(info.data.get("lr"), dict):
            raise ValueError(
                f"{name} is {value:g}, but lr is a mapping and already sets every learning rate. Remove one of them."
            )
        if mode == "head":
            raise ValueError(f"{name} is {value:g}, but mode 'head' trains one layer only. Use mode 'full'.")
        if name == "first_lr" and mode == "low_lr":
            raise ValueError(
                "first_lr and mode 'low_lr' both set the learning rate of the first layers. Use mode 'full'."
            )
        if name == "first_lr" and info.data.get("layer_decay") is not None:
            raise ValueError("first_lr and layer_decay both set learning rates by depth. Remove one of them.")
        return value
