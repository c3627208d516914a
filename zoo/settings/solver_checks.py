"""What does not go together with a head that is solved instead of trained in steps."""

from typing import Any

from torch import nn

from zoo._fields import shown
from zoo._model import head_prefixes
from zoo.errors import InputError
from zoo.optim import find_linear
from zoo.rates import Plan
from zoo.settings.preset import Preset
from zoo.tasks import Task

# Fields of the steps of a training; they would be ignored without a word.
STEPPING = (
    *("layer_decay", "first_lr", "unfreeze", "optimizer", "optimizer_params", "weight_decay", "decay_norm_and_bias"),
    *("gradient_centralization", "accumulate", "schedule", "warmup_epochs", "warmup_steps", "warmup_start"),
    *("warmup_start_lr", "cooldown_epochs", "final_lr_ratio", "clip_grad_norm", "ema_decay", "ema_warmup"),
    *("swa_epochs", "patience", "evaluate_every", "freeze_norm_stats", "micro_batch_size", "compile"),
)


def check_solver(preset: Preset, task: Task | None) -> None:
    """Refuse fields that a solver would ignore, and a solver of what cannot be solved.

    Raises:
        InputError: Naming the fields.
    """
    solver = preset.solver or (f"head_init={preset.head_init}" if preset.head_init else None)
    if solver is None:
        if preset.l2 is not None:
            raise InputError(f"l2 is {preset.l2:g}, which has no effect without solver=exact or head_init=exact.")
        return
    if task is not None and not task.solves:
        raise InputError(
            f"solver and head_init apply to classifiers with one class per image; this is a {task.card.noun}. Remove "
            "them."
        )
    if preset.solver is None:
        return
    if preset.head_init is not None:
        raise InputError("solver solves the head and ends; head_init starts a training from it. Remove one of them.")
    if preset.solver == "prototype" and preset.l2 is not None:
        raise InputError(f"l2 is {preset.l2:g}, which has no effect with solver=prototype. Use solver=exact.")
    if preset.mode not in (None, "head"):
        raise InputError(
            f"mode is {preset.mode!r}, but solver={preset.solver} solves the head of a frozen backbone. Remove one; "
            "head_init=exact starts a training of all layers from a solved head."
        )
    defaults = {name: Preset.model_fields[name].default for name in STEPPING}
    said = [name for name in STEPPING if getattr(preset, name) != defaults[name]]
    said += ["epochs"] if preset.epochs != 1 else []
    if said:
        values = ", ".join(f"{name}={shown(getattr(preset, name))}" for name in said)
        raise InputError(
            f"{values}: no effect with solver={preset.solver}, which solves the head instead of training it in steps. "
            "Remove " + ("it" if len(said) == 1 else "them") + (" (epochs is 1)." if "epochs" in said else ".")
        )
    if preset.sampler != "shuffle":
        raise InputError(
            f"sampler is {preset.sampler!r}, but a solver looks at each image once. Use class_weights=balanced."
        )
    if preset.views > 1 and preset.cache == "off":
        raise InputError(
            f"views is {preset.views}, but cache=off keeps no versions of an image. Use cache=auto, or leave views out."
        )
    if preset.views == 1 and (preset.augment not in ("auto", "none") or preset.transform is not None):
        raise InputError(
            f"solver={preset.solver} looks at fixed versions of each image. Set views, for example views=4, for "
            "augmented ones; or leave the augmentation out."
        )


def check_solved(preset: Preset, model: nn.Module, plan: Plan) -> None:
    """Refuse a solver where what it has to solve is no linear layer.

    Raises:
        PlanError: Naming what is trained.
    """
    if preset.solver is not None:
        find_linear(model, (name for group in plan.trained for name in group.names))
    elif preset.head_init is not None:
        prefixes = head_prefixes(model)
        find_linear(model, (name for name, _ in model.named_parameters() if prefixes and name.startswith(prefixes)))


def list_solver_defaults(given: Any, base: Preset) -> dict[str, Any]:
    """Return the fields that a solver brings with it, where the caller does not say otherwise."""
    if given.get("solver", base.solver) is None:
        return {}
    fields = {"epochs": 1, "keep": "last"}
    usual = {name: Preset.model_fields[name].default for name in fields}
    return {name: value for name, value in fields.items() if name not in given and getattr(base, name) == usual[name]}
