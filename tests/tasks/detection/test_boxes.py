import numpy as np
import torch
from torchvision.ops import box_iou

from zoo.tasks.detection.boxes import pairwise_iou


def test_all_pairs_overlap_as_torchvision_computes():
    generator = np.random.default_rng(0)
    corners = generator.random((2, 30, 2)) * 100
    first, second = np.concatenate([corners, corners + generator.random((2, 30, 2)) * 60], axis=2)
    expected = box_iou(torch.from_numpy(first), torch.from_numpy(second)).numpy()
    assert 100 < np.count_nonzero(expected) < 900
    assert np.allclose(pairwise_iou(first, second), expected, rtol=0, atol=1e-15)
    boxes = np.array([[3.0, 3, 3, 3], [0, 0, 10, 10]])
    assert pairwise_iou(boxes, boxes).tolist() == [[0, 0], [0, 1]]
    assert pairwise_iou(boxes[:0], boxes).shape == (0, 2)
