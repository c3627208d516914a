"""The linear layer that a solver can solve."""

from collections.abc import Iterable

from torch import nn

from zoo.errors import PlanError


def find_linear(model: nn.Module, names: Iterable[str]) -> nn.Linear:
    """Return the linear layer whose parameters are exactly those of some names.

    Args:
        model: Any module.
        names: Of the parameters that are trained, or of the head.

    Raises:
        PlanError: They are of something else, or of more than one layer.
    """
    wanted = set(names)
    for name, module in model.named_modules():
        own = {f"{name}.{key}" if name else key for key, _ in module.named_parameters()}
        if own == wanted and isinstance(module, nn.Linear):
            return module
    listed = sorted(wanted)
    some = ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
    raise PlanError(
        f"only a head that is a single linear layer can be solved, and here it is {some or 'not defined'}. Train it in "
        "steps, without solver and head_init; with solver, everything but the head has to be frozen (mode=head)."
    )
