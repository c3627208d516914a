"""The fields of a preset: their order in a file, what each is in words, and what a wrong name may have meant."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NamedTuple

from pydantic.fields import FieldInfo

from zoo._fields import in_words
from zoo.errors import PresetError, did_you_mean
from zoo.files import KeyPath, Problem, write_yaml
from zoo.rates import GroupSettings

MOST_LISTED = 50  # problems in one error

# The order in a file. Fields that are not named here follow, section by section.
_ORDER = (
    # The model
    *("model", "pretrained", "pretrained_sha256", "match_outputs", "init_seed"),
    # What learns, and how fast
    *("compat", "lr", "mode", "backbone_lr_factor", "layer_decay", "first_lr", "unfreeze"),
    *("optimizer", "optimizer_params", "weight_decay", "decay_norm_and_bias", "gradient_centralization"),
    *("order", "unmatched", "training_params"),
    # How long, and along which curve
    *("epochs", "batch_size", "micro_batch_size", "accumulate", "schedule", "warmup_epochs", "warmup_steps"),
    *("warmup_start", "warmup_start_lr", "cooldown_epochs", "final_lr_ratio"),
    # How a step is taken
    *("solver", "l2", "head_init"),
    *("clip_grad_norm", "label_smoothing", "class_weights", "focal_gamma", "multi_label_loss", "sampler"),
    *("repeat_threshold", "loss_params", "ema_decay", "ema_warmup", "swa_epochs", "compile", "freeze_norm_stats"),
    # What the model sees
    *("image_size", "crop_pct", "decode", "augment", "augment_magnitude", "rand_ops", "resizer", "crop_scale_min"),
    *("flip_probability", "vertical_flip", "max_rotation", "color_jitter", "grayscale", "random_erasing"),
    *("mixup_alpha", "cutmix_alpha", "photometric", "zoom_out", "iou_crop", "scale_jitter", "multi_scale"),
    *("mosaic", "mixup", "plain_epochs", "transform"),
    *("labels", "val_fraction", "split_seed", "classes", "skip_bad", "image_root", "exclude", "seed"),
    # Where it runs, and what is kept
    *("device", "precision", "num_workers", "fuse_backbone", "backbone_precision", "cache", "cache_dtype", "views"),
    *("image_cache", "image_cache_gb", "evaluate_every", "monitor", "patience", "min_delta", "keep"),
    "log",
)


FORMER = {"chunk_size": "micro_batch_size", "fuse_trunk": "fuse_backbone", "trunk_precision": "backbone_precision"}


# What fields mean in the file of a run from before they existed, where that is not their default; such a file lists all
# fields of its time, and is told from the few lines of a preset by fields that hardly anybody changes.
BEFORE = {"decode": "full"}
_OF_A_RUN = {"match_outputs", "first_lr", "unmatched", "cooldown_epochs", "plain_epochs", "image_cache_gb"}

# What one task calls what another one has by another name.
OTHER_WORD = {
    "mixup": "mixup_alpha",
    "mixup_alpha": "mixup",
    "photometric": "color_jitter",
    "color_jitter": "photometric",
}


class PresetField(NamedTuple):
    """What there is to know of one field, in words."""

    name: str
    expected: str
    meaning: str
    default: str


@dataclass(frozen=True)
class Origin:
    """Where the values of a preset were read, for errors that are found later; two presets do not differ by it.

    Attributes:
        where: The file, as errors name it; empty for values that come from no file.
        lines: Line of each key and list item, counted from 1.
    """

    where: str = field(default="", compare=False)
    lines: Mapping[KeyPath, int] = field(default_factory=dict, compare=False)

    def without(self, changed: Collection[str]) -> "Origin":
        """Return this without the lines of fields that have another value now."""
        return Origin(self.where, {path: line for path, line in self.lines.items() if path and path[0] not in changed})

    def find_line(self, path: KeyPath) -> int:
        """Return the line of a value, or of the nearest one that it is part of; 0 if no file says it."""
        parts = (path[:length] for length in range(len(path), 0, -1))
        return next((self.lines[part] for part in parts if part in self.lines), 0)


def find_former(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the former names of fields among `values`, with today's.

    Raises:
        PresetError: A field is given by both of its names.
    """
    found = {old: new for old, new in FORMER.items() if old in values}
    for old, new in found.items():
        if new in values:
            raise PresetError(f"preset: {old} is the former name of {new}, and both are given. Remove {old}.")
    return found


def complete(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a file, and what fields that are younger than the file mean by missing."""
    return {**(BEFORE if values.keys() >= _OF_A_RUN else {}), **values}


def in_order(fields: Mapping[str, FieldInfo]) -> dict[str, FieldInfo]:
    """Return fields in the order of a file."""
    return {name: fields[name] for name in dict.fromkeys((*_ORDER, *fields)) if name in fields}


def describe(fields: Mapping[str, FieldInfo]) -> list[PresetField]:
    """Return what there is to know of each field."""
    return [
        PresetField(
            name=name,
            expected=in_words(field.annotation, field.metadata),
            meaning=field.description or "",
            default=write_yaml({"": field.default}).partition(":")[2].strip(),
        )
        for name, field in fields.items()
    ]


def list_settings() -> list[PresetField]:
    """Return all settings that one key of `lr` may have."""
    return describe(GroupSettings.model_fields)


def refusal(where: str, problems: Sequence[Problem]) -> PresetError:
    """Return the error that lists all that is wrong, in the order of the lines."""
    ordered = sorted(problems, key=lambda problem: problem.line)[:MOST_LISTED]
    lines = [f"line {problem.line}: {problem.text}" if problem.line else problem.text for problem in ordered]
    if len(problems) > MOST_LISTED:
        lines.append(f"and {len(problems) - MOST_LISTED} more.")
    error = PresetError("\n  ".join([f"{where}: {len(problems)} error{'s' * (len(problems) > 1)}.", *lines]))
    error.problems = tuple(problems)
    return error


def did_you_mean_field(key: str, fields: Iterable[str]) -> str:
    """Return what a name that is no field may have meant, or where it is said instead."""
    if hint := _ELSEWHERE.get(_ALIKE.get(key.lower(), key.lower())):
        return f" {hint}"
    foreign = get_close_matches(key.lower(), FIELD_OF, n=1, cutoff=0.85)
    return f" Did you mean {FIELD_OF[foreign[0]]!r}?" if foreign else did_you_mean(key, fields)


# What other libraries call a field, where the names are too far apart to be found by their letters.
_KNOWN_ELSEWHERE = {
    "model": ("model_name", "arch", "architecture", "network"),
    "lr": ("learning_rate", "initial_lr", "base_lr", "lr0", "max_lr"),
    "optimizer": ("opt", "optim"),
    "optimizer_params": ("momentum", "betas", "nesterov", "opt_args"),
    "weight_decay": ("wd", "decay"),
    "l2": ("l2_penalty", "ridge", "reg_lambda"),
    "solver": ("linear_probe", "logistic_regression"),
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
    "class_weights": ("class_weight", "loss_weights", "weighted_loss"),
    "focal_gamma": ("focal", "focal_loss", "fl_gamma"),
    "sampler": ("weighted_sampler", "balanced_sampling", "class_balanced_sampling"),
    "repeat_threshold": ("repeat_factor", "rfs_threshold", "repeat_thr", "oversample_thr"),
    "mixup": ("mixup_prob", "mix_up"),
    "cutmix_alpha": ("cutmix", "cut_mix"),
    "photometric": ("hsv_h", "hsv_s", "hsv_v"),
    "color_jitter": ("jitter", "colour_jitter", "brightness", "contrast", "saturation"),
    "random_erasing": ("reprob", "random_erase", "erasing", "cutout"),
    "grayscale": ("grayscale_prob", "greyscale", "random_grayscale"),
    "vertical_flip": ("vflip", "flipud"),
    "max_rotation": ("degrees", "rotate", "random_rotation"),
    "augment_magnitude": ("ra_magnitude", "augmix_severity", "magnitude"),
    "plain_epochs": ("close_mosaic", "no_aug_epochs", "no_mosaic_epochs"),
    "ema_decay": ("ema", "model_ema", "model_ema_decay"),
    "swa_epochs": ("swa", "swa_start", "stochastic_weight_avg"),
    "freeze_norm_stats": ("freeze_bn", "norm_eval", "bn_eval"),
    "image_size": ("imgsz", "img_size", "input_size", "resolution", "size"),
    "augment": ("aa", "aug", "augmentation", "auto_augment"),
    "crop_scale_min": ("scale", "min_scale"),
    "flip_probability": ("hflip", "fliplr"),
    "val_fraction": ("val_split", "validation_split", "test_size"),
    "seed": ("random_seed", "random_state"),
    "precision": ("amp", "mixed_precision", "fp16", "bf16"),
    "num_workers": ("workers", "dataloader_num_workers"),
    "patience": ("early_stopping", "early_stopping_patience"),
    "min_delta": ("early_stopping_threshold",),
    "monitor": ("metric_for_best_model", "metric_to_watch"),
    "evaluate_every": ("val_interval", "eval_interval", "check_val_every_n_epoch", "run_validation_freq"),
}
FIELD_OF = {foreign: field for field, names in _KNOWN_ELSEWHERE.items() for foreign in names}


_OWN_LOSS = "Define a method loss(outputs, targets, *, label_smoothing=0.0) on the model"
_ELSEWHERE = {  # what is no field, and where it is said instead
    "loss": f"{_OWN_LOSS}.",
    "drop_rate": "It is an argument of zoo.get.",
    "num_classes": "It is an argument of zoo.get.",
}
_ALIKE = {"criterion": "loss", "dropout": "drop_rate"}
