"""The settings that a search chooses from, written in YAML: which fields of a preset, and which values."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo._fields import in_words, shown
from zoo.errors import PresetError, ZooError
from zoo.files import Document, KeyPath, Problem, read_yaml, to_path
from zoo.models import find_task
from zoo.settings import MAX_BYTES, Preset, did_you_mean_field, preset_fields, refusal
from zoo.tasks import DEFAULT_TASK

DEFAULT_SPACE = """\
# The settings that zoo search chooses from: fields of a preset, each with a list of values or a range.
# `when` limits a setting to the trials in which another one, above it, has that value.
solver: [exact, null]
l2: {low: 1.0e-3, high: 10, log: true, when: {solver: exact}}
optimizer: {values: [AdamW, SGD], when: {solver: null}}
lr: {low: 3.0e-4, high: 0.1, log: true, when: {solver: null}}
weight_decay: {low: 1.0e-5, high: 0.1, log: true, when: {solver: null}}
schedule: {values: [cosine, constant], when: {solver: null}}
batch_size: {values: [64, 128, 256], when: {solver: null}}
label_smoothing: {values: [0.0, 0.05, 0.1]}
"""
# What the backbone sees: each combination of them is one more pass over the images.
_SEEN = (
    *("model", "pretrained", "image_size", "crop_pct", "decode", "resizer", "views", "augment", "augment_magnitude"),
    *("rand_ops", "crop_scale_min", "flip_probability", "vertical_flip", "max_rotation", "color_jitter", "grayscale"),
    "random_erasing",
)
_LEARNT = (
    *("solver", "l2", "lr", "optimizer", "optimizer_params", "weight_decay", "decay_norm_and_bias", "schedule"),
    *("epochs", "warmup_epochs", "warmup_start", "cooldown_epochs", "final_lr_ratio", "batch_size", "accumulate"),
    *("label_smoothing", "class_weights", "focal_gamma", "sampler", "clip_grad_norm", "gradient_centralization"),
)
SEARCHABLE = (*_SEEN, *_LEARNT)
_KEYS = ("values", "low", "high", "log", "when")
_BACKBONE = "backbone"  # a word for `model`


@dataclass(frozen=True)
class Setting:
    """A field of the preset, and what a search may set it to.

    Attributes:
        name: Of the field.
        values: To choose from; empty for a range.
        low: The smallest value of a range.
        high: The largest one.
        log: Whether the range is even in the logarithm.
        when: Values of settings above it, without which this one has no effect.
    """

    name: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def draw(self, trial: Any) -> Any:
        """Let a trial of Optuna choose a value."""
        if self.values:
            return json.loads(trial.suggest_categorical(self.name, [json.dumps(value) for value in self.values]))
        suggest = trial.suggest_int if isinstance(self.low, int) and isinstance(self.high, int) else trial.suggest_float
        return suggest(self.name, self.low, self.high, log=self.log)

    def applies(self, chosen: Mapping[str, Any], base: Preset) -> bool:
        """Whether the setting has an effect beside those that are chosen."""
        return all(chosen.get(name, getattr(base, name)) in values for name, values in self.when.items())


@dataclass(frozen=True)
class Space:
    """All settings, in the order in which they are chosen.

    Attributes:
        settings: Each may depend on those above it.
        text: The YAML that says them.
    """

    settings: tuple[Setting, ...]
    text: str

    def draw(self, trial: Any, base: Preset) -> dict[str, Any]:
        """Return values that a trial of Optuna chooses, by field."""
        chosen: dict[str, Any] = {}
        for setting in self.settings:
            if setting.applies(chosen, base):
                chosen[setting.name] = setting.draw(trial)
        return chosen


def read_space(path: str | os.PathLike[str] | None, base: Preset) -> Space:
    """Return the space of a YAML file; None: the default one.

    Raises:
        PresetError: With all that is wrong, and the lines.
    """
    if path is None:
        return parse_space(DEFAULT_SPACE, "the default space", base)
    try:
        text = to_path(path).read_bytes()[: MAX_BYTES + 1].decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise PresetError(f"space '{path}' cannot be read: {reason}. zoo search --show-space prints one.") from error
    return parse_space(text, f"space '{path}'", base)


def parse_space(text: str, where: str, base: Preset) -> Space:
    """Return the space that a YAML text describes.

    Args:
        text: Lines of `field: values`.
        where: What holds it, for the errors.
        base: The preset that the settings change.

    Raises:
        PresetError: With all that is wrong, and the lines.
    """
    document = read_yaml(text)
    if not isinstance(document.value, dict) or not document.value:
        if document.problems:
            raise refusal(where, document.problems)
        raise PresetError(f"{where} holds no settings; expected lines such as 'lr: {{low: 1e-4, high: 0.1}}'.")
    reader = _Reader(document, base)
    settings = tuple(reader.read())
    if problems := [*document.problems, *reader.problems]:
        raise refusal(where, problems)
    return Space(settings, text)


class _Reader:
    """Reads the settings of a document, and notes what is wrong.

    Args:
        document: Its value is a mapping.
        base: The preset that the settings change.
    """

    def __init__(self, document: Document, base: Preset) -> None:
        self.document, self.base, self.problems = document, base, list[Problem]()
        self._known: dict[str, Setting] = {}

    def read(self) -> Iterator[Setting]:
        """Yield each setting that is right."""
        for key, spec in self.document.value.items():
            name = "model" if key == _BACKBONE else key
            before = len(self.problems)
            self._check_name(key, name)
            setting = self._read_spec(key, name, spec) if len(self.problems) == before else None
            if setting is not None and len(self.problems) == before:
                self._known[name] = setting
                yield setting

    def _note(self, path: KeyPath, text: str) -> None:
        lines = (self.document.lines.get(path[:length], 0) for length in range(len(path), 0, -1))
        self.problems.append(Problem(next((line for line in lines if line), 0), text))

    def _check_name(self, key: str, name: str) -> None:
        fields = preset_fields()
        if name not in fields:
            self._note((key,), f"unknown field {key!r}.{did_you_mean_field(key, fields)}")
        elif name not in SEARCHABLE:
            self._note((key,), f"{key} cannot be searched, only what a head on cached features depends on. Remove it.")
        elif name in self._known:
            self._note((key,), "backbone and model are the same field. Remove one of them.")

    def _read_spec(self, key: str, name: str, spec: Any) -> Setting | None:
        if isinstance(spec, dict) and (unknown := [word for word in spec if word not in _KEYS]):
            self._note((key, unknown[0]), f"{key}: unknown key {unknown[0]!r}; expected {', '.join(_KEYS)}.")
            return None
        parts = {"values": spec} if isinstance(spec, list) else spec if isinstance(spec, dict) else {"values": [spec]}
        when = self._read_when(key, parts.get("when", {}))
        if "values" in parts:
            return self._read_values(key, name, parts, when, is_listed=isinstance(spec, list))
        return self._read_range(key, name, parts, when)

    def _read_values(
        self, key: str, name: str, parts: Mapping[str, Any], when: Mapping[str, Any], *, is_listed: bool
    ) -> Setting | None:
        values, place = parts["values"], (key,) if is_listed else (key, "values")
        if len(parts.keys() - {"values", "when"}):
            self._note(place, f"{key} has values and a range. Remove one of them.")
            return None
        if not isinstance(values, list) or not values:
            self._note(place, f"{key} has no values; expected a list such as [0.0, 0.1].")
            return None
        for index, value in enumerate(values):
            if value in values[:index]:
                self._note((*place, index), f"{key} has the value {shown(value)} twice. Remove one of them.")
            self._check_value((*place, index), name, value)
        return Setting(name, tuple(values), when=when)

    def _read_range(self, key: str, name: str, parts: Mapping[str, Any], when: Mapping[str, Any]) -> Setting | None:
        low, high, log = parts.get("low"), parts.get("high"), parts.get("log", False)
        if not (_is_number(low) and _is_number(high)):
            self._note((key,), f"{key}: expected a list of values, or a range such as {{low: 1e-4, high: 0.1}}.")
            return None
        assert low is not None
        assert high is not None
        if not low < high:
            self._note((key, "high"), f"{key}: high is {high:g}, expected more than low, which is {low:g}.")
        if not isinstance(log, bool):
            self._note((key, "log"), f"{key}: log is {shown(log)}, expected true or false.")
        elif log and low <= 0:
            self._note((key, "low"), f"{key}: low is {low:g}, expected above 0 with log: true.")
        for word, end in (("low", low), ("high", high)):
            self._check_value((key, word), name, end)
        kind = preset_fields()[name]
        is_whole = in_words(kind.annotation, kind.metadata).startswith("an integer")
        ends = {"low": low, "high": high} if is_whole else {"low": float(low), "high": float(high)}
        return Setting(name, **ends, log=log, when=when)

    def _check_value(self, path: KeyPath, name: str, value: Any) -> None:
        try:
            Preset(**{name: value})
            if name == "model" and (task := find_task(value or "")) != DEFAULT_TASK:
                self._note(path, f"{value!r} is a model for {task}; expected a classifier.")
        except PresetError as error:
            for problem in error.problems:
                self._note(path, problem.text)
        except ZooError as error:
            self._note(path, str(error))
        if (name, value) == ("solver", "auto"):
            self._note(path, "solver auto chooses by the number of images alone. Name exact or prototype.")

    def _read_when(self, key: str, when: Any) -> dict[str, tuple[Any, ...]]:
        """Return the values that other settings need to have."""
        if not isinstance(when, dict):
            self._note(
                (key, "when"), f"{key}: when is {shown(when)}, expected a setting and its value: {{solver: exact}}."
            )
            return {}
        found = {
            "model" if name == _BACKBONE else name: tuple(value) if isinstance(value, list) else (value,)
            for name, value in when.items()
        }
        for name, values in found.items():
            other = self._known.get(name)
            if other is None:
                self._note(
                    (key, "when", name), f"{key}: when names {name!r}, which is no setting above it. Move it up."
                )
            elif other.values and (missing := [value for value in values if value not in other.values]):
                self._note((key, "when", name), f"{key}: {name} never is {shown(missing[0])}.")
        return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_seen(name: str) -> bool:
    """Whether a field decides what the backbone makes of an image, so that another value is another pass."""
    return name in _SEEN
