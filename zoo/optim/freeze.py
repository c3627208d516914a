"""Frozen means frozen: no gradient, not a step of the optimizer, norm and dropout layers in eval through `.train()`."""

import functools
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from zoo.errors import TrainingError
from zoo.rates import DEFAULT, Plan, Prefixes


def apply_plan(model: nn.Module, plan: Plan, epoch: int = 0) -> None:
    """Freeze what does not learn in an epoch and free the rest; what an earlier plan or epoch did is undone.

    This is the only place that sets `requires_grad`. Frozen modules stay in eval mode: `.train()` passes them by.
    """
    frozen = plan.frozen_at(epoch)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
        if name in frozen:
            parameter.grad = None
    still = frozen_modules(model, plan, epoch)
    for name, module in model.named_modules():
        if name in still:
            _keep_in_eval(module)
        else:
            _let_train(module)


def keep_norm_statistics(model: nn.Module) -> None:
    """Keep every norm layer with running statistics in eval mode through `.train()`; its weights may still learn."""
    for module in model.modules():
        if getattr(module, "running_mean", None) is not None:
            _keep_in_eval(module)


def release_modes(model: nn.Module) -> None:
    """Let every module follow `.train()` again: a run that has ended leaves nothing behind that decides on modes."""
    for module in model.modules():
        _let_train(module)


def frozen_modules(model: nn.Module, plan: Plan, epoch: int = 0) -> frozenset[str]:
    """Return the names of the modules that do not learn in an epoch.

    A module with parameters is frozen if all of them are. One without (dropout, a norm without weights) goes by the
    plan's prefixes as a parameter of its name would, or follows its parent if a hook made the plan.
    """
    frozen_names = plan.frozen_at(epoch)
    still = {id(parameter) for name, parameter in model.named_parameters() if name in frozen_names}
    learning = {""}
    for name, parameter in model.named_parameters(remove_duplicate=False):  # a tied one learns in all its modules
        if id(parameter) not in still:
            parts = name.split(".")
            learning.update(".".join(parts[:depth]) for depth in range(1, len(parts)))
    prefixes = Prefixes(plan.starts.keys() - {DEFAULT})
    frozen: set[str] = set()
    for name, module in model.named_modules():  # parents come before their children
        if name in learning:
            continue
        if next(module.parameters(), None) is not None:
            frozen.add(name)
        elif plan.starts:
            start = plan.starts[prefixes.longest(f"{name}.") or DEFAULT]
            frozen.update([name] if start is None or start > epoch else [])
        elif name.rpartition(".")[0] in frozen:
            frozen.add(name)
    return frozenset(frozen)


def frozen_tensors(model: nn.Module, plan: Plan, epoch: int = 0) -> dict[str, Tensor]:
    """Return every parameter that does not learn in an epoch and every buffer of such modules, by name."""
    names, modules = plan.frozen_at(epoch), frozen_modules(model, plan, epoch)
    tensors: dict[str, Tensor] = {name: value for name, value in model.named_parameters() if name in names}
    buffers = dict(model.named_buffers())
    return tensors | {name: value for name, value in buffers.items() if name.rpartition(".")[0] in modules}


def check_reached(model: nn.Module, plan: Plan, log: Callable[[str], None], epoch: int = 0) -> None:
    """Check after a backward pass that what learns got a gradient: a part that forward() does not use has none.

    Args:
        model: With its gradients.
        plan: What learns.
        log: Told about single tensors without a gradient.
        epoch: The epoch, from 0; parts that are unfrozen later are not looked at.

    Raises:
        TrainingError: Whole groups have none.
    """
    without = {
        name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None
    }
    if not without:
        return
    members: dict[str, list[str]] = {}
    for group in plan.trained:
        if group.unfreeze_at <= epoch:
            members.setdefault(group.key, []).extend(group.names)
    idle = {key: _listed(names) for key, names in members.items() if without.issuperset(names)}
    if idle:
        (first, listed), *others = idle.items()
        also = "".join(f", nor any of {key!r} ({names})" for key, names in others)
        raise TrainingError(
            f"{first!r} should be trained, but none of its parameters ({listed}) received a gradient in the first "
            f"step{also}: forward() does not use them. Assign a new layer to the attribute that forward() calls, or "
            "set its learning rate to 0."
        )
    log(f"note: {_listed(sorted(without))} received no gradient in the first step; forward() does not use them")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _keep_in_eval(module: nn.Module) -> None:
    module.training = False
    module.__dict__["train"] = functools.partial(_stay_in_eval, module)  # a partial, so that copies bind to the copy


def _let_train(module: nn.Module) -> None:
    """Undo `_keep_in_eval`, and nothing else that somebody may have put there."""
    own = module.__dict__.get("train")
    if isinstance(own, functools.partial) and own.func is _stay_in_eval:
        del module.__dict__["train"]


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    """Stand in for `module.train`: a frozen module has one mode only, and so have the modules inside it."""
    return module
