"""What an unfinished run has saved of itself, checked before it is used: form, tensors, and place within the run.

The file's checksum tells damage. What passes it may still come from other code, settings or data than are there now.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from traceback import walk_tb
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, InstanceOf, ValidationError
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.data import is_out_of_memory
from zoo.errors import InputError, ZooError

Count = Annotated[int, Field(ge=0, lt=2**53)]
Seconds = Annotated[FiniteFloat, Field(ge=0)]
Rate = Annotated[FiniteFloat, Field(ge=0)]
Tensors = dict[str, InstanceOf[Tensor]]
MOST_FOUND = 3  # differences that a message names


class _Form(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", arbitrary_types_allowed=True)


class _Position(_Form):
    model_config = ConfigDict(extra="forbid")

    epoch: Count
    batch: Count
    step: Count
    images: Count
    loss_sum: FiniteFloat
    seconds: Seconds
    waiting: Seconds
    first_loss: FiniteFloat | None = None
    highest_loss: FiniteFloat | None = None


class _Change(_Form):
    step: Count
    group: str
    lr: Rate


class _Plateau(_Form):
    best: FiniteFloat | None
    num_bad_epochs: Count
    cooldown_counter: Count
    last_epoch: Count
    multiplier: Rate


class _Rates(_Form):
    assigned: dict[str, Rate]
    changes: list[_Change]
    history: dict[str, list[Rate]]
    plateaus: dict[str, _Plateau]


class _Record(_Form):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float | str | bool | None]

    epoch: Annotated[int, Field(ge=1)]
    epochs: Annotated[int, Field(ge=1)]
    step: Count
    loss: FiniteFloat
    lr: dict[str, Rate]
    seconds: FiniteFloat


class _Group(_Form):
    params: list[Count]
    lr: FiniteFloat | InstanceOf[Tensor]
    name: str
    members: list[Annotated[list[str | Count], Field(min_length=2, max_length=2)]] | None = None


class _Optimizer(_Form):
    state: dict[int, dict[str, Any]]
    param_groups: list[_Group]


class _Clock(_Form):
    epochs: Count
    batches: Count
    accumulate: Count
    processes: Count


class _Proof(_Form):
    digests: dict[str, str]
    moments: list[dict[str, str]]


class _Mean(_Form):
    weights: Tensors
    epochs: Annotated[int, Field(ge=1)]


class _State(_Form):  # as many fields as `state.pt` has keys
    model: Tensors
    ema: Tensors | None
    optimizer: _Optimizer
    scaler: dict[str, float] | None
    position: _Position
    micro_batch_size: Annotated[int, Field(ge=1)] | None
    clock: _Clock
    rates: _Rates
    records: list[_Record]
    best: Tensors | None
    best_score: Annotated[float, Field(ge=-math.inf)]  # not NaN
    best_epochs: list[Annotated[int, Field(ge=1)]] = []
    swa: _Mean | None = None
    optimizer_class: str
    plan: str
    proof: _Proof


def check_form(state: Mapping[str, Any]) -> None:
    """Raise if a state lacks a value that a run goes on from, or has one of another kind.

    Raises:
        InputError: Naming the first few.
    """
    try:
        _State.model_validate(dict(state))
    except ValidationError as error:
        found = [f"{'.'.join(map(str, problem['loc']))[:120]}: {problem['msg']}" for problem in error.errors()]
        raise _refusal(found) from error


def check_tensors(state: Mapping[str, Any], model: nn.Module) -> None:
    """Raise if the weights of a state are not of a model: names, shapes, types, no NaN, finite where they learn.

    Raises:
        InputError: Naming the first few.
    """
    expected = model.state_dict()
    mean = state.get("swa")
    parts = {part: state[part] for part in ("model", "ema", "best")} | {"swa": mean and mean["weights"]}
    for part, tensors in parts.items():
        if tensors is not None:
            if found := list(_compare(tensors, expected)):
                raise _refusal([f"{part} belongs to a different network: {found[0]}", *found[1:]])
            learning = {name for name, _ in model.named_parameters()}
            wrong = [
                name
                for name, tensor in tensors.items()
                if bool(tensor.isnan().any()) or (name in learning and not bool(tensor.isfinite().all()))
            ]
            if wrong:
                raise _refusal([f"{part}: {name} has NaN or infinite values" for name in wrong])


def check_clock(state: Mapping[str, Any], clock: Mapping[str, int], groups: Collection[str]) -> None:
    """Raise if an epoch of the run has another length now, or the state is out of range.

    Args:
        state: Of the form.
        clock: `epochs`, `batches` of an epoch, batches to `accumulate`, and `processes`.
        groups: Names of those that learn.

    Raises:
        InputError: With what differs.
    """
    was, position = state["clock"], state["position"]
    found = [
        f"{name} was {was[name]} and is now {value}" for name, value in clock.items() if was[name] not in (None, value)
    ]
    if found:
        raise InputError(
            f"the run cannot be resumed: {'; '.join(found)}. Use the same data or loaders and the same number of "
            "processes, or start a new run from this run's weights."
        )
    steps = -(-clock["batches"] // clock["accumulate"])
    done = position["epoch"] * steps + position["batch"] // clock["accumulate"]
    within = position["epoch"] + (position["batch"] > 0) <= clock["epochs"]
    if not within or position["batch"] % clock["accumulate"] or position["batch"] >= clock["batches"]:
        raise _refusal([f"epoch {position['epoch']}, batch {position['batch']} is out of range"])
    lengths = {name: len(rates) for name, rates in state["rates"]["history"].items()}
    if position["step"] != done or lengths != dict.fromkeys(groups, done):
        raise _refusal(
            [f"it has {position['step']} steps and rates of {lengths}; expected {done} for each of {list(groups)}"]
        )
    if [record["epoch"] for record in state["records"]] != list(range(1, position["epoch"] + 1)):
        raise _refusal([f"it has records of {len(state['records'])} epochs; expected {position['epoch']}"])


def check_optimizer(optimizer: Optimizer) -> None:
    """Raise if what an optimizer has loaded cannot be of its parameters.

    What has the shape of its parameter for one of them has it for all; the rest is the optimizer's own affair.
    """
    slots = [
        (key, value, parameter)
        for parameter, values in optimizer.state.items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    ]
    full = {key for key, value, parameter in slots if value.shape == parameter.shape and parameter.numel() > 1}
    for key, value, parameter in slots:
        if key in full and value.shape != parameter.shape:
            shapes = f"{list(value.shape)} for a parameter of {list(parameter.shape)}"
            raise _refusal([f"the optimizer's {key} has the shape {shapes}"])
        if value.is_floating_point() and bool(value.isnan().any()):
            raise _refusal([f"the optimizer's {key} has NaN or infinite values"])


@contextmanager
def telling_misfits(is_of_state: Callable[[Exception], bool] = lambda error: True) -> Iterator[None]:
    """Say in words what torch, or an optimizer of somebody else's, says of values of another form.

    Args:
        is_of_state: Whether an error is about the state.
    """
    try:
        yield
    except (LookupError, AttributeError, TypeError, ValueError, ArithmeticError, AssertionError, RuntimeError) as error:
        if isinstance(error, ZooError) or not is_of_state(error):
            raise
        text = str(error).partition("\n")[0][:200]
        raise _refusal([f"it cannot be loaded ({type(error).__name__}: {text})"]) from error


def is_of_optimizer(error: Exception) -> bool:
    """Whether an error came up inside an optimizer."""
    frames = (frame for frame, _ in walk_tb(error.__traceback__))
    return any(isinstance(frame.f_locals.get("self"), Optimizer) for frame in frames) and not is_out_of_memory(error)


def _compare(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Return the differences in names, shapes and types."""
    lacking = [f"{name} is missing" for name in expected if name not in found]
    foreign = [f"{name} is not in the network" for name in found if name not in expected]
    other = [
        f"{name} is {_say(found[name])}; the network has {_say(expected[name])}"
        for name in expected
        if name in found and _say(found[name]) != _say(expected[name])
    ]
    return [*lacking, *foreign, *other]


def _say(tensor: Tensor) -> str:
    kind = "" if tensor.layout == torch.strided and not tensor.is_quantized else " of another layout"
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}{kind}"


def _refusal(found: list[str]) -> InputError:
    more = f" and {len(found) - MOST_FOUND} more" if len(found) > MOST_FOUND else ""
    return InputError(
        f"state.pt does not fit the run: {'; '.join(found[:MOST_FOUND])}{more}. Resume it with the same zoo version, "
        "code and settings, or start a new run."
    )
