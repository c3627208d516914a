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
        description="learning rate; or rates, or settings (listed below), by prefix of the parameter names and kind of "
        "layer (backbone, @norm, backbone@norm), with 'default' for the rest; 0 freezes",
    )
    mode: Literal["head", "low_lr", "full"] | None = Field(
        default=None,
        description="what learns under a single lr: the head alone, the rest slower, or all at one rate; null: head, "
        "or all if rates fall with depth or the model does not know its head",
    )
    backbone_lr_factor: float = Field(
        default=0.1, gt=0, le=1, description="rate of the rest over lr, in mode low_lr and for what is unfrozen later"
    )
    layer_decay: float | None = Field(
        default=None, gt=0, le=1, description="factor of the rate from each layer to the one before it; null: none"
    )
    first_lr: float | None = Field(
        default=None, gt=0, description="rate of the first layer, lr being that of the last; geometric in between"
    )
    unfreeze: Annotated[dict[str, str | list[str]], Words(UNFREEZING)] = Field(
        default={}, description="epochs that pass before a part learns, and its prefixes: {3: layer4, 6: default}"
    )
    weight_decay: float | None = Field(
        default=None, ge=0, description="decay of the weights; null: the optimizer's own default, 1e-4 for SGD"
    )
    decay_norm_and_bias: bool = Field(default=False, description="decay norm layers, biases and all 1-D parameters too")
    gradient_centralization: bool = Field(default=False, description="subtract the mean of each gradient of rank 2+")
    order: list[str] = Field(default=[], description="names of all parameters that learn, as the optimizer has them")
    unmatched: Literal["error", "warn", "ignore"] = Field(
        default="error", description="what to do about a key of lr that matches no parameter"
    )
    training_params: Params = Field(default={}, description="values handed to the model's own parameter-group hooks")

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
            raise ValueError(f"mode is {mode!r}, but lr already gives a rate to every prefix. Remove one of them.")
        return mode

    @field_validator("layer_decay", "first_lr")
    @classmethod
    def _one_fall(cls, value: float | None, info: ValidationInfo) -> float | None:
        name, mode = str(info.field_name), info.data.get("mode")
        if value is None:
            return value
        if isinstance(info.data.get("lr"), dict):
            raise ValueError(f"{name} is {value:g}, but lr already gives a rate to every prefix. Remove one of them.")
        if mode == "head":
            raise ValueError(f"{name} is {value:g}, but mode is 'head', where one layer learns. Use mode 'full'.")
        if name == "first_lr" and mode == "low_lr":
            raise ValueError("first_lr and mode 'low_lr' both say how slow the first layers are. Use mode 'full'.")
        if name == "first_lr" and info.data.get("layer_decay") is not None:
            raise ValueError("first_lr and layer_decay both say how rates fall with depth. Remove one of them.")
        return value
