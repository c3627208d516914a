import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.ops import box_convert

from zoo.errors import InputError
from zoo.models.families.yolo_nas import assigners
from zoo.models.families.yolo_nas.assigners import Grid, Proposals, StaticAssigner, TaskAlignedAssigner, Truths
from zoo.models.families.yolo_nas.boxes import box_iou
from zoo.models.families.yolo_nas.heads import decode_boxes, make_places

cxcywh_to_xyxy = partial(box_convert, in_fmt="cxcywh", out_fmt="xyxy")

pytestmark = pytest.mark.numbers

RECORDED = np.load(Path(__file__).parents[3] / "fixtures" / "yolo_nas" / "loss.npz")
KINDS = [TaskAlignedAssigner, StaticAssigner]
CLASSES = 4


def recorded_batch():
    """A batch of three images of 96 x 128 px, of which the second has no box; boxes overlap, and one is tiny."""
    logits, sides, anchors, points, strides, rows = (
        torch.from_numpy(RECORDED[name])
        for name in ("logits", "reg_distri", "anchors", "anchor_points", "stride_tensor", "targets")
    )
    grid = Grid(points, anchors, RECORDED["num_anchors_list"].tolist())
    truths = Truths(rows[:, 0].long(), rows[:, 1].long(), cxcywh_to_xyxy(rows[:, 2:]))
    return Proposals(logits, decode_boxes(sides, points, strides)), grid, truths


def random_batch(seed=0, images=3, boxes=40, side=160, device="cpu"):
    """Boxes that overlap a lot, and predictions around each point; the last image has no box."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(*shape, generator=generator)

    places = make_places([(side // stride, side // stride) for stride in (8, 16, 32)], torch.device("cpu"))
    grid = Grid(places.points, places.anchors, places.level_sizes)
    count = len(grid.points)
    near, far = (draw(images, count, 4) * places.strides * 5).chunk(2, dim=-1)
    found = torch.cat([grid.points - near, grid.points + far], dim=-1)
    middles, sizes = draw(boxes, 2) * side, 6 + draw(boxes, 2) ** 2 * side
    truths = Truths(
        torch.randint(images - 1, (boxes,), generator=generator),
        torch.randint(CLASSES, (boxes,), generator=generator),
        cxcywh_to_xyxy(torch.cat([middles, sizes], dim=1)),
    )
    parts = Proposals(draw(images, count, CLASSES) * 6 - 4, found), grid, truths
    return tuple(type(part)(*(x.to(device) if hasattr(x, "to") else x for x in part)) for part in parts)


@pytest.mark.parametrize(("case", "kind"), [("tal_vfl", TaskAlignedAssigner), ("atss_vfl", StaticAssigner)])
def test_labels_boxes_and_scores_are_those_of_super_gradients(case, kind):
    proposals, grid, truths = recorded_batch()
    found = kind()(proposals, grid, truths)
    labels = torch.full(proposals.logits.shape[:2], 5)
    labels[found.images, found.anchors] = found.labels
    scores = torch.zeros(proposals.logits.shape[:2])
    scores[found.images, found.anchors] = found.scores
    assert np.array_equal(labels, RECORDED[f"{case}/assigned_labels"])
    assert np.array_equal(torch.stack([found.images, found.anchors], 1), RECORDED[f"{case}/positive_index"])
    np.testing.assert_allclose(found.boxes, RECORDED[f"{case}/positive_boxes"], rtol=1e-6)
    np.testing.assert_allclose(scores, RECORDED[f"{case}/assigned_scores_max"], rtol=1e-5, atol=1e-7)
    assert float(found.scores.sum()) == pytest.approx(float(RECORDED[f"{case}/assigned_scores_sum"]), rel=1e-6)


def task_aligned_in_words(proposals, grid, truths, candidates=13):
    """The task-aligned assigner, box by box and anchor by anchor; yields image, anchor, row and score."""
    for image, (logits, boxes) in enumerate(zip(*proposals, strict=True)):
        rows = (truths.images == image).nonzero().flatten().tolist()
        overlaps = {row: box_iou(truths.boxes[row], boxes) for row in rows}
        metrics = {row: logits[:, truths.labels[row]].sigmoid() * overlaps[row] ** 6 for row in rows}
        wanted = {}
        for row in rows:
            x1, y1, x2, y2 = truths.boxes[row].tolist()
            inside = [a for a, (x, y) in enumerate(grid.points.tolist()) if x1 < x < x2 and y1 < y < y2]
            for anchor in sorted(inside, key=lambda a, row=row: -float(metrics[row][a]))[:candidates]:
                wanted.setdefault(anchor, []).append(row)
        yield from scored(image, wanted, rows, overlaps, metrics)


def scored(image, wanted, rows, overlaps, metrics):
    owners = {
        anchor: some[0] if len(some) == 1 else max(rows, key=lambda row, anchor=anchor: float(overlaps[row][anchor]))
        for anchor, some in wanted.items()
    }
    for anchor, owner in sorted(owners.items()):
        own = [other for other in owners if owners[other] == owner]
        best = max(float(metrics[owner][other]) for other in own)
        score = float(metrics[owner][anchor]) / (best + 1e-9) * max(float(overlaps[owner][other]) for other in own)
        yield image, anchor, owner, score


def static_in_words(proposals, grid, truths):
    """ATSS, box by box; yields image, anchor, row and score."""
    for image, boxes in enumerate(proposals.boxes):
        rows = (truths.images == image).nonzero().flatten().tolist()
        overlaps = {row: box_iou(truths.boxes[row], grid.squares) for row in rows}
        wanted = {}
        for row in rows:
            x1, y1, x2, y2 = truths.boxes[row].tolist()
            distances = (grid.points - torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2])).norm(dim=1)
            near, first = [], 0
            for size in grid.level_sizes:
                near += sorted(range(first, first + size), key=lambda a, distances=distances: float(distances[a]))[:9]
                first += size
            limit = np.mean(overlaps[row][near].numpy()) + np.std(overlaps[row][near].numpy(), ddof=1)
            for anchor in near:
                x, y = grid.points[anchor].tolist()
                if overlaps[row][anchor] > limit and x1 < x < x2 and y1 < y < y2:
                    wanted.setdefault(anchor, []).append(row)
        for anchor, some in sorted(wanted.items()):
            owner = some[0] if len(some) == 1 else max(rows, key=lambda row, a=anchor: float(overlaps[row][a]))
            yield image, anchor, owner, float(box_iou(truths.boxes[owner], boxes[anchor]))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("kind", "in_words"), [(TaskAlignedAssigner, task_aligned_in_words), (StaticAssigner, static_in_words)]
)
def test_all_boxes_at_once_are_the_same_as_box_by_box(kind, in_words, seed):
    batch = random_batch(seed)
    images, anchors, rows, scores = zip(*in_words(*batch), strict=True)
    found = kind()(*batch)
    assert found.images.tolist() == list(images)
    assert found.anchors.tolist() == list(anchors)
    assert torch.equal(found.boxes, batch[2].boxes[list(rows)])
    assert torch.equal(found.labels, batch[2].labels[list(rows)])
    assert found.scores.tolist() == pytest.approx(list(scores), rel=1e-4, abs=1e-9)
    assert len(found.images) > 60


@pytest.mark.parametrize("max_elements", [1, 1000, 5000])
@pytest.mark.parametrize("kind", KINDS)
def test_chunks_give_the_same_and_need_less_memory(kind, max_elements, monkeypatch):
    batch, sizes = random_batch(), []

    def measured(*args, **options):
        overlap = box_iou(*args, **options)
        sizes.append(overlap.numel())
        return overlap

    monkeypatch.setattr(assigners, "box_iou", measured)
    whole = kind()(*batch)
    most = max(sizes)
    sizes.clear()
    parts = kind(max_elements=max_elements)(*batch)
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one, other)
    # A row is never split: the least that can be had is one box at all anchors, or one anchor at all boxes.
    assert max(sizes) <= max(max_elements, len(batch[1].points))
    assert max(sizes) < most


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_images_in_the_targets_does_not_matter(kind):
    proposals, grid, truths = random_batch()
    order = torch.randperm(len(truths.images), generator=torch.Generator().manual_seed(1))
    one, other = kind()(proposals, grid, truths), kind()(proposals, grid, Truths(*(part[order] for part in truths)))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("assigner", [StaticAssigner(), TaskAlignedAssigner(alpha=0)])
def test_of_two_equal_boxes_the_first_gets_the_anchors(assigner):
    proposals, grid, _ = random_batch()
    twice = Truths(torch.tensor([0, 0]), torch.tensor([2, 1]), torch.tensor([[20.0, 20, 90, 80]]).repeat(2, 1))
    found = assigner(proposals, grid, twice)
    assert found.labels.unique().tolist() == [2]
    alone = assigner(proposals, grid, Truths(*(part[:1] for part in twice)))
    assert all(torch.equal(a, b) for a, b in zip(found, alone, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_box_nothing_is_positive(kind):
    proposals, grid, truths = random_batch()
    found = kind()(proposals, grid, Truths(*(part[:0] for part in truths)))
    assert [len(part) for part in found] == [0] * 5
    assert found.boxes.shape == (0, 4)
    outside = Truths(torch.tensor([1]), torch.tensor([0]), torch.tensor([[500.0, 500, 600, 600]]))
    assert [len(part) for part in kind()(proposals, grid, outside)] == [0] * 5


@pytest.mark.parametrize("kind", KINDS)
def test_images_with_fewer_anchors_than_candidates(kind):
    proposals, grid, _ = random_batch(side=32)
    assert grid.level_sizes == (16, 4, 1)
    truths = Truths(torch.tensor([0]), torch.tensor([0]), torch.tensor([[0.5, 0.5, 31.5, 31.5]]))
    assert len(kind(candidates=50)(proposals, grid, truths).images) > 0


def test_a_box_gets_thirteen_anchors_at_most():
    proposals, grid, _ = random_batch()
    truths = Truths(torch.tensor([0]), torch.tensor([0]), torch.tensor([[0.0, 0, 160, 160]]))
    assert len(TaskAlignedAssigner()(proposals, grid, truths).images) == 13
    assert len(TaskAlignedAssigner(candidates=5)(proposals, grid, truths).images) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_is_kept(kind):
    proposals, grid, truths = random_batch()
    found = kind()(Proposals(*(part.requires_grad_() for part in proposals)), grid, truths)
    assert not found.scores.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_where_memory_is_short_the_cpu_does_it(kind, monkeypatch):
    batch, calls = random_batch(), []
    expected, choose = kind()(*batch), kind._choose

    def first_fails(self, *args):
        calls.append(sys.exc_info()[0])
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return choose(self, *args)

    monkeypatch.setattr(kind, "_choose", first_fails)
    with pytest.warns(UserWarning, match=r"cpu is low on memory: assigning boxes to anchors on the CPU"):
        found = kind()(*batch)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert calls == [None, None]  # not while the error is being handled: it would hold on to the memory


@pytest.mark.parametrize("kind", KINDS)
def test_other_errors_are_not_hidden(kind, monkeypatch):
    def broken(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(kind, "_choose", broken)
    with pytest.raises(RuntimeError, match=r"broken"):
        kind()(*random_batch())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_gives_the_same(kind):
    expected, found = kind()(*random_batch()), kind()(*random_batch(device="cuda"))
    assert found.scores.is_cuda
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other.cpu())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["candidates", "max_elements"])
@pytest.mark.parametrize("value", [0, 1.5, True])
def test_wrong_settings(kind, name, value):
    with pytest.raises(InputError, match=rf"{name} is {value}; expected an integer, 1 or more"):
        kind(**{name: value})
