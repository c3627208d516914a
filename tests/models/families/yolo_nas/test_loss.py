import socket
from pathlib import Path

import numpy as np
import pytest
import torch

from prepared import Prepared
from zoo.errors import InputError
from zoo.models.families.yolo_nas.assigners import StaticAssigner, TaskAlignedAssigner
from zoo.models.families.yolo_nas.heads import RawOutputs, make_places
from zoo.models.families.yolo_nas.loss import YoloNasLoss, share_of_processes

pytestmark = pytest.mark.numbers

ROOT = Path(__file__).parents[4]
RECORDED = np.load(ROOT / "tests" / "fixtures" / "yolo_nas" / "loss.npz")
LOSSES = {
    "tal_vfl": YoloNasLoss(),
    "atss_vfl": YoloNasLoss(assigner=StaticAssigner()),
    "tal_focal": YoloNasLoss(classification="focal"),
    "atss_focal": YoloNasLoss(assigner=StaticAssigner(), classification="balanced-focal"),
    "tal_vfl_all_empty": YoloNasLoss(),
}
NOTHING = torch.zeros(0, 6)
SECONDS = 60  # that two processes may take


def recorded_outputs():
    """What the heads gave, in the plain tuple of super-gradients, with gradients; and the targets."""
    names = ("logits", "reg_distri", "anchors", "anchor_points", "num_anchors_list", "stride_tensor")
    tensors = [torch.from_numpy(RECORDED[name]) for name in names]
    logits, sides = tensors[0].requires_grad_(), tensors[1].requires_grad_()
    raw = (logits, sides, *tensors[2:4], RECORDED["num_anchors_list"].tolist(), tensors[5])
    return raw, torch.from_numpy(RECORDED["targets"])


def random_outputs(images=4, classes=3, side=96):
    """Random outputs for images of which the first two have boxes; and the targets."""
    generator = torch.Generator().manual_seed(0)
    places = make_places([(side // stride, side // stride) for stride in (8, 16, 32)], torch.device("cpu"))
    count = len(places.points)
    logits = torch.randn(images, count, classes, generator=generator) - 2
    sides = torch.randn(images, count, 68, generator=generator)
    rows = [[0, 1, 40, 40, 50, 30], [1, 0, 30, 50, 20, 60], [0, 2, 60, 60, 40, 40], [1, 1, 70, 30, 30, 30]]
    return RawOutputs(logits.requires_grad_(), sides.requires_grad_(), *places), torch.tensor(rows).float()


def shown(losses):
    """Classification, IoU, DFL, total."""
    return [float(losses.classification), float(losses.iou), float(losses.dfl), float(losses.total.detach())]


@pytest.fixture(params=LOSSES)
def case(request):
    """Name of a recorded case, its losses, and the outputs after backward."""
    raw, targets = recorded_outputs()
    losses = LOSSES[request.param](raw, NOTHING if "empty" in request.param else targets)
    losses.total.backward()
    return request.param, losses, raw


def test_parts_are_those_of_super_gradients(case, record_property):
    name, losses, _ = case
    record_property("max_abs_diff", float(np.abs(shown(losses) - RECORDED[f"{name}/components"]).max()))
    assert shown(losses) == pytest.approx(RECORDED[f"{name}/components"], rel=1e-5)


def test_gradients_are_those_of_super_gradients(case, record_property):
    name, _, (logits, sides, *_) = case
    record_property("max_abs_diff", float(np.abs(logits.grad.numpy() - RECORDED[f"{name}/grad_logits"]).max()))
    np.testing.assert_allclose(logits.grad, RECORDED[f"{name}/grad_logits"], rtol=0, atol=1e-6)
    if f"{name}/grad_reg_distri" in RECORDED:
        np.testing.assert_allclose(sides.grad, RECORDED[f"{name}/grad_reg_distri"], rtol=0, atol=1e-6)
    else:
        norms = RECORDED[f"{name}/grad_reg_distri_per_anchor_norm"]
        np.testing.assert_allclose(sides.grad.norm(dim=-1), norms, rtol=0, atol=1e-6)
    both = [float(gradient.double().norm()) for gradient in (logits.grad, sides.grad)]
    assert both == pytest.approx(RECORDED[f"{name}/grad_norms"], rel=1e-5)


def test_without_any_box_the_gradient_of_the_sides_is_zero_and_not_missing():
    raw, _ = random_outputs()
    losses = YoloNasLoss()(raw, NOTHING)
    losses.total.backward()
    assert raw.side_logits.grad is not None
    assert not raw.side_logits.grad.any()
    assert raw.class_logits.grad.abs().min() > 0
    scores = raw.class_logits.detach().sigmoid()
    plain_sum = -0.75 * (scores**2 * (1 - scores).log()).sum()
    assert shown(losses) == pytest.approx([float(plain_sum), 0, 0, float(plain_sum)])


def test_images_without_boxes_learn_that_there_is_nothing():
    raw, targets = random_outputs()
    YoloNasLoss()(raw, targets).total.backward()
    assert not raw.side_logits.grad[2:].any()
    assert raw.side_logits.grad[:2].any()
    assert (raw.class_logits.grad[2:] > 0).all()


def test_weights_multiply_their_parts():
    raw, targets = random_outputs()
    once = YoloNasLoss(class_weight=1, iou_weight=1, dfl_weight=1)(raw, targets)
    weighted = YoloNasLoss(class_weight=2, iou_weight=3, dfl_weight=5)(raw, targets)
    expected = [2 * float(once.classification), 3 * float(once.iou), 5 * float(once.dfl)]
    assert shown(weighted) == pytest.approx([*expected, sum(expected)])
    assert weighted.total.requires_grad
    assert not any(part.requires_grad for part in weighted[1:])


def test_order_chunks_and_integers_make_no_difference():
    raw, targets = random_outputs()
    assert shown(YoloNasLoss()(raw, targets)) == shown(YoloNasLoss()(raw, targets[[3, 0, 1, 2]]))
    raw, targets = recorded_outputs()
    whole, parts = (YoloNasLoss(assigner=TaskAlignedAssigner(max_elements=size)) for size in (10**9, 300))
    assert shown(whole(raw, targets)) == shown(parts(raw, targets))
    raw, targets = random_outputs()
    assert shown(YoloNasLoss()(raw, targets.long())) == shown(YoloNasLoss()(raw, targets))


def test_boxes_of_no_size_or_far_away_are_left_out():
    raw, targets = random_outputs()
    outside = torch.tensor([[0.0, 1, -30, -30, 100, 20]])  # its corners are -80, -40, 20, -20
    below = torch.tensor([[0.0, 1, 400, 400, 20, 20]])  # contains no anchor
    losses = [YoloNasLoss()(raw, torch.cat([targets, *more])) for more in ((), (outside,), (below,), (outside, below))]
    assert all(shown(one) == shown(losses[0]) for one in losses)
    raw, targets = random_outputs()
    flat = torch.tensor([[2.0, 1, 40, 40, 0, 30]])
    assert shown(YoloNasLoss()(raw, torch.cat([targets, flat]))) == shown(YoloNasLoss()(raw, targets))


def test_autocast_does_not_reach_the_loss():
    raw, targets = random_outputs()
    expected = YoloNasLoss()(raw, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = YoloNasLoss()(raw, targets)
    assert found.total.dtype == torch.float32
    assert shown(found) == shown(expected)


def test_outputs_of_half_precision_are_compared_in_float32():
    raw, targets = random_outputs()
    halves = [part.detach().bfloat16() for part in raw[:2]]
    expected = YoloNasLoss()((*(part.float() for part in halves), *raw[2:]), targets)
    leaves = [part.requires_grad_() for part in halves]
    found = YoloNasLoss()((*leaves, *raw[2:]), targets)
    found.total.backward()
    assert shown(found) == shown(expected)
    assert all(leaf.grad.dtype == torch.bfloat16 and leaf.grad.any() for leaf in leaves)


def test_the_sum_of_scores_can_be_shared_out_by_other_means():
    raw, targets = random_outputs()
    seen = []

    def divisor(scores):
        seen.append(float(scores))
        return scores.new_tensor(50.0)

    own, shared = YoloNasLoss()(raw, targets), YoloNasLoss(divisor=divisor)(raw, targets)
    assert seen[0] > 1
    assert shown(shared) == pytest.approx([value * seen[0] / 50 for value in shown(own)])
    assert float(share_of_processes(torch.tensor(3.0))) == 3.0
    assert float(share_of_processes(torch.tensor(0.1))) == 1.0


PROCESS = """
import sys
import torch
from torch import distributed
sys.path.insert(0, {place!r})
from test_loss import COUNTS, random_outputs
from zoo.models.families.yolo_nas.loss import YoloNasLoss

distributed.init_process_group("gloo", init_method="file://{folder}/meet", rank={rank}, world_size=2)
own = slice(0, 1) if {rank} == 0 else slice(1, 4)
for count in COUNTS:
    raw, targets = random_outputs()
    targets = targets[:count]
    part = raw._replace(class_logits=raw.class_logits[own], side_logits=raw.side_logits[own])
    mine = targets[(targets[:, 0] >= own.start) & (targets[:, 0] < own.stop)]
    mine[:, 0] -= own.start
    YoloNasLoss()(part, mine).total.backward()
    gradients = [raw.class_logits.grad / 2, raw.side_logits.grad / 2]  # their mean, as DistributedDataParallel takes it
    for gradient in gradients:
        distributed.all_reduce(gradient)
    torch.save(gradients, f"{folder}/{rank}-{{count}}.pt")
distributed.destroy_process_group()
"""
COUNTS = (1, 1000)  # boxes: few, whose scores are less than 1 together; and all


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(tmp_path):
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    scripts = [PROCESS.format(place=str(Path(__file__).parent), folder=tmp_path, rank=rank) for rank in (0, 1)]
    processes = [
        Prepared(script, tmp_path / f"of-{rank}", GLOO_SOCKET_IFNAME=loopback) for rank, script in enumerate(scripts)
    ]
    ends = [process.wait(SECONDS) for process in processes]
    assert [end.returncode for end in ends] == [0, 0], ends
    for count in COUNTS:
        raw, targets = random_outputs()
        YoloNasLoss()(raw, targets[:count]).total.backward()
        for rank in (0, 1):
            for found, whole in zip(torch.load(tmp_path / f"{rank}-{count}.pt"), raw[:2], strict=True):
                torch.testing.assert_close(found, whole.grad, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        (0, 4, r"image index of row 2 is 4; expected an integer from 0 to 3"),
        (0, -1, r"image index of row 2 is -1; expected an integer from 0 to 3"),
        (0, 0.5, r"image index of row 2 is 0\.5; expected an integer"),
        (1, 3, r"class of row 2 is 3; expected an integer from 0 to 2"),
        (1, -1, r"class of row 2 is -1; expected an integer from 0 to 2"),
        (1, 1.5, r"class of row 2 is 1\.5; expected an integer"),
        (1, float("nan"), r"class of row 2 is nan; expected an integer"),
        (2, float("inf"), r"centre x of row 2 is inf; expected a number"),
        (3, float("nan"), r"centre y of row 2 is nan; expected a number"),
        (4, -1, r"width of row 2 is -1; expected a number, 0 or more"),
        (5, -0.1, r"height of row 2 is -0\.1; expected a number, 0 or more\. The row is \[0\.0, 2\.0, 60\.0"),
    ],
)
def test_wrong_targets(column, value, text):
    raw, targets = random_outputs()
    targets[2, column] = value
    with pytest.raises(InputError, match=text):
        YoloNasLoss()(raw, targets)


@pytest.mark.parametrize("targets", [torch.zeros(3, 5), torch.zeros(6), [[0, 1, 2, 3, 4, 5]]])
def test_targets_of_another_shape(targets):
    raw, _ = random_outputs()
    with pytest.raises(
        InputError, match=r"targets are a (tensor \(|list).*; expected a tensor \(N, 6\): image index, class"
    ):
        YoloNasLoss()(raw, targets)


def test_an_unknown_classification():
    with pytest.raises(InputError, match=r"'vari-focal'; expected varifocal, focal, .*\. Did you mean 'varifocal'"):
        YoloNasLoss(classification="vari-focal")
