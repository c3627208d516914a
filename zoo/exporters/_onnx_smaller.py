"""Half-precision and 8-bit ONNX files, made of the float32 one with onnxruntime's own tools."""

import ast
import copy
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from zoo.exporters._job import Found, Job
from zoo.exporters.onnx import SCOPES

MODULES: Mapping[str, tuple[str, ...]] = {"fp16": (), "int8": ()}  # beside those of the format
LOOKED_AT = 16  # images, to rank layers by
GROWTH = 1.5  # of the number of layers left in float32, from try to try
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
IN_FLOAT = {"Softmax", "LayerNormalization", "InstanceNormalization"}  # of little cost, and much hurt by 8 bits


def halve(job: Job) -> Found:
    """Write a file whose network computes in float16; inputs, outputs and what follows the network stay float32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model, found = onnx.load(job.source), Found("fp16")
    apart = [node.name for node in model.graph.node if not _is_inside(node)]
    with warnings.catch_warnings(action="ignore"):  # tells of each weight that is too small for float16
        _save(convert_float_to_float16(model, keep_io_types=True, node_block_list=apart), job.target, found)
    return found


def quantise(job: Job) -> Found:
    """Write an 8-bit file; the layers that hurt most stay in float32, until the drop is allowed."""
    with job.show.counting("calibrating, images", job.images) as count:
        quantiser = Quantiser(job.source, _batches(job, count))
    ranked, curve, left = list[str](), list[tuple[int, float]](), 0
    while True:
        found = Found("int8", job.images, len(quantiser.layers), tuple(ranked[:left]), tuple(curve))
        quantiser.write(job.target, found)
        drop = job.score(None, None).drop or 0.0
        curve.append((left, drop))
        job.show.log(f"{left} of {len(quantiser.layers)} layers left in float32: {drop:.2f} points lost")
        if drop <= job.max_drop or job.keeps_any or left >= len(quantiser.layers) // 2:
            return replace(found, curve=tuple(curve))
        if not ranked:
            places = range(0, job.images, max(1, job.images // LOOKED_AT))[:LOOKED_AT]
            with job.show.counting("measuring the error of each layer", len(quantiser.layers)) as count:
                ranked = quantiser.rank([job.batch(place) for place in places], count)
        left = min(max(left + 1, int(left * GROWTH)), len(quantiser.layers) // 2)


def _batches(job: Job, count: Callable[[int, int], None]) -> Iterator[Any]:
    for place in range(job.images):
        yield job.batch(place)
        count(place + 1, job.images)


class Quantiser:
    """Makes 8-bit files of a float32 one: QDQ, activations in 8 bits, weights per channel in 7.

    x86 processors without VNNI add up two products in 16 bits, which 8-bit weights overflow: such a file would give
    other answers there than where it was scored.

    Args:
        source: The float32 file.
        batches: Inputs as the file takes them, to find the range of each tensor with.

    Attributes:
        layers: Names of the nodes of each layer: a convolution or product, and what follows it until the next.
    """

    def __init__(self, source: Path, batches: Iterable[Any]) -> None:
        import onnx

        self.model = onnx.load(source)
        self.network = _cut_tail(self.model)
        self.apart = [node.name for node in self.model.graph.node if not _is_inside(node)]
        self.layers = dict[str, list[str]]()
        types = {node.name: node.op_type for node in self.model.graph.node}
        for node, layer in _name_nodes(self.model.graph).items():
            if types[node] in _types():
                self.layers.setdefault(layer, []).append(node)
        self.ranges = _calibrate(self.network, batches)

    def write(self, target: Path, found: Found) -> None:
        """Write a file of which some layers stay in float32."""
        kept = [name for layer in found.left_in_float for name in self.layers[layer]]
        made = self._quantise(self.model, {"nodes_to_exclude": self.apart + kept})
        _free_outputs(made.graph, kept)
        _save(made, target, found)

    def rank(self, batches: Iterable[Any], count: Callable[[int, int], None]) -> list[str]:
        """Return the names of the layers; first those that change the network's outputs most if only they have 8 bits.

        Args:
            batches: Inputs to look at.
            count: Told how many layers are done, of how many.
        """
        batches, errors = list(batches), dict[str, float]()
        expected = _run(self.network, batches)
        for number, (name, nodes) in enumerate(self.layers.items(), 1):
            found = _run(self._quantise(self.network, {"nodes_to_quantize": nodes}), batches)
            errors[name] = _distance(expected, found)
            count(number, len(self.layers))
        return sorted(errors, key=lambda name: -errors[name])

    def _quantise(self, model: Any, which: Mapping[str, list[str]]) -> Any:
        from onnxruntime.quantization import QDQQuantizer, QuantType

        options: dict[str, Any] = {"nodes_to_quantize": [], "nodes_to_exclude": [], **which}
        quantiser = QDQQuantizer(
            copy.deepcopy(model),
            per_channel=True,
            reduce_range=True,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=self.ranges,
            op_types_to_quantize=_types(),
            extra_options={},
            **options,
        )
        quantiser.quantize_model()
        return quantiser.model.model


def _save(model: Any, target: Path, found: Found) -> None:
    import onnx

    for key, value in found.facts().items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, target)


def _types() -> list[str]:
    """Return the operators that are quantised."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted((set(QDQRegistry) | set(QLinearOpsRegistry)) - IN_FLOAT)


def _scopes(node: Any) -> list[str]:
    found = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
    return list(ast.literal_eval(found))


def _is_inside(node: Any) -> bool:
    """Return whether a node belongs to the network, not to normalisation or what follows the network."""
    return _scopes(node)[1:2] == ["network"]


def name_nodes(source: Path) -> dict[str, str]:
    """Return for each node of the network in a file its layer, in the order in which they run."""
    import onnx

    return _name_nodes(onnx.load(source).graph)


def _name_nodes(graph: Any) -> dict[str, str]:
    weights, nodes = {tensor.name for tensor in graph.initializer}, [node for node in graph.node if _is_inside(node)]
    first = next((node for node in nodes if node.op_type in WEIGHTED), None)
    names, layer = dict[str, str](), _name_layer(first, weights) if first else ""
    for node in nodes:
        layer = _name_layer(node, weights) if node.op_type in WEIGHTED else layer
        names[node.name] = layer
    return names


def _name_layer(node: Any, weights: Collection[str]) -> str:
    own = [name for name in node.input if name in weights and name.startswith("network.")]
    module = own[0].rpartition(".")[0] if own else _scopes(node)[-2]  # the last scope is the operation
    return module.removeprefix("network").removeprefix(".") or node.name


def _free_outputs(graph: Any, nodes: Collection[str]) -> None:
    """Take quantisation off the outputs of nodes that stay in float32.

    Between quantised tensors onnxruntime (its WeightBiasQuantization) would quantise them again when it loads the file:
    per tensor, with 8 bits, and without a word.
    """
    free = {name for node in graph.node if node.name in set(nodes) for name in node.output}
    ends, gone, renamed = {value.name for value in graph.output}, list[Any](), dict[str, str]()
    codes = {n.output[0]: n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] in free}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in codes:
            tensor = codes[node.input[0]].input[0]
            old, new = (tensor, node.output[0]) if node.output[0] in ends else (node.output[0], tensor)
            renamed[old] = new
            gone += [node, codes[node.input[0]]]
    for node in {id(node): node for node in gone}.values():
        graph.node.remove(node)
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    _drop_unused(graph)


def _drop_unused(graph: Any) -> None:
    """Remove tensors that no node takes; onnxruntime warns of each."""
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _cut_tail(model: Any) -> Any:
    """Return a copy that ends where the network does."""
    import onnx

    made = copy.deepcopy(model)
    graph = made.graph
    inside = {name for node in graph.node if _is_inside(node) for name in node.output}
    after = {name for node in graph.node if not _is_inside(node) for name in node.input}
    ends = sorted(inside & (after | {value.name for value in graph.output}))
    kinds = {value.name: value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.output]}
    ends = [name for name in ends if kinds.get(name) == onnx.TensorProto.FLOAT]
    needed, kept = set(ends), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    del graph.output[:]
    graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ends)
    kept = kept[::-1]
    del graph.node[:]
    graph.node.extend(kept)
    _drop_unused(graph)
    return made


def _calibrate(network: Any, batches: Iterable[Any]) -> Any:
    """Return the smallest and largest value of each tensor."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(batches)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {network.graph.input[0].name: batch}

    with TemporaryDirectory() as place:
        file = Path(place) / "network.onnx"
        onnx.save(network, file)
        calibrator = create_calibrator(file, _types(), augmented_model_path=str(Path(place) / "augmented.onnx"))
        calibrator.collect_data(Reader())
        return calibrator.compute_data()


def _run(model: Any, batches: Iterable[Any]) -> list[list[Any]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return [session.run(None, {name: batch}) for batch in batches]


def _distance(expected: list[list[Any]], found: list[list[Any]]) -> float:
    """Return the mean squared difference of outputs, each by its own size."""
    pairs = [pair for one, other in zip(expected, found, strict=True) for pair in zip(one, other, strict=True)]
    return float(np.mean([np.square(a - b).mean() / max(np.square(a).mean(), 1e-12) for a, b in pairs]))
