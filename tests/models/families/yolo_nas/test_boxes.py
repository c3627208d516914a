import pytest
import torch
from torchvision.ops import box_iou as all_pairs_iou
from torchvision.ops import generalized_box_iou

from zoo.models.families.yolo_nas.boxes import box_iou, generalized_iou, xyxy_to_distances


def boxes(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 100
    return torch.cat([corners, corners + torch.rand(count, 2, generator=generator) * 60 + 1], dim=1)


def test_distances_and_overlaps_of_boxes():
    points = torch.tensor([[10.0, 20]])
    assert xyxy_to_distances(torch.tensor([[11.0, 18, 13, 24]]), points).tolist() == [[-1, 2, 3, 4]]
    one, other = torch.tensor([0.0, 0, 10, 10]), torch.tensor([5.0, 0, 15, 20])
    assert float(box_iou(one, other)) == pytest.approx(50 / 250)
    first, second = boxes(7), boxes(5, seed=1)
    torch.testing.assert_close(box_iou(first[:, None], second), all_pairs_iou(first, second))
    point, inverted, box = (torch.tensor(sides) for sides in ([3.0, 3, 3, 3], [9.0, 9, 1, 1], [0.0, 0, 10, 10]))
    assert box_iou(point, point) == 0
    assert box_iou(inverted, box) == box_iou(box, inverted) == 0
    assert float(box_iou(box, box, eps=100.0)) == pytest.approx(100 / 200)


def test_giou_has_a_gradient_and_is_always_a_number():
    one, apart = torch.tensor([0.0, 0, 10, 10]), torch.tensor([20.0, 0, 30, 10])
    assert float(generalized_iou(one, apart)) == pytest.approx(-100 / 300)
    assert float(generalized_iou(one, one)) == pytest.approx(1)
    first, second = boxes(7), boxes(5, seed=1)
    torch.testing.assert_close(generalized_iou(first[:, None], second), generalized_box_iou(first, second))
    apart = torch.tensor([[20.0, 0, 30, 10]], dtype=torch.float64, requires_grad=True)
    other = torch.tensor([[0.0, 0, 10, 10]], dtype=torch.float64)
    generalized_iou(apart, other).sum().backward()
    assert apart.grad is not None
    assert apart.grad[0, 0] < 0  # moving it to the left raises the value
    assert torch.autograd.gradcheck(lambda moved: generalized_iou(moved, other), apart)
    point = torch.tensor([[1.0, 1, 1, 1]], requires_grad=True)
    value = generalized_iou(point, point.detach())
    value.sum().backward()
    assert value.isfinite().all()
    assert point.grad is not None
    assert point.grad.isfinite().all()
