"""OpenVINO models, made of the ONNX file; run by OpenVINO."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zoo.errors import InputError
from zoo.exporters import onnx
from zoo.exporters._graph_file import GraphFile, Port, refuse_damaged
from zoo.files import check_checksum

FILE = "model.xml"
BESIDE = (".bin",)  # endings of what belongs to it
EXTRA = "openvino"  # what brings `MODULES`
MODULES = ("openvino", "onnx", "onnxscript")
RUNS_WITH = ("openvino",)  # what `open_file` needs


def export(run: Any, target: Any, **options: Any) -> Any:
    """Write a folder with this format; see `zoo.export`."""
    from zoo.exporters._export import export as export_to

    return export_to(run, target, formats="openvino", **options)


def write(
    program: torch.export.ExportedProgram, outputs: tuple[str, ...], path: Path, facts: Mapping[str, str]
) -> None:
    """Write a traced program; the arguments are those of `zoo.exporters.onnx.write`. Weights stay float32."""
    import openvino

    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / onnx.FILE
        onnx.write(program, outputs, file, facts)
        model = openvino.convert_model(file)
    for key, value in facts.items():
        model.set_rt_info(value, ["zoo", key.removeprefix("zoo.")])
    openvino.save_model(model, path, compress_to_fp16=False)


def open_file(path: Path, threads: int | None = None) -> GraphFile:
    """Open an OpenVINO model on the CPU, in float32; the arguments are those of `zoo.exporters.onnx.open_file`.

    Raises:
        InputError: It is damaged, or its weights are missing.
    """
    import openvino

    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise InputError(f"{weights} is missing: an OpenVINO model is two files. Copy it beside {path.name}.")
    check_checksum(weights)
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    options |= {"INFERENCE_NUM_THREADS": threads} if threads else {}
    try:
        model = openvino.Core().read_model(path, weights)
        compiled = openvino.compile_model(model, "CPU", options)
    except Exception as error:
        raise refuse_damaged(path, "OpenVINO", error) from error
    inputs, outputs = (tuple(map(_describe, ports)) for ports in (model.inputs, model.outputs))
    known = model.get_rt_info("zoo").value if model.has_rt_info("zoo") else {}
    facts = {key: str(value) for key, value in known.items()} if isinstance(known, dict) else {}
    return GraphFile(path, inputs, outputs, facts, lambda array: list(compiled(array).to_tuple()))


def _describe(port: Any) -> Port:
    shape = port.get_partial_shape()
    sides = tuple(side.get_length() if side.is_static else None for side in shape) if shape.rank.is_static else ()
    name = next(iter(sorted(port.get_names())), "")
    return Port(name, str(port.get_element_type().to_dtype()), sides)
