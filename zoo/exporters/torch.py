"""Programs of torch itself, `torch.export`; run by torch, without the code of the model or of this package."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zoo.exporters._graph_file import GraphFile, Port, refuse_damaged
from zoo.files import write_file

FILE = "model.pt2"
EXTRA = ""  # torch is always there
MODULES = RUNS_WITH = ("torch",)


def export(run: Any, target: Any, **options: Any) -> Any:
    """Write a folder with this format; see `zoo.export`."""
    from zoo.exporters._export import export as export_to

    return export_to(run, target, formats="torch", **options)


def write(
    program: torch.export.ExportedProgram, outputs: tuple[str, ...], path: Path, facts: Mapping[str, str]
) -> None:
    """Write a traced program, its metadata as extra files; the arguments are those of `zoo.exporters.onnx.write`."""
    program = _in_own_operators(program)
    sample, program.example_inputs = program.example_inputs, None  # pickled, and as large as two images
    graphs = [module.graph for module in program.graph_module.modules() if hasattr(module, "graph")]  # loops have some
    traces = [(node, node.meta.pop("stack_trace", None)) for graph in graphs for node in graph.nodes]  # local paths
    content = io.BytesIO()
    try:
        torch.export.save(program, content, extra_files=dict(facts))
    finally:
        program.example_inputs = sample
        for node, trace in traces:
            node.meta["stack_trace"] = trace
    write_file(path, content.getvalue())


def _in_own_operators(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return a program that any torch can run, without an operator of this package."""
    from zoo.exporters import _torch_operators

    ops: Any = torch.ops
    known = {ops.zoo.suppress.default: _torch_operators.suppress} if hasattr(ops.zoo, "suppress") else {}
    is_used = any(node.target in known for node in program.graph.nodes)
    return program.run_decompositions(known) if is_used else program


def open_file(path: Path, threads: int | None = None) -> GraphFile:
    """Open a program on the CPU, once it is known to hold nothing but a graph of torch's operators.

    Args:
        path: Of the file.
        threads: Not used: torch has its own.

    Raises:
        InputError: It is damaged, or holds something that could run code.
    """
    from zoo.exporters._torch_checks import read_program

    content, facts = read_program(path)
    try:
        program = torch.export.load(content)
        module: Any = program.module(check_guards=False)
    except Exception as error:
        raise refuse_damaged(path, "torch", error) from error
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    names = (program.graph_signature.user_inputs, program.graph_signature.user_outputs)
    inputs, outputs = (tuple(_describe(str(name), values.get(str(name))) for name in some) for some in names)

    @torch.inference_mode()
    def run(array: Any) -> list[Any]:
        return [output.numpy() for output in module(torch.from_numpy(array))]

    known = {key.removeprefix("zoo."): value for key, value in facts.items() if key.startswith("zoo.")}
    return GraphFile(path, inputs, outputs, known, run)


def _describe(name: str, value: Any) -> Port:
    sides = tuple(side if isinstance(side, int) else None for side in getattr(value, "shape", ()))
    return Port(name, str(getattr(value, "dtype", "nothing")).removeprefix("torch."), sides)
