"""Training parameters of super-gradients → a preset, and a list of what has no counterpart.

Nothing is dropped: every key that is given comes back either in the lines of the translation or in what was left out.
Their defaults are translated too wherever they differ from a preset's, such as the weight decay of their optimizers.

Source of the optimizers' hidden arguments: Deci-AI/super-gradients, release 3.7.1, `training/utils/optimizer_utils.py`.
"""

import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from zoo._fields import shown
from zoo.compat.super_gradients.parameters import (
    KNOWN,
    LEFT_OUT,
    READ,
    SCORES,
    Book,
    Line,
    fuzzy,
    is_number,
    read_number,
)
from zoo.compat.super_gradients.schedule import read_course
from zoo.errors import PresetError, did_you_mean
from zoo.settings import Preset, preset_fields

_OPTIMIZERS = ("SGD", "Adam", "AdamW", "RMSprop", "RMSpropTF", "Lamb", "Lion")
_HIDDEN_PARAMS: Mapping[str, Mapping[str, float]] = {  # what they put under the user's optimizer_params
    "SGD": {"weight_decay": 1e-4, "momentum": 0.9},
    "Adam": {"weight_decay": 1e-4},
    "RMSprop": {"weight_decay": 1e-4, "momentum": 0.9},
    "RMSpropTF": {"weight_decay": 1e-4, "momentum": 0.9},
}
_OWN_DECAYS = {"AdamW": "0.01", "Lamb": "0.01", "Lion": "0"}  # the defaults of the classes themselves
_CROSS_ENTROPY = ("crossentropyloss", "crossentropy", "labelsmoothingcrossentropyloss")
_KEY_OF_RATE = re.compile(r"[a-zA-Z0-9_.]+")
_TYPO = 0.75  # from this likeness on an unknown number is a misspelt parameter, and not one of the model's hooks
_MOST_UPDATES = 10_000


@dataclass(frozen=True)
class Translation:
    """A preset, and how it came about.

    Attributes:
        preset: The preset.
        lines: What was translated, also their defaults where they differ from a preset's.
        left_out: Keys that have no counterpart, and why; `optimizer_params.lr` is the key `lr` in there.
    """

    preset: Preset
    lines: tuple[Line, ...]
    left_out: Mapping[str, str]


def translate(values: Mapping[str, Any], *, exact: bool = True) -> Translation:
    """Translate training parameters.

    Args:
        values: What their `Trainer.train` takes as `training_params`; what is missing has their default.
        exact: Whether the rates are the very sequence of theirs, defects included (`compat: super-gradients`), and an
            optimizer loses its default decay where it does there; else what is meant is kept, in the ways of a preset.

    Raises:
        PresetError: With everything that is wrong.
    """
    if not isinstance(values, Mapping):
        raise PresetError(f"training parameters are {shown(values)}; expected a mapping of names to values.")
    book = Book({str(key): value for key, value in values.items()}, exact)
    wrong = []
    for read in (_leave_code, _rates, _optimizer, _length, read_course, _step, _ema, _loss, _run, _rest):
        try:
            read(book)
        except PresetError as error:
            wrong.append(str(error))
    if wrong:
        count = f"{len(wrong)} error{'s' * (len(wrong) > 1)}"
        raise PresetError("\n  ".join([f"training parameters of super-gradients: {count}.", *wrong]))
    return _close(book)


def training_params(values: Mapping[str, Any]) -> Preset:
    """Return the preset of their training parameters, with their exact rates, and warn once of what is left out.

    Example: `zoo.finetune(model, data, preset=training_params({"initial_lr": 0.1, "max_epochs": 20, ...}))`.

    Raises:
        PresetError: With everything that is wrong.
    """
    translation = translate(values)
    if translation.left_out:
        listed = [f"{key}: {reason}" for key, reason in translation.left_out.items()]
        message = "\n  ".join(["ignored training parameters of super-gradients:", *listed])
        warnings.warn(message, UserWarning, stacklevel=2)
    return translation.preset


def _close(book: Book) -> Translation:
    try:
        preset = Preset(**book.fields)
    except PresetError as error:
        raise PresetError(f"cannot convert the training parameters of super-gradients to a preset. {error}") from error
    return Translation(preset, tuple(book.lines), dict(book.left_out))


def _leave_code(book: Book) -> None:
    """Leave out what only their configuration system could make a value of."""
    for key, value in list(book.values.items()):
        if key not in READ:
            continue
        if key in ("optimizer_params", "ema_params", "criterion_params") and isinstance(value, Mapping):
            reasons = {name: _why_no_value(item) for name, item in value.items()}
            book.values[key] = {name: item for name, item in value.items() if not reasons[name]}
            for name in filter(reasons.get, reasons):
                book.leave(f"{key}.{name}", reasons[name])
        elif key == "lr_updates" and (updates := _make_updates(value)) is not None:
            book.values[key] = updates
        elif reason := _why_no_value(value):
            book.leave(key, reason)
            del book.values[key]


def _why_no_value(value: Any) -> str:
    """Return why a value is none yet, or nothing if it is one."""
    if isinstance(value, str) and ("${" in value or value == "???"):
        return f"{shown(value)} is a hydra interpolation that was not resolved"
    if isinstance(value, Mapping):
        if "_target_" in value:
            return f"it is created by code, {shown(value['_target_'])}, which is not run"
        value = list(value.values())
    inner = map(_why_no_value, value) if isinstance(value, list) else iter(())
    return next(filter(None, inner), "")


def _make_updates(value: Any) -> list[float] | None:
    """Make the list that two of their calls stand for in their recipes: an empty one, and `numpy.arange`."""
    if not isinstance(value, Mapping) or "_target_" not in value:
        return None
    if value["_target_"] == "super_gradients.training.utils.utils.empty_list":
        return []
    start, stop, step = value.get("start", 0), value.get("stop"), value.get("step", 1)
    if value["_target_"] != "numpy.arange" or not all(map(is_number, (start, stop, step))) or step <= 0:
        return None
    count = math.ceil((stop - start) / step)
    return [start + index * step for index in range(count)] if count <= _MOST_UPDATES else None


def _rates(book: Book) -> None:
    given, finetune = book.get("initial_lr"), book.flag("finetune")
    if given is None:
        what = book.left_out.get("initial_lr") or ("it is None" if "initial_lr" in book.values else "it is missing")
        raise PresetError(
            f"initial_lr: {what}; expected a learning rate, or a mapping of prefixes to learning rates with 'default'."
        )
    if isinstance(given, Mapping):
        if finetune:
            raise PresetError(
                "finetune is true, but initial_lr is a mapping; expected a single learning rate, from which the "
                "model derives its own mapping. Use a single learning rate, or remove finetune."
            )
        rates, remark = _read_mapping(book, given)
        book.put("initial_lr", {"lr": rates}, remark)
        if "finetune" in book.values:
            book.note("finetune", remark="initial_lr decides what is trained")
        return
    book.put("initial_lr", {"lr": read_number("initial_lr", given)})
    if finetune:
        book.put(
            "finetune", {"mode": "head"}, "frozen norm layers keep their statistics; in super-gradients they drift"
        )
    elif any(_is_for_hooks(key, value) for key, value in book.values.items()):
        remark = "the model's hooks are used; if it has none, only its head is trained: set mode to 'full' then"
        book.note("finetune", "mode", "None", remark)
    else:
        book.put("finetune", {"mode": "full"}, "the model's hooks are not used, as in 3.4 and later")


def _read_mapping(book: Book, given: Mapping[Any, Any]) -> tuple[dict[str, float], str]:
    """Return the rates by prefix, and a remark."""
    if "default" not in given:
        raise PresetError("initial_lr has no 'default', the learning rate of all other parameters. Add it; 0 freezes.")
    for key in given:
        if not isinstance(key, str) or not _KEY_OF_RATE.fullmatch(key):
            raise PresetError(f"initial_lr: {key!r} is not a prefix; expected only letters, digits, '_' and '.'.")
    rates = {key: read_number(f"initial_lr of {key!r}", value) for key, value in given.items()}
    broader = {key: [other for other in rates if other != key and key.startswith(other)] for key in rates}
    broader["default"] = []
    frozen = [key for key, others in broader.items() if rates[key] and not all(rates[other] for other in others)]
    remarks = []
    if book.exact and frozen:
        rates |= dict.fromkeys(frozen, 0.0)
        remarks.append(f"{', '.join(frozen)}: 0 as in super-gradients, where a shorter prefix with rate 0 wins")
    elif any(broader.values()):
        remarks.append(
            "of overlapping prefixes the longest wins; in super-gradients two rates are an error, and 0 wins"
        )
    if not all(rates.values()):
        remarks.append("frozen norm layers keep their statistics; in super-gradients they drift")
    return rates, "; ".join(remarks)


def _optimizer(book: Book) -> None:
    name, remark = _name_optimizer(book.get("optimizer"))
    params = {**_HIDDEN_PARAMS.get(name, {}), **book.params("optimizer_params")}
    if params.pop("lr", None) is not None:
        book.leave("optimizer_params.lr", "no effect in super-gradients either: every group has its own learning rate")
    decay, spares = params.pop("weight_decay", None), book.flag("zero_weight_decay_on_bias_and_bn")
    trap = ""
    if spares and decay is None:
        decay = 0.0 if book.exact else None
        kept = "kept, to reproduce the run; null uses that default" if book.exact else "not in zoo"
        trap = (
            "in super-gradients this flag turns the optimizer's default decay, "
            f"{_OWN_DECAYS.get(name, 'of its class')}, into 0; {kept}"
        )
    book.put("optimizer", {"optimizer": name}, remark)
    book.put("optimizer_params", {"optimizer_params": params, "weight_decay": decay}, trap)
    also = "all 1-D parameters are exempt; in super-gradients only norms and biases" if spares else ""
    book.put("zero_weight_decay_on_bias_and_bn", {"decay_norm_and_bias": not spares}, "" if book.exact else also)


def _name_optimizer(given: Any) -> tuple[str, str]:
    """Return the optimizer's name, and a remark."""
    if isinstance(given, type):
        if given.__name__ in _OPTIMIZERS or given.__module__.startswith("torch.optim"):
            return given.__name__, ""
        raise PresetError(
            f"optimizer is the class {given.__name__}; a preset needs a name. Register it with @register_optimizer() "
            f"and write {given.__name__!r}."
        )
    if not isinstance(given, str):
        what = shown(given) if isinstance(given, Mapping) else f"an existing {type(given).__name__} object"
        raise PresetError(f"optimizer is {what}; expected a name. Its arguments belong in optimizer_params.")
    if "." in given:
        name = given.rpartition(".")[2]
        raise PresetError(f"optimizer is {given!r}; presets import no code. Write only the name: {name!r}.")
    known = {fuzzy(name): name for name in _OPTIMIZERS}
    remark = f"not one of super-gradients' optimizers.{did_you_mean(given, _OPTIMIZERS)}"
    return (known[fuzzy(given)], "") if fuzzy(given) in known else (given, remark)


def _length(book: Book) -> None:
    if book.get("max_epochs") is None:
        book.note("max_epochs", "epochs", str(book.plain.epochs), "required in super-gradients; this is zoo's default")
    else:
        book.put("max_epochs", {"epochs": book.whole("max_epochs", 1)})
    count = book.whole("batch_accumulate", 1)
    remark = (
        f"super-gradients sums the gradients of {count} batches, zoo averages them: for the same steps SGD needs lr "
        f"× {count}, weight_decay / {count} and clip_grad_norm / {count}"
    )
    book.put("batch_accumulate", {"accumulate": count}, remark if count > 1 else "")


def _step(book: Book) -> None:
    """How a step is taken."""
    clip = book.get("clip_grad_norm")
    if clip is not None and read_number("clip_grad_norm", clip) == 0:
        raise PresetError("clip_grad_norm is 0; expected a number above 0, or null for no limit.")
    book.put("clip_grad_norm", {"clip_grad_norm": None if clip is None else float(clip)})
    mixed = book.flag("mixed_precision")
    remark = "needs a GPU; on a CPU super-gradients silently uses float32" if mixed else ""
    book.put("mixed_precision", {"precision": "fp16" if mixed else "no"}, remark)
    book.put("torch_compile", {"compile": book.flag("torch_compile")})


def _ema(book: Book) -> None:
    params = book.params("ema_params")
    if not book.flag("ema"):
        book.put("ema", {"ema_decay": None})
        return
    decay = read_number("ema_params.decay", params.get("decay", 0.9999))
    kind = params.get("decay_type", "exp")
    if "exp_activation" in params:
        kind = "exp" if params["exp_activation"] else "constant"
    remark = {
        "constant": "",
        "threshold": "min(decay, (1 + step) / (10 + step)) in super-gradients; constant in zoo",
    }.get(kind, f"decay × (1 - exp(-{params.get('beta', 15)} × step / steps)) in super-gradients; constant in zoo")
    book.put("ema", {"ema_decay": decay}, remark)
    if "ema_params" in book.values:
        book.note("ema_params", "ema_decay", shown(decay))


def _loss(book: Book) -> None:
    loss, params = book.get("loss"), book.params("criterion_params")
    place = "criterion_params"
    if isinstance(loss, Mapping) and len(loss) == 1:
        ((loss, given),) = loss.items()
        place, params = f"loss.{loss}", dict(given) if isinstance(given, Mapping) else {}
    if loss is None:
        return
    name = loss if isinstance(loss, str) else type(loss).__name__
    if fuzzy(name) not in _CROSS_ENTROPY:
        book.leave("loss", f"{name} is unsupported: the loss is the model's own, or cross-entropy")
        if place == "criterion_params" and params:
            book.leave(place, f"arguments of {name}")
        return
    smoothing = getattr(loss, "label_smoothing", 0.0) or getattr(loss, "smooth_eps", 0.0)  # of a loss that is made
    if isinstance(loss, str):
        smoothing = params.pop("smooth_eps", None)
        for key in (key for key, value in params.items() if value is not None):
            book.leave(f"{place}.{key}", "only the argument smooth_eps of cross-entropy is supported")
    smoothing = read_number(f"{place}.smooth_eps", smoothing or 0.0)
    book.put("loss", {"label_smoothing": smoothing})
    if "criterion_params" in book.values and isinstance(loss, str):
        book.note("criterion_params", "label_smoothing", shown(smoothing))


def _run(book: Book) -> None:
    """Seed, scores, and which weights are kept."""
    book.put("seed", {"seed": book.whole("seed")}, "the random numbers differ")
    every = book.whole("run_validation_freq", 1)
    book.put("run_validation_freq", {"evaluate_every": every})
    rises, metric = book.flag("greater_metric_to_watch_is_better"), book.values.get("metric_to_watch")
    if "greater_metric_to_watch_is_better" in book.values:
        book.note("greater_metric_to_watch_is_better", remark="see metric_to_watch")
    if metric is not None and rises and fuzzy(str(metric)) == "accuracy":
        book.put("metric_to_watch", {"keep": "best"})
    elif metric is not None:
        book.leave("metric_to_watch", f"the best epoch is the one with the best top-1; keep stays {book.plain.keep!r}")
    for key in ("train_metrics_list", "valid_metrics_list"):
        names = book.values.get(key)
        if isinstance(names, list) and names and all(isinstance(name, str) and fuzzy(name) in SCORES for name in names):
            book.lines.append(Line(key, shown(names), "-", "-", LEFT_OUT[key][1]))


def _rest(book: Book) -> None:
    """Tell what became of every key that nothing else has told of."""
    handed = {}
    for key, value in book.values.items():
        if book.has(key):
            continue
        if key in READ:
            book.note(key, remark="no effect" if _is_empty(value) else "no effect with the others")
        elif key in LEFT_OUT:
            _leave_known(book, key, value)
        elif key in preset_fields():
            book.leave(key, f"a preset field, unknown to super-gradients.{did_you_mean(key, KNOWN)}")
        elif _is_for_hooks(key, value):
            handed[key] = value
            book.lines.append(Line(key, shown(value), "training_params", shown(value), "passed to the model's hooks"))
        else:
            book.leave(key, f"unknown to super-gradients.{did_you_mean(key, KNOWN)}")
    if handed:
        book.fields["training_params"] = handed


def _leave_known(book: Book, key: str, value: Any) -> None:
    default, reason = LEFT_OUT[key]
    is_plain = isinstance(value, bool | int | float | str | list)  # others may compare in their own way
    if _is_empty(value) or (is_plain and value == default):
        book.lines.append(Line(key, shown(value), "-", "-", "no effect"))
    else:
        book.leave(key, reason)


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, list | tuple | dict) and not value)


def _is_for_hooks(key: str, value: Any) -> bool:
    """Say whether a parameter may be one of the model's hooks: a number that is no misspelt parameter or field."""
    if key in KNOWN or key in preset_fields() or not isinstance(value, bool | int | float):
        return False
    is_finite = isinstance(value, bool) or is_number(value)
    return is_finite and not get_close_matches(key, KNOWN, n=1, cutoff=_TYPO)
