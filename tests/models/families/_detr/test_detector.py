import copy
import functools
import io
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import box_convert

import zoo
from small_detr import NAMES, SMALL, build_small
from zoo.data.letterbox import Letterbox, normalize_canvas
from zoo.errors import InputError
from zoo.models.families._detr.detector import to_labels
from zoo.optim.freeze import apply_plan, frozen_tensors
from zoo.rates.layers import order_layers
from zoo.tasks.detection.batches import make_box_loader
from zoo.tasks.detection.data import open_box_data
from zoo.tasks.detection.postprocess import VALIDATION, Postprocess, select_detections

cxcywh_to_xyxy = partial(box_convert, in_fmt="cxcywh", out_fmt="xyxy")

pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")

BCCD = Path(__file__).parents[5] / "shared" / "data" / "bccd"
SIDE = 128
STRETCHED = Letterbox(canvas_size=(SIDE, SIDE), content_size=(SIDE, SIDE), keep_ratio=False)
ROWS = torch.tensor([[0, 1, 60.0, 50.0, 40.0, 30.0], [0, 2, 100.0, 80.0, 30.0, 60.0], [1, 0, 20.0, 20.0, 30.0, 30.0]])
HYBRID = [name for name in NAMES if not name.startswith("rfdetr")]


@functools.cache
def build(name):
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_small(name, num_classes=3).eval()
    model.preprocess, model.classes = STRETCHED, ("ant", "bee", "cow")
    return model


@pytest.fixture(params=NAMES)
def model(request):
    return copy.deepcopy(build(request.param))


@pytest.fixture(params=HYBRID)
def hybrid(request):
    return copy.deepcopy(build(request.param))


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def backbone_of(model):
    return "model.backbone.backbone." if model.architecture.model_type == "rf_detr" else "model.backbone."


def relative(rows):
    return [
        {"class_labels": rows[rows[:, 0] == index, 1].long(), "boxes": rows[rows[:, 0] == index, 2:] / SIDE}
        for index in range(2)
    ]


def test_boxes_are_in_pixels_and_scores_are_shares(model, images):
    with torch.inference_mode():
        outputs = model(images)
        boxes, scores = model.decode(outputs)
    count = model.numbers.num_queries
    assert boxes.shape == (2, count, 4)
    assert scores.shape == (2, count, 3)
    assert torch.equal(scores, outputs.logits.sigmoid())
    assert torch.allclose(boxes, cxcywh_to_xyxy(outputs.boxes) * SIDE, atol=1e-4)
    assert boxes.max() > 1.5  # pixels, not shares


def test_a_canvas_that_is_no_square_has_each_side_in_its_own_pixels(model):
    with torch.inference_mode():
        outputs = model(torch.rand(1, 3, 96, 160))
        boxes, _ = model.decode(outputs)
    assert outputs.size == (96, 160)
    expected = cxcywh_to_xyxy(outputs.boxes) * torch.tensor([160.0, 96, 160, 96])
    assert torch.allclose(boxes, expected, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_those_of_transformers(name, images):
    model = build(name)
    network = model.architecture.make_network(3).eval()
    ours, theirs = model.state_dict(), network.state_dict()
    assert set(ours) <= set(theirs)
    state = {key: ours.get(key, ours.get(f"model.decoder.{key}")) for key in theirs}
    network.load_state_dict(state)
    with torch.inference_mode():
        outputs, expected = model(images), network(images, labels=relative(ROWS))
        loss = model.loss(outputs, ROWS)
    assert torch.equal(outputs.logits, expected.logits)
    assert torch.equal(outputs.boxes, expected.pred_boxes)
    if not name.startswith("rfdetr"):  # there transformers counts groups of queries that only training has
        assert loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_of_training_is_that_of_transformers(name, images):
    model = copy.deepcopy(build(name)).train()
    network = model.architecture.make_network(3).train()
    ours = model.state_dict()
    network.load_state_dict({key: ours.get(key, ours.get(f"model.decoder.{key}")) for key in network.state_dict()})
    torch.manual_seed(0)
    expected = network(images, labels=relative(ROWS)).loss
    torch.manual_seed(0)
    assert model.loss(model(images, ROWS), ROWS).item() == pytest.approx(expected.item(), rel=1e-5)


def test_in_training_the_queries_that_count_are_the_same(model, images):
    model.train()
    with torch.no_grad():
        outputs = model(images, ROWS)
        count = model.numbers.num_queries
        assert outputs.logits.shape[1] > count
        model.eval()
        for _ in range(2):
            boxes, scores = model.decode(outputs)
            assert boxes.shape == (2, count, 4)
            chosen = outputs.logits[:, :count] if not model.takes_targets else outputs.logits[:, -count:]
            assert torch.equal(scores, chosen.sigmoid())
            model.train()


def test_no_box_suppresses_another(model, images):
    assert model.scoring == VALIDATION.replace(iou=1.0, nms_top_k=300)
    boxes = torch.tensor([[[10.0, 10, 50, 50]] * 3])
    scores = torch.tensor([[[0.9, 0.1], [0.8, 0.1], [0.7, 0.1]]])
    (found,) = select_detections(boxes, scores, Postprocess(conf=0.5, iou=1.0))
    assert found.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])


def test_forward_is_head_of_backbone(hybrid, images):
    with torch.inference_mode():
        features = hybrid.trunk(images)
        assert torch.equal(hybrid(images).logits, hybrid.head(features).logits)
    assert [tuple(level.shape[1:]) for level in features] == [(32, 16, 16), (64, 8, 8), (128, 4, 4)]


def test_every_tensor_has_one_name(model):
    places = [tensor.data_ptr() for tensor in model.state_dict().values() if tensor.numel()]
    assert len(set(places)) == len(places)
    names = [name for name, _ in model.named_parameters()]
    assert names == [name for name in model.state_dict() if name in set(names)]
    three, five = model.state_dict(), type(model)(model.architecture, num_classes=5).state_dict()
    differing = {name for name in three if three[name].shape != five[name].shape}
    assert differing == {name for name in three if name.startswith(model.class_prefixes)}


def test_what_never_learns_is_no_parameter():
    model = build("dfine_n")
    assert all(parameter.requires_grad for parameter in model.parameters())
    buffers = dict(model.named_buffers())
    assert buffers["model.decoder.reg_scale"].tolist() == [4.0]
    assert buffers["model.decoder.up"].tolist() == [0.5]
    assert all(sum(p.numel() for p in build(name).parameters()) < 1e6 for name in SMALL)


@pytest.mark.parametrize("shape", [(1, 3, 100, 128), (1, 3, 128, 70)])
def test_a_size_that_does_not_fit_is_told(model, shape):
    with pytest.raises(InputError, match=r"needs multiples of 32\. Use (128x128|128x96)\.$"):
        model(torch.rand(shape))


def test_sizes_that_do_not_fit_are_told(hybrid, model):
    with pytest.raises(
        InputError, match=r"64x32 pixels are too small for the 50 queries of .*Use at least \d+x\d+ pixels"
    ):
        hybrid(torch.rand(1, 3, 64, 32))
    with pytest.raises(
        InputError, match=r"32x96 pixels are too small for the 40 queries of .*Use at least \d+x\d+ pixels"
    ):
        build("rfdetr_n")(torch.rand(1, 3, 32, 96))
    with pytest.raises(InputError, match=r"image_size is 100; expected a multiple of 32 pixels"):
        model.predict(Image.new("RGB", (20, 20)), image_size=100)


@pytest.mark.parametrize("shape", [(1, 4, 128, 128), (3, 128, 128)])
def test_images_of_another_form_are_told(model, shape):
    with pytest.raises(InputError, match=r"expected \(B, 3, H, W\)"):
        model(torch.rand(shape))


def test_labels_are_shares_of_the_image_and_rows_have_six_columns(model, images):
    first, second = to_labels(ROWS, 2, 3, (64, 128))
    assert first["class_labels"].tolist() == [1, 2]
    assert first["class_labels"].dtype == torch.int64
    assert first["boxes"][0].tolist() == pytest.approx([60 / 128, 50 / 64, 40 / 128, 30 / 64])
    assert second["boxes"].shape == (1, 4)
    with torch.inference_mode(), pytest.raises(InputError, match=r"targets are \(3, 5\); expected \(N, 6\)"):
        model.loss(model(images), ROWS[:, :5])


def test_images_without_boxes_and_boxes_without_area():
    rows = torch.tensor([[1, 0, 10.0, 10, 0, 5], [1, 2, 10, 10, 4, 4]])
    labels = to_labels(rows, 3, 3, (64, 64))
    assert [len(label["boxes"]) for label in labels] == [0, 1, 0]
    assert labels[0]["boxes"].shape == (0, 4)
    assert labels[1]["class_labels"].tolist() == [2]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([2, 0, 5, 5, 4, 4], r"image of row 1 is 2; expected an integer from 0 to 1"),
        ([0, 3, 5, 5, 4, 4], r"class of row 1 is 3; expected an integer from 0 to 2"),
        ([0, 0.5, 5, 5, 4, 4], r"class of row 1 is 0\.5"),
        ([0, 0, float("nan"), 5, 4, 4], r"centre x of row 1 is nan; expected a number\."),
        ([0, 0, 5, 5, -4, 4], r"width of row 1 is -4; expected a number, 0 or more"),
    ],
)
def test_rows_that_do_not_fit_are_named(model, images, row, message):
    rows = torch.tensor([[0, 0, 5, 5, 4, 4], row])
    with torch.inference_mode():
        outputs = model(images)
    with pytest.raises(InputError, match=message):
        model.loss(outputs, rows)


def test_settings_of_the_loss(model, images):
    with torch.inference_mode():
        outputs = model(images)
        usual, without = model.loss(outputs, ROWS), model.loss(outputs, ROWS, box_weight=0)
        nothing = model.loss(outputs, ROWS, **dict.fromkeys(model.loss_settings, 0))
    assert 0 < without < usual
    assert nothing == 0
    with torch.inference_mode():
        assert model.loss(outputs, ROWS) == usual  # a setting is of one call


def test_settings_that_are_unknown_or_out_of_range_are_told(model, images):
    with torch.inference_mode():
        outputs = model(images)
    with pytest.raises(
        InputError, match=r"has no setting 'boxweight'; expected class_weight.* Did you mean 'box_weight'"
    ):
        model.loss(outputs, ROWS, boxweight=1)
    for value in (-1, "2", True, float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"^box_weight is .*; expected a number from 0 to 1e\+06"):
            model.loss(outputs, ROWS, box_weight=value)


def test_a_network_that_has_diverged_has_no_number_as_loss(model, images):
    with torch.no_grad():
        next(model.model.decoder.parameters()).fill_(torch.nan)
    model.train()
    assert model.loss(model(images, ROWS), ROWS).isnan()


def test_noisy_true_boxes_come_in_with_the_targets_in_training_only(hybrid, images):
    hybrid.train()
    with torch.no_grad():
        plain, noisy = hybrid(images), hybrid(images, ROWS)
        assert plain.logits.shape[1] == 50
        assert noisy.logits.shape[1] > 50
        assert hybrid.decode(noisy).scores.shape[1] == 50
        hybrid.eval()
        assert hybrid(images, ROWS).logits.shape[1] == 50


@pytest.mark.parametrize("rows", [ROWS, ROWS[2:], ROWS[:0]], ids=["boxes", "an image without", "no box"])
@pytest.mark.parametrize("given", [True, False], ids=["with targets", "without"])
def test_every_parameter_gets_a_gradient_in_every_batch(model, images, rows, given):
    model.train()
    loss = model.loss(model(images, rows if given else None), rows)
    loss.backward()
    assert loss.isfinite()
    assert loss.dtype == torch.float32
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == set(getattr(model, "dormant_parameters", frozenset)())


@pytest.mark.parametrize("name", NAMES)
def test_half_the_digits_are_enough_for_the_network_and_not_for_the_loss(name, images):
    model = copy.deepcopy(build(name)).train()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(images, ROWS)
    assert model.loss(outputs, ROWS).dtype == torch.float32


def test_the_finetune_mapping_has_a_group_for_each_part(model):
    rates = model.get_finetune_lr_dict(0.1)
    backbone = backbone_of(model)
    assert (rates.pop(backbone), rates.pop("default")) == (0, 0)
    assert set(rates.values()) == {0.1}
    plan = zoo.plan(model, 0.1)
    learning = {name for group in plan.trained for name in group.names}
    assert learning == {name for name, _ in model.named_parameters() if not name.startswith(backbone)}
    assert all(name.startswith(model.head_prefixes) for name in learning)
    assert {group.key for group in plan.trained} == rates.keys()
    plan = zoo.plan(model, 1e-4, mode="low_lr")
    rates = {name: group.full_lr for group in plan.trained for name in group.names}
    dormant = getattr(model, "dormant_parameters", frozenset)()
    assert rates.keys() == {name for name, _ in model.named_parameters()} - dormant
    for name, rate in rates.items():
        assert rate == pytest.approx(1e-5 if name.startswith(backbone_of(model)) else 1e-4)


def test_layers_go_from_the_image_to_the_boxes(model):
    layers = [set(layer.parameters) for layer in order_layers(model)]
    assert set.union(*layers) == {name for name, _ in model.named_parameters()}
    backbone = backbone_of(model)
    depths = [depth for depth, names in enumerate(layers) if any(name.startswith(backbone) for name in names)]
    assert depths == list(range(len(depths)))
    assert len(depths) >= 4
    assert all(name.startswith(backbone) for depth in depths for name in layers[depth])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.skipif(not BCCD.is_dir(), reason="the shared images of blood cells are not here")
def test_on_a_few_images_the_loss_falls_and_the_frozen_backbone_stays(name):
    model = copy.deepcopy(build(name))
    lr, steps = (5e-4, 56) if name == "rfdetr_n" else (2e-3, 16)
    plan = zoo.plan(model, lr)
    apply_plan(model, plan)
    before = {key: tensor.clone() for key, tensor in frozen_tensors(model, plan).items()}
    assert before.keys() >= {key for key in model.state_dict() if key.startswith(backbone_of(model))} - _counters(model)
    canvases, targets = next(iter(make_box_loader(_open_bccd().train, STRETCHED, batch_size=4)))
    images, losses = normalize_canvas(canvases, STRETCHED), []
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    torch.manual_seed(0)
    for _ in range(steps):
        model.train()
        loss = model.loss(model(images, targets), targets.rows)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4])
    after = frozen_tensors(model, plan)
    assert all(torch.equal(before[key], after[key]) for key in before)


@functools.cache
def _open_bccd():
    return open_box_data(BCCD, check=False)


def _counters(model):
    return {name for name in model.state_dict() if name.endswith("num_batches_tracked")}


def test_the_norms_of_the_backbone_are_frozen_in_training_too(hybrid, images):
    fixed = {n: b.clone() for n, b in hybrid.named_buffers() if n.startswith("model.backbone.")}
    moving = {n: b.clone() for n, b in hybrid.named_buffers() if n.endswith("running_mean") and n not in fixed}
    assert {name.rpartition(".")[2] for name in fixed} >= {"weight", "bias", "running_mean", "running_var"}
    hybrid.train()
    hybrid(images, ROWS)
    buffers = dict(hybrid.named_buffers())
    assert all(torch.equal(buffers[name], value) for name, value in fixed.items())
    assert moving
    assert not any(torch.equal(buffers[name], value) for name, value in moving.items())


def test_predict_finds_boxes_on_the_image(model):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 200, 3), np.uint8))
    (result,) = model.predict(image, conf=0.0, max_predictions=20)
    assert 0 < len(result.boxes) <= 20
    assert (result.boxes[:, 2] <= 200).all()
    assert (result.boxes[:, 3] <= 90).all()
    assert result.classes == ("ant", "bee", "cow")
    assert list(result.scores) == sorted(result.scores, reverse=True)


@pytest.mark.parametrize("name", HYBRID)  # transformers hangs local functions onto RF-DETR's backbone
def test_a_pickle_gives_the_same_outputs(name, images):
    model = build_small(name, num_classes=3).eval()
    others = pickle.loads(pickle.dumps(model)), _through_torch(model)
    with torch.inference_mode():
        expected = model(images).logits
        assert all(torch.equal(other(images).logits, expected) for other in others)


def _through_torch(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)
