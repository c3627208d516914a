"""Loads a file of weights into a module: completely, or not at all."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from zoo._model import ask
from zoo._text import shorten
from zoo.errors import WeightsError
from zoo.files import Slot
from zoo.weights.spec import LoadReport, ResolvedWeights

if TYPE_CHECKING:
    from torch import Tensor, nn


def load_into(model: "nn.Module", found: ResolvedWeights, *, head: Sequence[str], keep_head: bool) -> LoadReport:
    """Load a file into a model; one that does not fit leaves it as it is.

    The file is read in parts: at most an eighth of it is in memory beside the model. Names and shapes have to be
    equal, except for the head when it is not kept. Floating-point values are cast to the type of the model's. A batch
    norm's counter `num_batches_tracked` may be missing, as in files of old versions, and so may what the model calls
    dormant. A model with `take_form` takes the form that the file's names tell.

    Args:
        model: Changed in place.
        found: The file.
        head: Prefixes of the names of what depends on the classes.
        keep_head: Whether to load that; if not, it stays as it is.

    Raises:
        WeightsError: The file does not fit; the text names the first tensors. No weight of the model has changed, but
            blocks may have taken another form. Or it cannot be read to its end; the model is then half loaded.
    """
    slots, head = found.slots(), tuple(head)
    take_form = ask(model, "take_form")
    if take_form is not None:
        take_form(slots.keys())
    own = model.state_dict()
    dormant: Collection[str] = ask(model, "dormant_parameters", frozenset)()
    skipped = () if keep_head else head
    taken = {name: slot for name, slot in slots.items() if not name.startswith(skipped)}
    wanted = {name: value for name, value in own.items() if not name.startswith(skipped)}
    spare = {name for name in wanted if name in dormant or name.endswith("num_batches_tracked")}
    problems = _compare(taken, wanted, spare)
    if problems:
        advice = "Expected the weights of this architecture and size, with the same names."
        if all(name.startswith(head) for names in problems.values() for name in names):
            advice = "Only the head differs: use the file's number of classes, or a new head."
        listed = "; ".join(f"{len(names)} {what}: {shorten(names)}" for what, names in problems.items())
        raise WeightsError(f"{found.origin} does not fit {type(model).__name__}: {listed}. {advice}")
    for part in found.parts():
        values = {name: tensor.to(own[name].dtype) for name, tensor in part.items() if name in taken}
        model.load_state_dict(model.state_dict() | values)
        del part, values  # before the next one is read
    return LoadReport(
        origin=found.origin,
        loaded=tuple(name for name in own if name in taken),
        reinitialised=tuple(name for name in own if name.startswith(skipped)),
        unused=tuple(name for name in slots if name.startswith(skipped)),
        sha256=found.sha256,
        revision=found.revision,
        licence=found.licence,
        pinned=found.pinned,
        spare=tuple(name for name in wanted if name in spare and name not in taken),
        notes=found.notes,
    )


def _compare(taken: Mapping[str, Slot], own: "Mapping[str, Tensor]", spare: Collection[str]) -> dict[str, list[str]]:
    """Return what is wrong, as kind of problem to names; empty if everything fits. `spare` names may be missing."""
    problems: dict[str, list[str]] = {
        "missing": [name for name in own if name not in taken and name not in spare],
        "not expected": [name for name in taken if name not in own],
        "with a different shape": [],
        "with a different dtype": [],
    }
    for name, ours in own.items():
        theirs = taken.get(name)
        if theirs is None:
            continue
        if theirs.shape != ours.shape:
            shapes = f"(file {list(theirs.shape)}, model {list(ours.shape)})"
            problems["with a different shape"].append(f"{name} {shapes}")
        elif theirs.dtype.is_floating_point != ours.is_floating_point():
            problems["with a different dtype"].append(f"{name} (file {theirs.dtype}, model {ours.dtype})")
    return {what: names for what, names in problems.items() if names}
