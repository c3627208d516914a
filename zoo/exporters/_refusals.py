"""Says which layer of a model cannot be exported, and for what."""

import linecache
import re
from collections.abc import Iterator
from traceback import walk_tb
from typing import Any

from torch import nn

from zoo.errors import InputError

_OPERATOR = re.compile(r"OpOverload\(op='(?P<operator>[\w.]+)'")
_NODE = re.compile(r"translating node %(?P<node>\w+)")


def refuse_model(graph: nn.Module, error: Exception) -> InputError:
    """Return the error for a model that torch cannot trace, with the layer and the line of its code.

    Args:
        graph: What was traced.
        error: What torch said.
    """
    names = {id(module): name.removeprefix("network.") for name, module in graph.named_modules()}
    places = [
        (names[id(layer)], layer, frame.f_code.co_filename, line)
        for frame, line in walk_tb(error.__traceback__)
        if id(layer := frame.f_locals.get("self")) in names and frame.f_globals.get("__name__") != nn.Module.__module__
    ]
    if not places:
        return InputError(f"the model cannot be exported: {_first_line(error)}")
    name, layer, file, line = places[-1]
    code = linecache.getline(file, line).strip()
    reason = _first_line(error)
    if "data-dependent" in reason:
        reason = "what it does depends on the values in the images, and a file has one way for all of them"
    return InputError(f"the model cannot be exported: {_name(name, layer)} has {code!r}: {reason}")


def refuse_format(program: Any, form: str, error: Exception) -> InputError:
    """Return the error for a program that a format cannot hold, with the layer and the operator.

    Args:
        program: What was traced.
        form: The format.
        error: What its writer said.
    """
    told = " ".join(map(str, _causes(error)))
    operator, node = _OPERATOR.search(told), _NODE.search(told)
    if operator is None:
        return InputError(f"the model cannot be written as {form}: {_first_line(error)}")
    nodes = program.run_decompositions().graph.nodes if node else ()  # whose names the error tells
    stacks = [found.meta.get("nn_module_stack") or {} for found in nodes if node and found.name == node["node"]]
    layers = [(path.rpartition("network.")[2], kind) for stack in stacks for path, kind in stack.values()]
    where = f"{_name(*layers[-1])} uses" if layers else "it uses"
    return InputError(
        f"the model cannot be written as {form}: {where} {operator['operator']}, which the format does not have. "
        "Choose another format, or replace the layer."
    )


def _name(name: str, layer: Any) -> str:
    kind = layer.rpartition(".")[2] if isinstance(layer, str) else type(layer).__name__
    return f"layer {name} ({kind})" if name and name != "network" else kind


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
