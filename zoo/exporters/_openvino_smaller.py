"""Half-precision and 8-bit OpenVINO models, made of the float32 one by OpenVINO and NNCF."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from zoo.exporters import onnx
from zoo.exporters._job import Found, Job
from zoo.exporters._onnx_smaller import name_nodes

MODULES = {"fp16": (), "int8": ("nncf",)}  # beside those of the format
WEIGHTED = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")


def halve(job: Job) -> Found:
    """Write a model with weights in float16; they are float32 again when it runs on a CPU."""
    import openvino

    found = Found("fp16")
    _save(openvino.Core().read_model(job.source), job.target, found, compress=True)
    return found


def quantise(job: Job) -> Found:
    """Write an 8-bit model; NNCF leaves in float what hurts most, until the drop is allowed."""
    import openvino

    nncf, names = _import_nncf(), _name_operations(job.program)
    model = openvino.Core().read_model(job.source)
    layers = [op for op in model.get_ops() if _is_layer(op, names)]
    outside = [op.get_friendly_name() for op in model.get_ops() if _base(op) not in names and not _is_constant(op)]
    options = {
        "subset_size": job.images,
        "ignored_scope": nncf.IgnoredScope(names=outside, validate=False),
        "preset": nncf.QuantizationPreset.MIXED,
    }
    images, curve = nncf.Dataset(list(range(job.images)), job.batch), list[tuple[int, float]]()
    if job.keeps_any:
        made = nncf.quantize(model, images, **options)
    else:
        made = _search(nncf, model, images, options, job, curve, max(1, len(layers) // 2))
    now = {op.get_friendly_name(): op for op in made.get_ops()}
    still = [op for op in layers if _is_constant(now[op.get_friendly_name()].input_value(1).get_node())]
    left_out = tuple(names[_base(op)] for op in still)
    found = Found("int8", job.images, len(layers), left_out, tuple(curve))
    _save(made, job.target, found)
    return found


def _search(
    nncf: Any, model: Any, images: Any, options: Mapping[str, Any], job: Job, curve: list[tuple[int, float]], most: int
) -> Any:
    """Return what NNCF's accuracy control makes; `curve` gets the drop of each try."""
    scores = list[float]()

    def measure(compiled: Any, places: Sequence[int]) -> tuple[float, None]:
        places = list(places)
        score = job.score(lambda pixels: list(compiled(pixels).to_tuple()), places).theirs or 0.0
        if len(places) == job.examples:
            scores.append(100 * score)
            if len(scores) > 1:
                job.show.log(f"try {len(scores) - 1}: {scores[0] - scores[-1]:.2f} points lost")
        return score, None

    made = nncf.quantize_with_accuracy_control(
        model,
        images,
        nncf.Dataset(list(range(job.examples))),
        measure,
        max_drop=job.max_drop / 100,
        advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
            max_num_iterations=most, ranking_subset_size=max(1, job.examples // 2), num_ranking_workers=1
        ),
        **options,
    )
    curve += [(number, scores[0] - score) for number, score in enumerate(scores[1:])]
    return made


def _import_nncf() -> Any:
    """Return NNCF, silent, and without its reports of usage."""
    os.environ.setdefault("NNCF_CI", "1")  # read when it is imported; else it sends reports
    import nncf

    nncf.set_log_level(40)
    return nncf


def _name_operations(program: Any) -> dict[str, str]:
    """Return which layer each operation of the network belongs to: OpenVINO keeps the names of the ONNX file."""
    with TemporaryDirectory() as place:
        file = Path(place) / onnx.FILE
        onnx.write(program, (), file, {})
        return name_nodes(file)


def _base(op: Any) -> str:
    return str(op.get_friendly_name()).partition("/")[0]  # behind it stands what OpenVINO has split it into


def _is_layer(op: Any, names: Mapping[str, str]) -> bool:
    return op.get_type_name() in WEIGHTED and _base(op) in names and _is_constant(op.input_value(1).get_node())


def _is_constant(op: Any) -> bool:
    return bool(op.get_type_name() == "Constant")


def _save(model: Any, target: Path, found: Found, *, compress: bool = False) -> None:
    import openvino

    for key, value in found.facts().items():
        model.set_rt_info(value, ["zoo", key.removeprefix("zoo.")])
    openvino.save_model(model, target, compress_to_fp16=compress)
