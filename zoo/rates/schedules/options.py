"""The options of a run's length and of the curve that its learning rates follow."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from zoo._fields import Options, Words
from zoo.rates.checks import check_schedule

SCHEDULE = "a name, or a mapping with 'kind'; in Python also a function of the step, or a torch scheduler"


class ScheduleOptions(Options):
    """How long a run is, and along which curve its learning rates go. As long as its fields are many."""

    # compat comes first, because it decides what a schedule may say
    compat: Literal["super-gradients"] | None = Field(
        default=None,
        description="super-gradients: reproduce its exact learning rates, to repeat old runs; null: zoo's schedules",
    )
    epochs: int = Field(default=10, ge=1, description="passes over the training images")
    accumulate: int = Field(default=1, ge=1, description="batches per optimizer step")
    schedule: Annotated[Any, Words(SCHEDULE)] = Field(
        default="cosine", description="learning-rate schedule after warm-up; `zoo schedules` lists names and settings"
    )
    warmup_epochs: float | None = Field(
        default=None, ge=0, description="length of the warm-up, epochs; null: 0.5 unless another field sets it"
    )
    warmup_steps: int | None = Field(
        default=None, ge=0, description="length of the warm-up in optimizer steps, instead of warmup_epochs"
    )
    warmup_start: float = Field(default=0.1, ge=0, le=1, description="learning rate at step 0 divided by the full rate")
    warmup_start_lr: float | None = Field(
        default=None,
        ge=0,
        description="learning rate at step 0 of the group with the highest lr, instead of warmup_start; other "
        "groups keep their ratio",
    )
    cooldown_epochs: float = Field(default=0.0, ge=0, description="epochs at the end at the final learning rate")
    final_lr_ratio: float = Field(
        default=0.01, ge=0, le=1, description="final learning rate of the cosine divided by the full rate"
    )

    @field_validator("schedule")
    @classmethod
    def _known_schedule(cls, schedule: Any, info: ValidationInfo) -> Any:
        return check_schedule(schedule, info.data.get("compat"))

    @field_validator("warmup_epochs", "warmup_steps")
    @classmethod
    def _one_warmup(cls, value: float | None, info: ValidationInfo) -> float | None:
        name, data = str(info.field_name), info.data
        if value is not None and name == "warmup_epochs" and value >= data.get("epochs", value + 1):
            epochs = data["epochs"]
            advice = f"Train for more epochs, or set warmup_epochs to {epochs / 2:g}."
            raise ValueError(f"warmup_epochs is {value}; expected less than epochs, which is {epochs}. {advice}")
        if value is None or data.get("compat"):
            return value
        if value and _kind(data.get("schedule")) == "one_cycle":
            raise ValueError(f"{name} is {value:g}, but the schedule one_cycle has its own warm-up. Remove it.")
        _refuse_if_said(data.get("schedule"), ("warmup_epochs", "warmup_steps"), name, value)
        if name == "warmup_steps" and (other := data.get("warmup_epochs")) is not None:
            raise ValueError(f"warmup_steps is {value} and warmup_epochs is {other:g}. Set one of them to null.")
        return value

    @field_validator("warmup_start")
    @classmethod
    def _has_an_effect(cls, start: float, info: ValidationInfo) -> float:
        compat = info.data.get("compat")
        if compat and start != cls.model_fields["warmup_start"].default:
            raise ValueError(f"warmup_start has no effect with compat {compat!r}. Use warmup_start_lr.")
        return start

    @field_validator("warmup_start_lr")
    @classmethod
    def _one_start(cls, start: float | None, info: ValidationInfo) -> float | None:
        if start is None or info.data.get("compat"):
            return start
        usual = cls.model_fields["warmup_start"].default
        ratio = info.data.get("warmup_start", usual)
        if ratio != usual:
            raise ValueError(f"warmup_start_lr is {start:g} and warmup_start is {ratio:g}. Remove one of them.")
        _refuse_if_said(info.data.get("schedule"), ("warmup_start", "warmup_start_lr"), "warmup_start_lr", start)
        return start

    @field_validator("cooldown_epochs")
    @classmethod
    def _ends_in_time(cls, cooldown: float, info: ValidationInfo) -> float:
        epochs, warmup = info.data.get("epochs"), info.data.get("warmup_epochs") or 0.0
        if cooldown and epochs and not info.data.get("compat"):
            _refuse_if_said(info.data.get("schedule"), ("cooldown_epochs",), "cooldown_epochs", cooldown)
            if warmup + cooldown >= epochs:
                what = f"{cooldown:g}, after {warmup:g} of warm-up" if warmup else f"{cooldown:g}"
                raise ValueError(f"cooldown_epochs is {what}; expected less than epochs, which is {epochs}.")
        return cooldown

    @field_validator("final_lr_ratio")
    @classmethod
    def _one_end(cls, ratio: float, info: ValidationInfo) -> float:
        if ratio != cls.model_fields["final_lr_ratio"].default:
            _refuse_if_said(info.data.get("schedule"), ("final_ratio",), "final_lr_ratio", ratio)
        return ratio


def _kind(schedule: Any) -> Any:
    return schedule.get("kind") if isinstance(schedule, dict) else schedule


def _refuse_if_said(schedule: Any, keys: Sequence[str], name: str, value: float) -> None:
    """Refuse a field about the whole run that the run's own schedule contradicts."""
    said = [key for key in keys if isinstance(schedule, dict) and schedule.get(key) is not None]
    if said:
        raise ValueError(f"{name} is {value:g}, and schedule.{said[0]} is {schedule[said[0]]}. Remove one of them.")
