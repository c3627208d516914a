"""ONNX files, by torch's exporter; run by onnxruntime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zoo.exporters._graph_file import GraphFile, Port, refuse_damaged

FILE = "model.onnx"
EXTRA = "export"  # what brings `MODULES`
MODULES = ("onnx", "onnxscript", "onnxruntime")
RUNS_WITH = ("onnx", "onnxruntime")  # what `open_file` needs
OPSET = 18
SCOPES = "pkg.torch.onnx.name_scopes"  # where torch's exporter keeps which module a node comes from


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
    for node in made.model.graph.all_nodes():
        for key in set(node.metadata_props) - {SCOPES}:  # where it stood in the code, with paths of this machine
            del node.metadata_props[key]
    made.model.metadata_props.update(facts)
    made.save(path, external_data=False)


def open_file(path: Path, threads: int | None = None) -> GraphFile:
    """Open an ONNX file for onnxruntime on the CPU, once its operators and tensors are known to be its own.

    Args:
        path: Of the file.
        threads: Of the runtime; None: it chooses.

    Raises:
        InputError: It is damaged, has custom operators, or values outside its folder.
    """
    import onnxruntime

    from zoo.exporters._onnx_checks import check_onnx

    check_onnx(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is told by the error
    options.intra_op_num_threads = threads or 0
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a kind of its own for each status
        raise refuse_damaged(path, "onnxruntime", error) from error
    inputs, outputs = (tuple(map(_describe, ports)) for ports in (session.get_inputs(), session.get_outputs()))
    known = session.get_modelmeta().custom_metadata_map.items()
    facts = {key.removeprefix("zoo."): value for key, value in known if key.startswith("zoo.")}
    return GraphFile(path, inputs, outputs, facts, lambda array: session.run(None, {inputs[0].name: array}))


def _describe(port: Any) -> Port:
    kind = port.type.removeprefix("tensor(").removesuffix(")")
    dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
    return Port(port.name, dtype, tuple(side if isinstance(side, int) else None for side in port.shape or ()))


def _translations() -> Any:
    from zoo.exporters import _onnx_operators

    ops: Any = torch.ops
    known = {ops.aten._is_all_true.default: _onnx_operators.is_all_true}
    if hasattr(ops.zoo, "suppress"):  # known once a detector's part has been imported
        known[ops.zoo.suppress.default] = _onnx_operators.suppress
    return known
