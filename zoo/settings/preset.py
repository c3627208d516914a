"""All options of a fine-tuning run as one checked, frozen value, and the YAML files that hold it.

A preset file holds only what differs from the defaults below; meaning, unit, range and default of a field live here
and nowhere else. Whatever is wrong with a file is reported at once, with line numbers.
"""

import os
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic.fields import FieldInfo

from zoo._fields import Words, explain, in_words, shown
from zoo.errors import PresetError, did_you_mean
from zoo.files import KeyPath, Problem, open_regular, read_yaml, to_path, write_yaml
from zoo.rates import Params, Settings, check_rates, check_schedule, check_unfreezing, rates_for_file, schedule_for_file

MAX_BYTES = 100_000
MOST_LISTED = 50
SUFFIXES = (".yaml", ".yml")
SCHEDULE = "a name, or a mapping with 'kind'; in Python also a function of the step, or a torch scheduler"
UNFREEZING = "a mapping of epochs to a prefix, or to a list of prefixes"


class Preset(BaseModel):
    """Every option of a run; `zoo preset show --fields` prints them. Frozen: `replace` makes a changed one.

    Raises:
        PresetError: With unknown names, wrong types and values out of range, all at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    # The model
    model: str | None = Field(default=None, description="name for zoo.get; null: the caller brings the model")
    pretrained: bool | str | None = Field(
        default=None,
        description="weights, as for zoo.get: true, false, a path or org/name[@revision]; null: those of the model "
        "that the caller brings; on the command line true",
    )
    pretrained_sha256: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="SHA-256 of the weights; others are refused; null: any"
    )
    match_outputs: bool = Field(
        default=False,
        description="on the command line: outputs of classes that the weights name, too, start from theirs; else the "
        "head is new where the number of classes differs",
    )
    init_seed: int = Field(default=0, ge=0, description="seed of newly made layers")

    # What learns, and how fast; compat comes first, because it decides what a schedule may say
    compat: Literal["super-gradients"] | None = Field(
        default=None, description="super-gradients: its exact sequence of rates, to repeat old runs; null: ours"
    )
    lr: NonNegativeFloat | dict[str, NonNegativeFloat | Settings] = Field(
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
    optimizer: str = Field(
        default="SGD", description="name in torch.optim, timm or registered; SGD has momentum 0.9 unless told"
    )
    optimizer_params: Params = Field(default={}, description="further arguments of the optimizer, such as momentum")
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

    # How long, and along which curve
    epochs: int = Field(default=10, ge=1, description="passes over the training images")
    batch_size: int = Field(default=32, ge=1, description="images per batch and process")
    chunk_size: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        default=None,
        description="images of a batch that are in the network at a time, their gradients added up; auto: as many as "
        "memory holds; null: the whole batch",
    )
    accumulate: int = Field(default=1, ge=1, description="batches per optimizer step")
    schedule: Annotated[Any, Words(SCHEDULE)] = Field(
        default="cosine", description="shape of the rates after warm-up; `zoo schedules` lists names and settings"
    )
    warmup_epochs: float | None = Field(
        default=None, ge=0, description="length of the rise at the start, epochs; null: 0.5 if nothing else is said"
    )
    warmup_steps: int | None = Field(default=None, ge=0, description="or its length in optimizer steps")
    warmup_start: float = Field(default=0.1, ge=0, le=1, description="rate at the first step over the full rate")
    warmup_start_lr: float | None = Field(
        default=None, ge=0, description="or the highest group's rate at the first step; the others keep their ratio"
    )
    cooldown_epochs: float = Field(default=0.0, ge=0, description="epochs at the end that keep the last rate")
    final_lr_ratio: float = Field(default=0.01, ge=0, le=1, description="rate at the end of the cosine over full rate")

    # How a step is taken
    clip_grad_norm: float | None = Field(default=None, gt=0, description="longest gradient, as 2-norm; null: any")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="share of the target spread over all classes")
    loss_params: Params = Field(
        default={}, description="detectors: arguments of the model's own loss, such as assigner, iou_weight, dfl_weight"
    )
    ema_decay: float | None = Field(
        default=None, gt=0, lt=1, description="share that an average of the weights keeps at each step; null: none"
    )
    ema_warmup: bool = Field(
        default=False, description="let that share rise with the steps, from 0: at most 1 - step ** (-2/3)"
    )
    compile: bool = Field(default=False, description="compile the training step with torch.compile")
    freeze_norm_stats: bool = Field(default=False, description="keep running statistics of norm layers, trained or not")

    # What the model sees
    image_size: int | None = Field(default=None, ge=8, le=4096, description="side of the input, px; null: the weights'")
    crop_pct: float | None = Field(
        default=None, gt=0, le=1, description="share of the short side that evaluation keeps; null: the weights'"
    )
    augment: Literal["auto", "none", "crop-flip", "trivial"] = Field(
        default="auto",
        description="changes to training images; auto: none if the trunk is frozen, else crop-flip; trivial: crop-flip "
        "and one random operation more",
    )
    resizer: Literal["pillow", "torch"] = Field(
        default="pillow",
        description="what resizes training images of classifiers; torch: twice as fast, one value in 300 differs by 1",
    )
    crop_scale_min: float = Field(default=0.35, gt=0, le=1, description="smallest random crop, share of the area")
    flip_probability: float = Field(default=0.5, ge=0, le=1, description="chance of a left-right flip")
    photometric: float = Field(default=0.0, ge=0, le=1, description="detectors: chance of other light and colours")
    zoom_out: float = Field(default=0.0, ge=0, le=1, description="detectors: chance of a larger empty canvas around it")
    iou_crop: float = Field(default=0.0, ge=0, le=1, description="detectors: chance of a crop that keeps some boxes")
    scale_jitter: float = Field(
        default=0.0, ge=0, le=0.9, description="detectors: pictures scaled by up to 1 + this, or divided by it"
    )
    multi_scale: float = Field(
        default=0.0, ge=0, le=0.9, description="detectors: batches at sides of 1 - this to 1 + this times the input's"
    )
    mosaic: float = Field(default=0.0, ge=0, le=1, description="detectors: chance of four pictures put together")
    mixup: float = Field(default=0.0, ge=0, le=1, description="detectors: chance of two pictures blended")
    plain_epochs: int = Field(default=0, ge=0, description="detectors: epochs at the end without mosaic and mixup")
    val_fraction: float = Field(default=0.2, gt=0, lt=1, description="share held out if no validation data is given")
    split_seed: int | None = Field(default=None, ge=0, description="seed of that choice; null: seed")
    classes: list[str] = Field(
        default=[], description="names by whose order the data's classes are numbered; others come after them"
    )
    skip_bad: bool = Field(default=False, description="leave out unreadable images instead of stopping")
    seed: int = Field(default=0, ge=0, description="seed of split, order and augmentation")

    # Where it runs, and what is kept
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(default="auto", description="where it runs; auto: fastest")
    precision: Literal["no", "bf16", "fp16"] = Field(default="no", description="mixed precision; no: float32 alone")
    num_workers: int | None = Field(default=None, ge=0, description="processes that read images; null: chosen")
    fuse_trunk: bool = Field(default=True, description="fold the norms of a frozen trunk into its convolutions")
    trunk_precision: Literal["auto", "no", "bf16", "fp16"] = Field(
        default="auto",
        description="of a frozen trunk; auto: bf16 on GPUs that have it and CPUs where it proves faster, else as "
        "precision says",
    )
    cache: Literal["auto", "off", "memory", "disk"] = Field(
        default="auto", description="where the features of a frozen trunk are kept; auto: where it pays, and says why"
    )
    cache_dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default="auto", description="numbers of kept features; auto: float16 for maps that it holds, else float32"
    )
    views: int = Field(
        default=1, ge=1, le=1000, description="changed versions of each image, repeated in turn; 1: new ones each epoch"
    )
    image_cache: Literal["off", "memory", "disk"] = Field(
        default="off", description="where decoded images are kept while a run lasts, to be decoded once"
    )
    image_cache_gb: float = Field(default=4.0, gt=0, description="most that they take, GB")
    evaluate_every: int = Field(default=1, ge=1, description="epochs from one evaluation to the next")
    keep: Literal["last", "best"] = Field(
        default="last", description="epoch whose weights are kept; best: by top-1 or mAP"
    )

    if not TYPE_CHECKING:  # type checkers keep the signature that the fields make

        def __init__(self, /, **values: Any) -> None:
            _fill(self, values, "preset")

    @field_validator("lr", mode="wrap")
    @classmethod
    def _rates(cls, lr: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        return check_rates(lr, handler, info.data.get("compat"))

    @field_validator("unfreeze", mode="wrap")
    @classmethod
    def _unfreezing(cls, unfreeze: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        return check_unfreezing(unfreeze, handler)

    @field_validator("schedule")
    @classmethod
    def _known_schedule(cls, schedule: Any, info: ValidationInfo) -> Any:
        return check_schedule(schedule, info.data.get("compat"))

    @field_validator("optimizer")
    @classmethod
    def _optimizer_of_the_system(cls, name: str, info: ValidationInfo) -> str:
        """Two optimizers have the name RMSpropTF; a run that repeats super-gradients means its own."""
        is_ambiguous = re.sub("[^a-z0-9]", "", name.lower()) == "rmsproptf"
        return "SuperGradientsRMSpropTF" if info.data.get("compat") and is_ambiguous else name

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

    @field_validator("warmup_epochs", "warmup_steps")
    @classmethod
    def _one_warmup(cls, value: float | None, info: ValidationInfo) -> float | None:
        name, data = str(info.field_name), info.data
        if value is not None and name == "warmup_epochs" and value >= data.get("epochs", value + 1):
            raise ValueError(f"warmup_epochs is {value}; expected less than epochs, which is {data['epochs']}.")
        if value is None or data.get("compat"):
            return value
        if value and _kind(data.get("schedule")) == "one_cycle":
            raise ValueError(f"{name} is {value:g}, but the schedule one_cycle has a rise of its own. Remove it.")
        _refuse_if_said(data.get("schedule"), ("warmup_epochs", "warmup_steps"), name, value)
        if name == "warmup_steps" and (other := data.get("warmup_epochs")) is not None:
            raise ValueError(f"warmup_steps is {value} and warmup_epochs is {other:g}. Set one of them to null.")
        return value

    @field_validator("warmup_start")
    @classmethod
    def _has_an_effect(cls, start: float, info: ValidationInfo) -> float:
        compat = info.data.get("compat")
        if compat and start != _default("warmup_start"):
            raise ValueError(f"warmup_start has no meaning with compat {compat!r}. Use warmup_start_lr.")
        return start

    @field_validator("warmup_start_lr")
    @classmethod
    def _one_start(cls, start: float | None, info: ValidationInfo) -> float | None:
        if start is None or info.data.get("compat"):
            return start
        ratio = info.data.get("warmup_start", _default("warmup_start"))
        if ratio != _default("warmup_start"):
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
        schedule = info.data.get("schedule")
        if ratio != _default("final_lr_ratio"):
            _refuse_if_said(schedule, ("final_ratio",), "final_lr_ratio", ratio)
        return ratio

    @field_validator("clip_grad_norm")
    @classmethod
    def _one_clip(cls, clip: float | None, info: ValidationInfo) -> float | None:
        lr = info.data.get("lr")
        keys = lr.items() if isinstance(lr, dict) else ()
        own = [key for key, value in keys if isinstance(value, Settings) and value.clip_grad_norm is not None]
        if clip is not None and own:
            raise ValueError(
                f"clip_grad_norm is {clip:g}, and lr.{own[0]} has one of its own: it would be clipped twice. Remove "
                "one of them."
            )
        return clip

    def replace(self, **overrides: Any) -> "Preset":
        """Return a preset with other values for some fields; None is a value, not 'as it was'."""
        return Preset(**{name: getattr(self, name) for name in Preset.model_fields} | overrides)

    def to_yaml(self, full: bool = False) -> str:
        """Return the fields that differ from their defaults, or all of them, as YAML in the order of the class.

        A schedule that is a function leaves its name; `zoo.register_schedule` makes it one that can be read back.
        """
        values: dict[str, Any] = {name: getattr(self, name) for name in Preset.model_fields}
        values["lr"] = rates_for_file(self.lr, self.compat)
        values["schedule"] = schedule_for_file(self.schedule, self.compat)
        return write_yaml({name: value for name, value in values.items() if full or value != _default(name)})


class PresetField(NamedTuple):
    """What there is to know of one field, in words."""

    name: str
    expected: str
    meaning: str
    default: str


def list_fields() -> list[PresetField]:
    """Return all fields of `Preset` in the order of the class."""
    return [_describe(name, field) for name, field in Preset.model_fields.items()]


def refuse_fields(preset: Preset, names: Sequence[str], where: str) -> None:
    """Raise `PresetError` if one of the fields that have no meaning for a task differs from its default.

    Args:
        preset: The effective one.
        names: Of the fields.
        where: What has no use for them, such as `a classifier`.
    """
    said = [f"{name} is {shown(getattr(preset, name))}" for name in names if getattr(preset, name) != _default(name)]
    if said:
        raise PresetError(f"{'; '.join(said)}: that has no meaning for {where}. Remove it.")


def list_settings() -> list[PresetField]:
    """Return all settings that one key of `lr` may have."""
    return [_describe(name, field) for name, field in Settings.model_fields.items()]


def presets_folder() -> Path:
    """Return the folder of presets that belongs to this very copy of the package."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "presets"
    return inside if inside.is_dir() else package.parent / "presets"


def list_presets() -> list[str]:
    """Return the names of all presets that come with the package."""
    return sorted(path.stem for path in presets_folder().glob("*.yaml"))


def load_preset(name_or_path: str | Path) -> Preset:
    """Return the preset of that name, or of a `.yaml` file.

    Raises:
        PresetError: There is no such preset, or something in it is wrong.
    """
    return parse_preset(read_preset(name_or_path), str(name_or_path))


def read_preset(name_or_path: str | Path) -> str:
    """Return the text of a preset file, comments included, without a look at its meaning."""
    try:
        with open_regular(_find(name_or_path)) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = error.strerror or error
        text = f"preset '{name_or_path}' cannot be read: {reason}.{_did_you_mean_preset(name_or_path)}"
        raise PresetError(text) from error
    if len(data) > MAX_BYTES:
        raise PresetError(f"preset '{name_or_path}' is larger than {MAX_BYTES:,} bytes. Is it a preset?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text = f"preset '{name_or_path}' is not UTF-8 text (byte {error.start}). Save it as UTF-8."
        raise PresetError(text) from error


def parse_preset(text: str, origin: str) -> Preset:
    """Return the preset that a YAML text describes.

    Args:
        text: Lines of `key: value`.
        origin: Where the text comes from, for the errors.

    Raises:
        PresetError: With everything that is wrong, and the lines.
    """
    where = f"preset '{origin}'"
    document = read_yaml(text)
    values = document.value
    if not isinstance(values, dict):
        if document.problems:
            raise _refusal(where, document.problems)
        found = "is empty" if values is None else f"holds {shown(values)}"
        raise PresetError(f"{where} {found}; expected lines such as 'epochs: 20', or {{}} for all defaults.")
    preset = Preset.__new__(Preset)
    _fill(preset, values, where, document.lines, document.problems)
    return preset


def parse_setting(setting: str) -> tuple[str, Any]:
    """Return key and value of a text such as `lr=1e-3` or `lr={default: 0, head: 0.01}`; the value is read as YAML."""
    key, equals, text = (part.strip() for part in setting.partition("="))
    if not (key and equals):
        raise PresetError(f"setting {setting!r} is not understood; expected key=value, such as lr=0.005.")
    document = read_yaml(text)
    if document.problems:
        raise _refusal(f"setting {setting!r}", document.problems)
    return key, document.value


def _find(name_or_path: str | Path) -> Path:
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise PresetError(f"preset is a {type(name_or_path).__name__}; expected a name, a .yaml file or a Preset.")
    path = to_path(name_or_path)
    if path.suffix in SUFFIXES:
        return path
    if str(name_or_path) in list_presets():
        return presets_folder() / f"{name_or_path}.yaml"
    if path.is_file():
        raise PresetError(f"preset '{name_or_path}' is a file without the ending .yaml. Rename it.")
    if (path / "preset.yaml").is_file():
        raise PresetError(f"preset '{name_or_path}' is the folder of a run. Its preset is '{path / 'preset.yaml'}'.")
    raise PresetError(
        f"unknown preset '{name_or_path}'.{_did_you_mean_preset(name_or_path)} "
        f"zoo.list_presets() names all {len(list_presets())}; a file needs the ending .yaml."
    )


def _did_you_mean_preset(name_or_path: str | Path) -> str:
    return did_you_mean(Path(name_or_path).stem, list_presets())


def _describe(name: str, field: FieldInfo) -> PresetField:
    return PresetField(
        name=name,
        expected=in_words(field.annotation, field.metadata),
        meaning=field.description or "",
        default=write_yaml({"": field.default}).partition(":")[2].strip(),
    )


def _default(name: str) -> Any:
    return Preset.model_fields[name].default


def _kind(schedule: Any) -> Any:
    return schedule.get("kind") if isinstance(schedule, dict) else schedule


def _refuse_if_said(schedule: Any, keys: Sequence[str], name: str, value: float) -> None:
    """Refuse a field about the whole run that the run's own schedule contradicts."""
    said = [key for key in keys if isinstance(schedule, dict) and schedule.get(key) is not None]
    if said:
        raise ValueError(f"{name} is {value:g}, and schedule.{said[0]} is {schedule[said[0]]}. Remove one of them.")


def _fill(
    preset: Preset,
    values: Mapping[str, Any],
    where: str,
    lines: Mapping[KeyPath, int] | None = None,
    problems: Sequence[Problem] = (),
) -> None:
    """Check `values` and put them into a new `preset`, or raise all that is wrong, also the `problems` known before."""
    cause: ValidationError | None = None
    found = list(problems)
    try:
        BaseModel.__init__(preset, **values)
    except ValidationError as error:
        cause = error
        texts = explain(error, values, Preset.model_fields, _did_you_mean_field)
        found += [Problem(lines.get(path, 0) if lines else 0, text) for path, text in texts]
    if found:
        raise _refusal(where, found) from cause


def _refusal(where: str, problems: Sequence[Problem]) -> PresetError:
    ordered = sorted(problems, key=lambda problem: problem.line)[:MOST_LISTED]
    lines = [f"line {problem.line}: {problem.text}" if problem.line else problem.text for problem in ordered]
    if len(problems) > MOST_LISTED:
        lines.append(f"and {len(problems) - MOST_LISTED} more.")
    return PresetError("\n  ".join([f"{where}: {len(problems)} error{'s' * (len(problems) > 1)}.", *lines]))


# What other libraries call a field, where the names are too far apart to be found by their letters.
_KNOWN_ELSEWHERE = {
    "model": ("model_name", "arch", "architecture", "network"),
    "lr": ("learning_rate", "initial_lr", "base_lr", "lr0", "max_lr"),
    "optimizer": ("opt", "optim"),
    "optimizer_params": ("momentum", "betas", "nesterov", "opt_args"),
    "weight_decay": ("wd", "decay", "l2"),
    "epochs": ("max_epochs", "num_epochs", "n_epochs", "num_train_epochs"),
    "batch_size": ("batch", "bs", "train_batch_size", "per_device_train_batch_size"),
    "accumulate": ("batch_accumulate", "gradient_accumulation_steps", "accumulate_grad_batches"),
    "schedule": ("lr_mode", "lr_scheduler", "lr_scheduler_type", "scheduler"),
    "warmup_epochs": ("warmup", "lr_warmup_epochs", "warmup_ratio"),
    "warmup_steps": ("lr_warmup_steps", "num_warmup_steps"),
    "warmup_start_lr": ("warmup_initial_lr", "warmup_lr", "lr_start"),
    "cooldown_epochs": ("lr_cooldown_epochs", "cooldown"),
    "layer_decay": ("layerwise_lr_decay", "llrd", "layer_lr_decay"),
    "gradient_centralization": ("grad_centralization", "gc"),
    "compile": ("torch_compile", "torchcompile"),
    "final_lr_ratio": ("cosine_final_lr_ratio", "lrf", "min_lr", "eta_min"),
    "clip_grad_norm": ("max_grad_norm", "gradient_clip_val", "grad_clip", "max_norm"),
    "label_smoothing": ("smoothing", "label_smoothing_factor"),
    "mixup": ("mixup_prob", "mix_up"),
    "photometric": ("hsv_h", "hsv_s", "hsv_v", "color_jitter"),
    "plain_epochs": ("close_mosaic", "no_aug_epochs", "no_mosaic_epochs"),
    "ema_decay": ("ema", "model_ema", "model_ema_decay"),
    "freeze_norm_stats": ("freeze_bn", "norm_eval", "bn_eval"),
    "image_size": ("imgsz", "img_size", "input_size", "resolution", "size"),
    "augment": ("aa", "aug", "augmentation", "auto_augment"),
    "crop_scale_min": ("scale", "min_scale"),
    "flip_probability": ("hflip", "fliplr"),
    "val_fraction": ("val_split", "validation_split", "test_size"),
    "seed": ("random_seed", "random_state"),
    "precision": ("amp", "mixed_precision", "fp16", "bf16"),
    "num_workers": ("workers", "dataloader_num_workers"),
    "evaluate_every": ("val_interval", "eval_interval", "check_val_every_n_epoch", "run_validation_freq"),
}
_FIELD_OF = {foreign: field for field, names in _KNOWN_ELSEWHERE.items() for foreign in names}


_OWN_LOSS = "Give the model a method loss(outputs, targets, *, label_smoothing=0.0)"
_ELSEWHERE = {  # what is no field, and where it is said instead
    "class_weights": f"{_OWN_LOSS} that weights the classes, or pass loaders with a sampler of your own.",
    "loss": f"{_OWN_LOSS}.",
    "sampler": "Pass loaders of your own, which order their images as they like.",
    "early_stopping": "A zoo.Callback ends a run with run.stop(), such as in on_epoch_end; keep='best' keeps the best.",
    "drop_rate": "It is an argument of zoo.get.",
    "num_classes": "It is an argument of zoo.get.",
}
_ALIKE = {"class_weight": "class_weights", "criterion": "loss", "patience": "early_stopping", "dropout": "drop_rate"}


def _did_you_mean_field(key: str) -> str:
    if hint := _ELSEWHERE.get(_ALIKE.get(key.lower(), key.lower())):
        return f" {hint}"
    foreign = get_close_matches(key.lower(), _FIELD_OF, n=1, cutoff=0.85)
    return f" Did you mean {_FIELD_OF[foreign[0]]!r}?" if foreign else did_you_mean(key, Preset.model_fields)
