"""Operators that torch's ONNX exporter does not know; imported only where onnxscript is there."""

from onnxscript import BOOL, FLOAT, INT64, script
from onnxscript import opset18 as op


@script()  # type: ignore[untyped-decorator]
def suppress(boxes: FLOAT, scores: FLOAT, groups: INT64, iou: float) -> FLOAT:
    """Translate `zoo::suppress`: ONNX's own suppression, for each group of boxes by itself."""
    places = op.Shape(scores, start=1, end=2)
    count = op.ReduceMax(groups, keepdims=0) + op.Constant(value_int=1)
    numbers = op.Unsqueeze(op.Range(op.Constant(value_int=0), count, op.Constant(value_int=1)), [0, 2])
    each = op.Where(
        op.Equal(op.Unsqueeze(groups, [1]), numbers), op.Unsqueeze(scores, [1]), op.Constant(value_float=0.0)
    )
    threshold = op.Constant(value_float=iou)
    found = op.NonMaxSuppression(boxes, each, places, op.Unsqueeze(threshold, [0]), op.Constant(value_floats=[0.0]))
    chosen = op.Gather(found, [0, 2], axis=1)
    return op.ScatterND(scores - scores, chosen, op.GatherND(scores, chosen))


@script()  # type: ignore[untyped-decorator]
def is_all_true(values: BOOL) -> BOOL:
    """Translate `aten::_is_all_true`, which checks of transformers are made of."""
    least = op.ReduceMin(op.Cast(values, to=INT64.dtype), keepdims=0)
    return op.Cast(least, to=BOOL.dtype)
