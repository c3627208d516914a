"""What a run says about its model and plan before it trains."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from zoo._model import ask, find_method, get_fact, known_config
from zoo.engine.frozen import backbone_trains_reason
from zoo.models import GroupHooks
from zoo.progress import Progress
from zoo.rates import SECONDARY_COLUMNS, Plan
from zoo.settings import Preset
from zoo.training.run_claim import name_model


def show_plan(model: nn.Module, preset: Preset, plan: Plan, show: Progress, *, has_own_optimizer: bool) -> None:
    """Print the plan of a run as a table, and what should be known about it."""
    if known_config(model) and not get_fact(model, "load_report") and not backbone_trains_reason(model, plan):
        show.log("note: the frozen backbone has random weights; use pretrained weights, or train it too (mode=full)")
    if not has_own_optimizer and _learns_whole(model, preset):
        show.log(
            f"note: {name_model(model)} does not define its head, so all of it is trained at one learning rate; pass "
            "a mapping as lr to set learning rates per part"
        )
    if plan.hook is None and not has_own_optimizer and _brings_hooks(model):
        show.log(
            f"note: the parameter-group hooks of {name_model(model)} are ignored because lr as a mapping, mode or "
            "layer_decay is set; leave these out to use the hooks"
        )
    title = f"lr plan of {name_model(model)}"
    show.table(plan.rows(), title=title, totals=plan.totals(), secondary=SECONDARY_COLUMNS, in_full="zoo plan --json")


def disown_altered(model: Any, show: Progress) -> None:
    """Let the run of a network that was changed after it was built say so, and name no model of the registry."""
    if hooked := ask(model, "hooked_layers"):
        show.log(f"note: {hooked[0]} has a forward hook, which is not saved: zoo.load returns the model without it")
    if ask(model, "is_altered", False) and known_config(model).get("model"):
        show.log(
            f"note: {name_model(model)} was modified after it was built, so its name alone cannot rebuild it. To "
            "load or resume this run, modify a new model in the same way and pass it as model="
        )
        model.config = known_config(model) | {"model": None, "options": {}}


def _learns_whole(model: nn.Module, preset: Preset) -> bool:
    """Whether one rate goes to all parameters because nothing says otherwise."""
    says = ("get_finetune_lr_dict", "initialize_param_groups")
    free = preset.mode is None and preset.layer_decay is None and preset.first_lr is None
    return free and not isinstance(preset.lr, Mapping) and not any(find_method(model, name) for name in says)


def _brings_hooks(model: nn.Module) -> bool:
    """Whether a model has a param-group hook that is not the one of every model here."""
    for name in ("initialize_param_groups", "update_param_groups"):
        hook = find_method(model, name)
        if hook is not None and getattr(hook, "__func__", hook) is not getattr(GroupHooks, name):
            return True
    return False
