"""The training parameters that super-gradients knows, and the book that is kept of what becomes of them.

Source: Deci-AI/super-gradients, release 3.7.1, `training/params.py`.
"""

import math
import re
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, NamedTuple

from zoo._fields import shown
from zoo.errors import PresetError
from zoo.settings import Preset

READ: Mapping[str, Any] = {  # parameters that are translated, with their defaults
    "batch_accumulate": 1,
    "clip_grad_norm": None,
    "cosine_final_lr_ratio": 0.01,
    "criterion_params": {},
    "ema": False,
    "ema_params": {},
    "finetune": False,
    "greater_metric_to_watch_is_better": True,
    "initial_lr": None,
    "loss": None,
    "lr_cooldown_epochs": 0,
    "lr_decay_factor": None,
    "lr_mode": None,
    "lr_schedule_function": None,
    "lr_updates": [],
    "lr_warmup_epochs": 0,
    "lr_warmup_steps": 0,
    "max_epochs": None,
    "metric_to_watch": "Accuracy",
    "mixed_precision": False,
    "optimizer": "SGD",
    "optimizer_params": {},
    "run_validation_freq": 1,
    "seed": 42,
    "step_lr_update_freq": None,
    "torch_compile": False,
    "warmup_initial_lr": None,
    "warmup_mode": "LinearEpochLRWarmup",
    "zero_weight_decay_on_bias_and_bn": False,
}
_CODE = "code is not part of a preset; pass callbacks to zoo.finetune"
_FOLDER = "file names in a run folder are fixed"
_LOGGER = "not supported: the run folder contains metrics, learning rates and images"
_METRICS = "runs report loss, top-1, top-5 and per-class scores"
_PRECISE = "norm statistics are not re-estimated"
_RESUME = "resume an interrupted run with zoo finetune --resume RUN"
_SHORTENED = "epochs are always complete"
LEFT_OUT: Mapping[str, tuple[Any, str]] = {  # parameters without counterpart: their defaults, and why
    "_convert_": ("all", "it is a hydra instruction"),
    "average_best_models": (True, "checkpoints are not averaged; use ema_decay to average the weights"),
    "ckpt_best_name": ("ckpt_best.pth", _FOLDER),
    "ckpt_name": ("ckpt_latest.pth", _FOLDER),
    "dataset_statistics": (False, "runs do not analyse the data"),
    "enable_qat": (False, "quantization-aware training is not supported"),
    "forward_pass_prep_fn": (None, _CODE),
    "kill_ddp_pgroup_on_end": (True, "the launcher ends its processes"),
    "launch_tensorboard": (False, _LOGGER),
    "load_opt_params": (True, _RESUME),
    "log_installed_packages": (True, _LOGGER),
    "loss_logging_items_names": (["Loss"], _LOGGER),
    "max_train_batches": (None, _SHORTENED),
    "max_valid_batches": (None, _SHORTENED),
    "phase_callbacks": (None, _CODE),
    "pre_prediction_callback": (None, _CODE),
    "precise_bn": (False, _PRECISE),
    "precise_bn_batch_size": (None, _PRECISE),
    "resume": (False, _RESUME),
    "resume_from_remote_sg_logger": (False, _RESUME),
    "resume_path": (None, _RESUME),
    "resume_strict_load": (False, _RESUME),
    "run_id": (None, _RESUME),
    "run_test_freq": (1, "evaluate test images with zoo evaluate RUN DATA --split test"),
    "save_ckpt_epoch_list": ([], "the weights of one epoch are saved, see keep"),
    "save_full_train_log": (False, _LOGGER),
    "save_model": (True, "runs always save their model"),
    "save_tensorboard_to_s3": (False, _LOGGER),
    "sg_logger": ("base_sg_logger", _LOGGER),
    "sg_logger_params": (None, _LOGGER),
    "silent_mode": (False, _LOGGER),
    "sync_bn": (False, "norm statistics are computed per process"),
    "tb_files_user_prompt": (False, _LOGGER),
    "tensorboard_port": (None, _LOGGER),
    "torch_compile_loss": (False, "compile applies to the whole training step"),
    "torch_compile_options": (None, "compile has no options"),
    "train_metrics_list": ([], _METRICS),
    "valid_metrics_list": ([], _METRICS),
}
KNOWN = frozenset(READ) | frozenset(LEFT_OUT)
SCORES = {"accuracy": "top1", "top5": "top5"}  # their metrics that are measured here, by their plain names

_WORDS = {"yes": True, "on": True, "no": False, "off": False}  # booleans of YAML 1.1, which they read


class Line(NamedTuple):
    """What became of one of their parameters: key and value, field and value here, and what is worth a remark."""

    key: str
    value: str
    field: str
    ours: str
    remark: str = ""


class Book:
    """What becomes of each parameter, written down while it is read."""

    def __init__(self, values: dict[str, Any], exact: bool) -> None:
        self.values, self.exact = values, exact
        self.fields: dict[str, Any] = {"compat": "super-gradients"} if exact else {}
        self.lines: list[Line] = []
        self.left_out: dict[str, str] = {}
        self.plain = Preset()

    def get(self, key: str) -> Any:
        """Return what is given, or their default."""
        value = self.values.get(key)
        return READ[key] if value is None else value

    def put(self, key: str, fields: Mapping[str, Any], remark: str = "") -> None:
        """Set fields of the preset; a default of theirs that is one here too needs no line if there is no remark."""
        self.fields |= fields
        is_news = any(value != getattr(self.plain, name) for name, value in fields.items())
        if key in self.values or is_news or remark:
            self.note(key, ", ".join(fields), ", ".join(map(shown, fields.values())), remark)

    def note(self, key: str, field: str = "", ours: str = "", remark: str = "") -> None:
        """Write a line down."""
        theirs = shown(self.values[key]) if key in self.values else f"{shown(READ[key])} (default)"
        self.lines.append(Line(key, theirs, field or "-", ours or "-", remark))

    def leave(self, key: str, reason: str) -> None:
        """Leave a key out."""
        self.left_out[key] = reason

    def has(self, key: str) -> bool:
        """Say whether something became of a key already."""
        return key in self.left_out or any(line.key == key for line in self.lines)

    def flag(self, key: str) -> bool:
        """Return a boolean parameter."""
        value = self.get(key)
        if isinstance(value, str):
            value = _WORDS.get(value.lower(), value)
        if not isinstance(value, bool):
            raise PresetError(f"{key} is {shown(value)}; expected true or false.")
        return value

    def number(self, key: str) -> float:
        """Return a parameter that is a number, 0 or more."""
        return read_number(key, self.get(key))

    def whole(self, key: str, least: int = 0) -> int:
        """Return a parameter that is a whole number, at least so large."""
        value = self.get(key)
        if not is_number(value) or value < least or value != int(value):
            raise PresetError(f"{key} is {shown(value)}; expected a whole number, {least} or more.")
        return int(value)

    def params(self, key: str) -> dict[str, Any]:
        """Return a parameter that is a mapping, as a fresh one."""
        value = self.get(key)
        if not isinstance(value, Mapping):
            raise PresetError(f"{key} is {shown(value)}; expected a mapping of names to values.")
        return {str(name): item for name, item in value.items()}


def read_number(name: str, value: Any) -> float:
    """Return a value as a number, or say that it is none; 0 or more."""
    if not is_number(value) or value < 0:
        raise PresetError(f"{name} is {shown(value)}; expected a finite number, 0 or more.")
    return float(value)


def is_number(value: Any) -> bool:
    """Say whether a value is a finite number, of Python or numpy, that a float can hold; a boolean is none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def fuzzy(name: str) -> str:
    """Return a name without case and separators."""
    return re.sub(r"[\W_]", "", name).lower()


def join_names(names: Iterable[Any]) -> str:
    """Return names with commas between them."""
    return ", ".join(map(str, names))
