"""What an ONNX file may hold before a runtime is given it: operators of ONNX, and tensors that are there."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from zoo.errors import InputError
from zoo.files import open_inside

BUILT_IN = ("com.microsoft",)  # operators that come with onnxruntime, such as quantised ones
_EXTERNAL = onnx.TensorProto.EXTERNAL


def check_onnx(path: Path) -> None:
    """Refuse a file that is damaged, has operators that are not ONNX's, or tensors outside its folder.

    Raises:
        InputError: In one sentence, what is wrong.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf has its own kinds for each implementation
        raise InputError(
            f"{path} is not a whole ONNX file: it is cut short, or a file of another kind. Export it again."
        ) from error
    if not model.graph.node:
        raise InputError(f"{path} holds no ONNX graph: it is empty, cut short, or a file of another kind.")
    functions = {(made.domain, made.name) for made in model.functions}
    for node in _list_nodes(model):
        _check_operator(path, node, functions)
    size = path.stat().st_size
    for tensor in _list_tensors(model):
        _check_tensor(path, tensor, size)


def _check_operator(path: Path, node: Any, functions: set[tuple[str, str]]) -> None:
    domain = "" if node.domain == "ai.onnx" else node.domain
    if (node.domain, node.op_type) in functions or domain in BUILT_IN or onnx.defs.has(node.op_type, domain):
        return
    where = f" of the domain {domain!r}" if domain else ""
    raise InputError(
        f"{path} has the custom operator {node.op_type!r}{where}, which is not one of ONNX. Only graphs of ONNX's own "
        "operators are run. Export the model without it."
    )


def _check_tensor(path: Path, tensor: Any, size: int) -> None:
    """Refuse a tensor whose values lie elsewhere, or that claims more values than there are bytes."""
    if tensor.data_location == _EXTERNAL:
        size = _measure_external(path, tensor)
    if math.prod(tensor.dims) > 8 * size:  # the smallest type has a few bits
        raise InputError(
            f"{path} is damaged: its tensor {tensor.name!r} claims the shape {tuple(tensor.dims)}, but there are only "
            f"{size:,} bytes. Export it again."
        )


def _measure_external(path: Path, tensor: Any) -> int:
    """Return the bytes of the file that a tensor is in, which lies beside the model and is no link."""
    place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    try:
        if not place or Path(place).is_absolute() or ".." in Path(place).parts:
            raise InputError("it lies outside the folder of the model")
        with open_inside(path.parent, place) as file:
            return file.seek(0, 2)
    except (InputError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path} has values in the file {place!r}, which is not read: {reason}. Expected a file beside the model."
        ) from error


def _list_nodes(model: Any) -> Iterator[Any]:
    for graph in (model.graph, *model.functions):
        yield from _nodes_of(graph)


def _nodes_of(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for part in (attribute.g, *attribute.graphs):
                yield from _nodes_of(part)


def _list_tensors(model: Any) -> Iterator[Any]:
    graphs = [model.graph]
    for node in _list_nodes(model):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            yield from _dense(attribute.sparse_tensor, *attribute.sparse_tensors)
            graphs += [attribute.g, *attribute.graphs]
    for graph in graphs:
        yield from graph.initializer
        yield from _dense(*graph.sparse_initializer)


def _dense(*tensors: Any) -> Iterator[Any]:
    for sparse in tensors:
        yield from (sparse.values, sparse.indices)
