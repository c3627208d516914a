import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from zoo.models.families.yolo_nas.heads import Heads, decode_boxes, make_places

pytestmark = pytest.mark.numbers

CPU = torch.device("cpu")


def maps(height=4, width=8, batch=2):
    """Maps of the neck for images of 8 * height x 8 * width px."""
    generator = torch.Generator().manual_seed(0)
    sides = [(height // part, width // part) for part in (1, 2, 4)]
    return tuple(torch.randn(batch, c, *s, generator=generator) for c, s in zip((96, 192, 384), sides, strict=True))


@pytest.fixture(scope="module")
def heads():
    torch.manual_seed(0)
    return Heads((8, 16, 24), 3).eval()


def test_places_go_row_by_row_and_map_by_map():
    places = make_places([(2, 3), (1, 2), (1, 1)], CPU)
    assert places.level_sizes == (6, 2, 1)
    assert places.points.tolist() == [
        *([4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]),
        *([8, 8], [24, 8]),
        [16, 16],
    ]
    assert places.strides.tolist() == [[8]] * 6 + [[16]] * 2 + [[32]]
    assert places.anchors[1].tolist() == [12 - 20, 4 - 20, 12 + 20, 4 + 20]
    assert places.anchors[-1].tolist() == [16 - 80, 16 - 80, 16 + 80, 16 + 80]


def test_a_box_is_decoded_from_the_expected_distances():
    logits = torch.full((1, 2, 68), -100.0)
    for side, (one, other) in enumerate([(0, 0), (2, 3), (16, 16), (5, 5)]):
        logits[..., side * 17 + one] = logits[..., side * 17 + other] = 0
    points, strides = torch.tensor([[100.0, 60.0], [4.0, 4.0]]), torch.tensor([[32.0], [8.0]])
    boxes = decode_boxes(logits, points, strides)
    first = [100, 60 - 2.5 * 32, 100 + 16 * 32, 60 + 5 * 32]
    assert boxes.tolist() == [[pytest.approx(first, abs=1e-4), pytest.approx([4, -16, 132, 44], abs=1e-4)]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_boxes_are_as_exact_as_the_logits(dtype):
    logits = torch.randn(1, 21, 68, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    places = make_places([(4, 4), (2, 2), (1, 1)], CPU)
    boxes = decode_boxes(logits, places.points, places.strides)
    exact = decode_boxes(logits.double(), places.points.double(), places.strides.double())
    assert boxes.dtype == torch.promote_types(dtype, torch.float32)
    assert (boxes - exact).abs().max() < 1e-4


def test_outputs_unpack_in_the_order_of_super_gradients(heads):
    (boxes, scores), (class_logits, side_logits, anchors, points, level_sizes, strides) = heads(maps())
    assert boxes.shape == (2, 42, 4)
    assert scores.shape == class_logits.shape == (2, 42, 3)
    assert side_logits.shape == (2, 42, 68)
    assert (anchors.shape, points.shape, strides.shape) == ((42, 4), (42, 2), (42, 1))
    assert level_sizes.tolist() == [32, 8, 2]  # in eval mode, tensors only
    assert torch.equal(scores, class_logits.sigmoid())
    assert torch.equal(boxes, decode_boxes(side_logits, points, strides))


def test_rows_are_the_cells_of_the_maps_in_either_mode_and_layout(heads):
    features = maps()
    raw = heads(features).raw
    sides, classes = heads.head2(features[1])
    row = 32 + 1 * 4 + 3  # the second map, y 1, x 3
    assert torch.equal(raw.side_logits[:, row], sides[:, :, 1, 3])
    assert torch.equal(raw.class_logits[:, row], classes[:, :, 1, 3])
    assert raw.anchor_points[row].tolist() == [3.5 * 16, 1.5 * 16]
    modes = [heads.train(mode)(maps()) for mode in (True, False)]
    assert [[part.shape for part in outputs.predictions] for outputs in modes] == [[(2, 42, 4), (2, 42, 3)]] * 2
    assert type(modes[0]) is type(modes[1])
    laid = tuple(feature.contiguous(memory_format=torch.channels_last) for feature in maps())
    assert torch.allclose(heads(laid).predictions.boxes, heads(maps()).predictions.boxes, atol=1e-3)


def test_a_new_predictor_says_one_in_a_hundred(heads):
    for head in heads.children():
        assert torch.allclose(head.cls_pred.bias, torch.tensor(-math.log(99)))
        assert head.reg_pred.bias.std() > 0


def test_places_are_kept_for_an_image_size_and_are_no_state(heads):
    first, second, other = heads(maps()).raw, heads(maps()).raw, heads(maps(8, 4)).raw
    assert first.anchors is second.anchors
    assert first.anchors.shape == other.anchors.shape
    assert not torch.equal(first.anchors, other.anchors)
    assert not any("anchor" in name or "proj" in name for name, _ in heads.named_buffers())
    with FakeTensorMode(allow_non_fake_inputs=True):
        heads(tuple(torch.empty(1, c, s, s) for c, s in ((96, 20), (192, 10), (384, 5))))
    features = tuple(torch.zeros(1, c, s, s) for c, s in ((96, 20), (192, 10), (384, 5)))
    assert type(heads(features).raw.anchors) is torch.Tensor


def test_places_seen_first_while_predicting_serve_training(heads):
    features = maps(4, 12)
    with torch.inference_mode():
        kept = heads(features).raw.anchor_points
    outputs = heads(features)
    assert outputs.raw.anchor_points is kept
    outputs.predictions.boxes.sum().backward()
    assert not kept.is_inference()


def test_it_compiles_as_one_graph(heads):
    compiled = torch.compile(heads, backend="eager", fullgraph=True)
    assert torch.equal(compiled(maps()).predictions.boxes, heads(maps()).predictions.boxes)


def test_mixed_precision_does_not_round_the_boxes(heads):
    features = maps()
    with torch.autocast("cpu", torch.bfloat16):
        (boxes, scores), raw = heads(features)
    assert raw.side_logits.dtype == torch.bfloat16
    assert boxes.dtype == scores.dtype == torch.float32
    exact = decode_boxes(raw.side_logits.double(), raw.anchor_points.double(), raw.strides.double())
    assert (boxes - exact).abs().max() < 1e-4
