"""All options of a fine-tuning run as one checked, frozen value: the sum of the sections of the packages and the tasks.

A preset file holds only what differs from the defaults; meaning, unit, range and default of a field live in its section
and nowhere else. Whatever is wrong with a preset is reported at once, with line numbers where it comes from a file.
"""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import (
    BaseModel,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
)
from pydantic.fields import FieldInfo

from zoo._fields import Options, Path, explain
from zoo.data import DataOptions, name_transform
from zoo.engine import EngineOptions
from zoo.errors import PresetError
from zoo.files import KeyPath, Problem, write_yaml
from zoo.optim import StepOptions
from zoo.rates import GroupSettings, RateOptions, rates_for_file, schedule_for_file
from zoo.settings.fields import (
    FORMER,
    Origin,
    PresetField,
    describe,
    did_you_mean_field,
    find_former,
    in_order,
    refusal,
)
from zoo.settings.trackers import TRACKERS, TrackerNames
from zoo.tasks import find_options


# The bases are read from the last to the first: the checks of a step know the rates.
class Preset(EngineOptions, DataOptions, StepOptions, RateOptions):
    """Every option of a run; `zoo preset show --fields` prints them. Frozen: `replace` makes a changed one.

    What one task alone has is checked by the options of that task and kept in `task_options`; in files, arguments and
    attributes it is a field like any other.

    Raises:
        PresetError: With unknown names, wrong types and values out of range, all at once.
    """

    model: str | None = Field(
        default=None, description="model name (`zoo models` lists them); null: the model passed to zoo.finetune"
    )
    pretrained: bool | str | None = Field(
        default=None,
        description="weights to start from: true, false, a path or org/name[@revision]; null: those of the model "
        "passed in; on the command line true",
    )
    pretrained_sha256: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="required SHA-256 of the weights file; null: any"
    )
    match_outputs: bool = Field(
        default=False,
        description="command line: keep the pretrained head rows of classes with the same name; false: a new head "
        "if the number of classes differs",
    )
    init_seed: int = Field(default=0, ge=0, description="random seed of newly initialized layers")
    monitor: str | None = Field(
        default=None,
        description="metric that chooses the best epoch and stops training early, such as val_loss, macro_f1 or map50; "
        "null: top-1 or mAP",
    )
    patience: int | None = Field(
        default=None, ge=1, description="evaluations without improvement of monitor before training stops; null: never"
    )
    min_delta: float = Field(default=0.0, ge=0, description="smallest change of monitor that counts as an improvement")
    keep: Literal["last", "best", "both"] = Field(
        default="both",
        description="which weights model.safetensors holds: the best epoch (by monitor) or the last; both: the best, "
        "and last.safetensors beside it",
    )

    log: TrackerNames = Field(
        default=[],
        description=f"experiment trackers to log to, besides the run's folder: {', '.join(TRACKERS)}",
    )

    _task_options: dict[str, Options] = PrivateAttr(default_factory=dict)
    _origin: Origin = PrivateAttr(default_factory=Origin)

    def __init__(self, /, **values: Any) -> None:
        _fill(self, values, "preset")

    if not TYPE_CHECKING:  # so that a type checker finds a mistyped field

        def __getattr__(self, name: str) -> Any:
            if name in FORMER:
                return getattr(self, FORMER[name])
            if not name.startswith("_"):
                for options in self._task_options.values():
                    if name in type(options).model_fields:
                        return getattr(options, name)
            return super().__getattr__(name)

    @classmethod
    def checked(
        cls, values: Mapping[str, Any], where: str, lines: Mapping[KeyPath, int], problems: Sequence[Problem]
    ) -> Self:
        """Return the preset of the values of a file.

        Args:
            values: By field.
            where: What holds them, for the errors.
            lines: Of the values.
            problems: Known before.

        Raises:
            PresetError: With all that is wrong.
        """
        preset = cls.__new__(cls)
        _fill(preset, values, where, lines, problems)
        return preset

    @property
    def task_options(self) -> Mapping[str, Any]:
        """The options that each task alone has, by the task's name."""
        return MappingProxyType(self._task_options)

    @property
    def origin(self) -> Origin:
        """The file that the values were read from, and their lines."""
        return self._origin

    def replace(self, /, **overrides: Any) -> "Preset":
        """Return a preset with other values for some fields; None is a value, not 'as it was'."""
        former = find_former(overrides)
        changed = {former.get(name, name): value for name, value in overrides.items()}
        made = Preset(**{name: getattr(self, name) for name in preset_fields()} | changed)
        made._origin = self._origin.without(changed)
        return made

    def to_yaml(self, full: bool = False) -> str:
        """Return the fields that differ from their defaults, or all of them, as YAML in the order of files.

        A schedule that is a function leaves its name; `zoo.register_schedule` makes it one that can be read back.
        """
        fields = preset_fields()
        values: dict[str, Any] = {name: getattr(self, name) for name in fields}
        values["lr"] = rates_for_file(self.lr, self.compat)
        values["transform"] = name_transform(self.transform)
        values["schedule"] = schedule_for_file(self.schedule, self.compat)
        return write_yaml({name: value for name, value in values.items() if full or value != fields[name].default})

    def find_other_tasks(self, task: str) -> dict[str, Any]:
        """Return the fields that only other tasks have and that differ from their defaults, with their values."""
        tasks = find_options()
        owner = task.partition(".")[0]  # a variant has the options of its task
        own = tasks[owner].model_fields if owner in tasks else {}
        return {
            name: value
            for options in self._task_options.values()
            for name, field in type(options).model_fields.items()
            if name not in own and (value := getattr(options, name)) != field.default
        }

    @model_serializer(mode="wrap")
    def _as_one_mapping(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values = handler(self)
        for options in self._task_options.values():
            values |= options.model_dump()
        return {name: values[name] for name in preset_fields() if name in values}

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        values = ((name, getattr(self, name), field) for name, field in preset_fields().items())
        return ((name, value) for name, value, field in values if value != field.default)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *preset_fields()]

    @field_validator("optimizer")
    @classmethod
    def _optimizer_of_the_system(cls, name: str, info: ValidationInfo) -> str:
        """Two optimizers have the name RMSpropTF; a run that repeats super-gradients means its own."""
        is_ambiguous = re.sub("[^a-z0-9]", "", name.lower()) == "rmsproptf"
        return "SuperGradientsRMSpropTF" if info.data.get("compat") and is_ambiguous else name

    @field_validator("clip_grad_norm")
    @classmethod
    def _one_clip(cls, clip: float | None, info: ValidationInfo) -> float | None:
        lr = info.data.get("lr")
        keys = lr.items() if isinstance(lr, dict) else ()
        own = [key for key, value in keys if isinstance(value, GroupSettings) and value.clip_grad_norm is not None]
        if clip is not None and own:
            raise ValueError(
                f"clip_grad_norm is {clip:g}, and lr.{own[0]} sets its own: its gradients would be clipped twice. "
                "Remove one of them."
            )
        return clip


@functools.cache
def preset_fields() -> Mapping[str, FieldInfo]:
    """Return all fields of a preset, those of the tasks among them, in the order of files."""
    fields = dict(Preset.model_fields)
    for task, options in find_options().items():
        for name, field in options.model_fields.items():
            if name in Preset.model_fields or fields.get(name, field).default != field.default:
                raise TypeError(f"option {name} of {task} already exists with a different meaning. Rename it.")
            fields.setdefault(name, field)
    return MappingProxyType(in_order(fields))


def list_fields() -> list[PresetField]:
    """Return all fields of a preset, in words, in the order of files."""
    return describe(preset_fields())


def _fill(
    preset: Preset,
    values: Mapping[str, Any],
    where: str,
    lines: Mapping[KeyPath, int] = MappingProxyType({}),
    problems: Sequence[Problem] = (),
) -> None:
    """Check `values` and put them into a new `preset`, or raise all that is wrong, also the `problems` known before."""
    fields, former = preset_fields(), find_former(values)
    values = {former.get(name, name): value for name, value in values.items()}
    lines = {(former.get(str(path[0]), path[0]), *path[1:]): line for path, line in lines.items() if path} | {
        path: line for path, line in lines.items() if not path
    }
    own = {name: value for name, value in values.items() if name in Preset.model_fields or name not in fields}
    found: list[tuple[Path, str]] = []
    cause: ValidationError | None = None
    try:
        BaseModel.__init__(preset, **own)
    except ValidationError as error:
        cause = error
        found += explain(error, own, Preset.model_fields, _did_you_mean)
    made: dict[str, Options] = {}
    for task, options in find_options().items():
        given = {name: values[name] for name in options.model_fields if name in values}
        try:
            made[task] = options(**given)
        except ValidationError as error:
            cause = error
            found += explain(error, given, options.model_fields, _did_you_mean)
    if found or problems:
        places = {name: place for place, name in enumerate(fields)}
        ordered = sorted(dict.fromkeys(found), key=lambda told: places.get(str(told[0][0]), len(places)))
        told = [Problem(lines.get(path, 0), text) for path, text in ordered]
        refused = refusal(where, [*problems, *told])
        if lines:
            wrong = {path[0] for path, _ in found if path}
            sound = {name: value for name, value in values.items() if name not in wrong}
            refused.sound = _keep_sound(sound, where, lines)
        raise refused from cause
    preset._task_options.update(made)
    preset._origin = Origin(where, lines) if lines else Origin()


def _keep_sound(values: Mapping[str, Any], where: str, lines: Mapping[KeyPath, int]) -> Preset | None:
    """Return the preset of the values of a file that are right by themselves; None if they contradict each other."""
    try:
        return Preset.checked(values, where, lines, ())
    except PresetError:
        return None


def _did_you_mean(key: str) -> str:
    return did_you_mean_field(key, preset_fields())
