"""OpenVINO models, made of the ONNX file; run by OpenVINO."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zoo.exporters import onnx

FILE = "model.xml"  # beside it model.bin
EXTRA = "openvino"  # what brings `MODULES`
MODULES = ("openvino", "onnx", "onnxscript")


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
