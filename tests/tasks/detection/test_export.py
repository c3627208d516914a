from types import SimpleNamespace

import numpy as np

from zoo.tasks.detection.export import Comparison


def found(*scores):
    boxes = np.array([[10, 10, 40, 40]] * len(scores), np.float32).reshape(-1, 4)
    return SimpleNamespace(boxes=boxes, scores=np.array(scores, np.float32), labels=np.zeros(len(scores), np.int64)), {
        "detections": [
            {"box": box.tolist(), "score": score, "label": 0} for box, score in zip(boxes, scores, strict=True)
        ]
    }


def test_a_comparison_says_how_much_it_has_compared():
    comparison = Comparison(["cell"])
    comparison.add("a.jpg", *found())
    empty = comparison.compute()
    assert empty.is_empty
    assert empty.row()["same answers"] == "nothing found"
    comparison.add("b.jpg", *found(0.9))
    full = comparison.compute()
    assert (full.is_empty, full.compared, full.agreement) == (False, 1, 1.0)
    assert full.row()["same answers"] == "100.00%"
