"""ONNX files, by torch's exporter; run by onnxruntime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

FILE = "model.onnx"
EXTRA = "export"  # what brings `MODULES`
MODULES = ("onnx", "onnxscript", "onnxruntime")
OPSET = 18


def export(run: Any, target: Any, **options: Any) -> Any:
    """Write a folder with this format; see `zoo.export`."""
    from zoo.exporters._export import export as export_to

    return export_to(run, target, formats="onnx", **options)


def write(
    program: torch.export.ExportedProgram,
    outputs: tuple[str, ...],
    path: Path,
    facts: Mapping[str, str],
    *,
    inputs: tuple[str, ...] = ("images",),
) -> None:
    """Write a traced program.

    Args:
        program: Takes any number of images.
        outputs: Their names.
        path: Of the new file.
        facts: Kept in the model's metadata.
        inputs: Their names.
    """
    made: Any = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        input_names=list(inputs),
        output_names=list(outputs) or None,
        custom_translation_table=_translations(),
        verbose=False,
    )
    made.model.metadata_props.update(facts)
    made.save(path, external_data=False)


def _translations() -> Any:
    from zoo.exporters import _onnx_operators

    ops: Any = torch.ops
    known = {ops.aten._is_all_true.default: _onnx_operators.is_all_true}
    if hasattr(ops.zoo, "suppress"):  # known once a detector's part has been imported
        known[ops.zoo.suppress.default] = _onnx_operators.suppress
    return known
