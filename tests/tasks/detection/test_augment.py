from functools import partial

import numpy as np
import pytest
import torch
from torchvision.ops import box_convert

from zoo.data.letterbox import Letterbox, fit_image
from zoo.errors import InputError
from zoo.tasks.detection.augment import BoxAugment, Boxed, augment_boxed, fit_boxed

cxcywh_to_xyxy = partial(box_convert, in_fmt="cxcywh", out_fmt="xyxy")

SQUARE = Letterbox(canvas_size=(128, 128), content_size=(124, 124))
WIDE = Letterbox(canvas_size=(96, 160), content_size=(96, 150), keep_ratio=False, position="top-left", fill=0)
GRAY = 128
COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (250, 0, 250), (0, 250, 250)]
ALL = BoxAugment(flip=0.5, photometric=0.5, zoom_out=0.5, iou_crop=0.5, scale_jitter=0.5, mosaic=0.5, mixup=0.5)


def with_rectangles(height=90, width=120, first=0):
    """A gray image with a rectangle in each of three colours, which are the classes."""
    pixels = np.full((height, width, 3), GRAY, np.uint8)
    boxes = np.array([[0.05, 0.1, 0.35, 0.4], [0.5, 0.05, 0.9, 0.3], [0.3, 0.6, 0.75, 0.95]])
    xyxy = (boxes * [width, height, width, height]).round()
    for number, (left, top, right, bottom) in enumerate(xyxy.astype(int)):
        pixels[top:bottom, left:right] = COLOURS[first + number]
    pixels.flags.writeable = False  # as the pixels of an image of Pillow
    return Boxed(pixels, torch.tensor(xyxy, dtype=torch.float32), torch.arange(first, first + 3))


def change(augment, *, seed=0, boxed=None, letterbox=SQUARE, others=()):
    """The canvas, and class number and xyxy of each box."""
    torch.manual_seed(seed)
    images = [with_rectangles() if boxed is None else boxed, *others]
    canvas, rows = augment_boxed(images.__getitem__, 0, len(images), letterbox, augment)
    assert canvas.shape == (3, *letterbox.canvas_size)
    assert (canvas.dtype, rows.dtype) == (torch.uint8, torch.float32)
    return canvas, rows[:, 0].long().tolist(), cxcywh_to_xyxy(rows[:, 1:])


def has_colour(canvas, number):
    """Where the canvas is of a colour: `(H, W)`."""
    colour = torch.tensor(COLOURS[number])[:, None, None]
    return (canvas.long() - colour).abs().amax(dim=0) < 60  # more than half of a pixel that is mixed with gray


def find_colour(canvas, number):
    """The box around all pixels of a colour, or None."""
    y, x = has_colour(canvas, number).nonzero().unbind(1)
    return torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float() if len(x) else None


def test_without_changes_a_sample_is_what_predict_sees():
    boxed = with_rectangles()
    canvas, place = fit_image(boxed.pixels, SQUARE)
    for found, rows in (fit_boxed(boxed, SQUARE), augment_boxed([boxed].__getitem__, 0, 1, SQUARE, BoxAugment())):
        assert torch.equal(found, canvas)
        assert rows[:, 0].tolist() == [0, 1, 2]
        assert torch.allclose(place.to_image(cxcywh_to_xyxy(rows[:, 1:])), boxed.xyxy, atol=1e-4)
    canvas, labels, boxes = change(BoxAugment(photometric=1e-9))
    expected, rows = fit_boxed(with_rectangles(), SQUARE)
    assert (canvas.long() - expected.long()).abs().max() <= 1
    assert labels == [0, 1, 2]
    assert torch.equal(boxes, cxcywh_to_xyxy(rows[:, 1:]))


@pytest.mark.parametrize("letterbox", [SQUARE, WIDE], ids=["square", "wide"])
@pytest.mark.parametrize("name", ["flip", "zoom_out", "iou_crop", "scale_jitter", "vertical_flip", "max_rotation"])
def test_boxes_move_with_their_things(name, letterbox):
    augment = BoxAugment(**{name: {"scale_jitter": 0.6, "max_rotation": 25}.get(name, 1)})
    compared = 0
    for seed in range(40):
        canvas, labels, boxes = change(augment, seed=seed, letterbox=letterbox)
        for number in range(3):
            seen = find_colour(canvas, number)
            mine = boxes[[label == number for label in labels]]
            if len(mine) == 0:  # hardly anything is left of it
                assert seen is None or (seen[2:] - seen[:2]).amin() < 12
            else:
                assert seen is not None
                assert (seen - mine[0]).abs().max() <= 2.5, (seed, number)
                compared += 1
    assert compared >= 80


def test_younger_changes_leave_what_identifies_older_ones_as_it_was():
    assert list(BoxAugment(flip=0.5).to_key()) == [
        *("flip", "photometric", "zoom_out", "iou_crop", "scale_jitter", "mosaic", "mixup")
    ]
    assert BoxAugment(grayscale=0.5).to_key()["grayscale"] == 0.5
    gray, labels, _ = change(BoxAugment(grayscale=1))
    assert torch.equal(gray, gray[:1].expand(3, -1, -1))
    assert labels == [0, 1, 2]


@pytest.mark.parametrize("letterbox", [SQUARE, WIDE], ids=["square", "wide"])
def test_boxes_of_a_mosaic_lie_on_their_things(letterbox):
    for seed in range(30):
        canvas, labels, boxes = change(BoxAugment(mosaic=1, flip=0.5, scale_jitter=0.3), seed=seed, letterbox=letterbox)
        covered = torch.zeros(3, *letterbox.canvas_size, dtype=torch.bool)
        for label, box in zip(labels, boxes.round().int().tolist(), strict=True):
            left, top, right, bottom = box
            inner = has_colour(canvas, label)[top + 1 : bottom - 1, left + 1 : right - 1]
            assert inner.all(), (seed, label, box)
            covered[label, max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1] = True
        for number in range(3):
            missed = has_colour(canvas, number) & ~covered[number]
            assert missed.sum() <= 4 * 0.1 * 50 * 30  # of each of four a tenth may be cut off without a box


def test_mirroring_leaves_the_padding_where_it_was():
    plain, _, before = change(BoxAugment())
    canvas, labels, after = change(BoxAugment(flip=1))
    assert labels == [0, 1, 2]
    assert torch.allclose(after[:, [0, 2]], 128 - before[:, [2, 0]], atol=1e-4)
    assert torch.equal(after[:, [1, 3]], before[:, [1, 3]])
    assert (canvas.long() - plain.flip(2).long()).abs().max() <= 3  # resized and mirrored, or the reverse
    letterbox = SQUARE.replace(position="top-left", content_size=(128, 128), fill=7)
    canvas, _, boxes = change(BoxAugment(flip=1), boxed=with_rectangles(120, 60), letterbox=letterbox)
    assert (canvas[:, :, 64:] == 7).all()
    assert boxes[:, 2].max() <= 64


def test_colours_change_but_are_not_swapped():
    red = Boxed(np.full((40, 60, 3), (180, 90, 40), np.uint8), torch.tensor([[5.0, 5, 20, 20]]), torch.tensor([0]))
    seen = set()
    for seed in range(30):
        canvas, labels, boxes = change(BoxAugment(photometric=1), seed=seed, boxed=red)
        first, second, third = canvas[:, 64, 64].tolist()
        assert first > second > third
        assert set(canvas[:, 0].unique().tolist()) == {114}  # the padding keeps its value
        assert (labels, boxes.shape) == ([0], (1, 4))
        seen.add((first, second, third))
    assert len(seen) > 15


def test_zooming_out_shows_the_whole_image_up_to_four_times_smaller():
    sides = []
    for seed in range(60):
        canvas, labels, _ = change(BoxAugment(zoom_out=1), seed=seed)
        assert labels == [0, 1, 2]
        content = (canvas != SQUARE.fill).any(dim=0)
        sides.append(int(content.any(dim=0).sum()))
    assert min(sides) >= 124 / 4 - 1
    assert max(sides) <= 125
    assert max(sides) > 2.5 * min(sides)


def test_scale_jitter_keeps_its_range():
    small = Boxed(np.full((100, 100, 3), GRAY, np.uint8), torch.tensor([[40.0, 40, 60, 60]]), torch.tensor([0]))
    factors = []
    for seed in range(200):
        _, _, boxes = change(BoxAugment(scale_jitter=0.5), seed=seed, boxed=small)
        factors += ((boxes[:, 2:] - boxes[:, :2]).amax(dim=1) / 24.8).tolist()
    assert min(factors) >= 0.98 / 1.5
    assert max(factors) <= 1.02 * 1.5
    larger = sum(factor > 1 for factor in factors) / len(factors)
    assert 0.4 < larger < 0.6
    assert max(factors) > 1.4
    assert min(factors) < 0.72


def test_windows_differ_and_may_be_the_whole_image():
    widths = [change(BoxAugment(iou_crop=1), seed=seed)[2] for seed in range(40)]
    whole = cxcywh_to_xyxy(fit_boxed(with_rectangles(), SQUARE)[1][:, 1:])
    same = [boxes.shape == whole.shape and torch.equal(boxes, whole) for boxes in widths]
    assert 1 <= sum(same) <= 20


def test_boxes_of_which_less_than_a_tenth_is_seen_are_dropped():
    pixels = np.full((200, 200, 3), 255, np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(200), np.arange(200)[:, None]  # colours tell what is seen
    corners = torch.cartesian_prod(torch.arange(0, 200, 40), torch.arange(0, 200, 40)).float()
    boxed = Boxed(pixels, torch.cat([corners, corners + 40], dim=1), torch.arange(25))
    outcomes = []
    for seed in range(40):
        canvas, labels, boxes = change(BoxAugment(scale_jitter=0.9), seed=seed, boxed=boxed)
        seen = canvas[:2, canvas[2] == 255].float()
        sides = torch.minimum(boxed.xyxy[:, 2:], seen.amax(dim=1) + 0.5) - torch.maximum(corners, seen.amin(dim=1))
        for number, share in enumerate((sides.clamp(min=0) / 40).prod(dim=1).tolist()):
            if abs(share - 0.1) > 0.04:
                assert (number in labels) == (share > 0.1), (seed, number, share)
                outcomes.append((number in labels, 0.03 < share < 0.2))
        assert boxes.min() >= 0
        assert boxes.max() <= 128
    assert outcomes.count((True, True)) > 10
    assert outcomes.count((False, True)) > 10


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ([0, 0, 100, 100], True),
        ([60, 60, 64, 64], True),
        ([60, 60, 61, 100], False),  # narrower than 2 pixels
        ([60, 60, 64, 61.9], False),
    ],
)
def test_boxes_that_are_too_small_to_learn_are_dropped(box, kept):
    boxed = Boxed(np.zeros((128, 128, 3), np.uint8), torch.tensor([box], dtype=torch.float32), torch.tensor([4]))
    letterbox = SQUARE.replace(content_size=(128, 128))
    assert change(BoxAugment(flip=1), boxed=boxed, letterbox=letterbox)[1] == ([4] if kept else [])


def test_a_mosaic_is_made_of_four_images():
    others = [with_rectangles(first=3)]
    counts, kinds = [], set()
    for seed in range(20):
        canvas, labels, boxes = change(BoxAugment(mosaic=1), seed=seed, others=others)
        counts.append(len(labels))
        kinds |= set(labels)
        assert set(labels) & {0, 1, 2}  # the image itself is always there
        for number in set(labels):
            assert find_colour(canvas, number) is not None
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        assert len({(x > 64, y > 64) for x, y in middles.tolist()}) >= 3
    assert max(counts) >= 9
    assert kinds == {0, 1, 2, 3, 4, 5}


def test_images_in_a_mosaic_are_shown_whole_or_as_large_as_usual():
    small = Boxed(np.full((100, 100, 3), GRAY, np.uint8), torch.tensor([[40.0, 40, 60, 60]]), torch.tensor([0]))
    sides = []
    for seed in range(60):
        _, _, boxes = change(BoxAugment(mosaic=1), seed=seed, boxed=small)
        sides += ((boxes[:, 2:] - boxes[:, :2]).amax(dim=1)).tolist()
    assert 22 < max(sides) <= 1.02 * 24.8
    assert 0.98 * 24.8 * 0.3 * 128 / 124 <= min(sides) < 14  # the smallest part of the canvas is 0.3 of its side


def test_mixing_shows_both_images_and_learns_both():
    dark = Boxed(np.zeros((100, 100, 3), np.uint8), torch.tensor([[10.0, 10, 50, 50]]), torch.tensor([0]))
    light = Boxed(np.full((100, 100, 3), 200, np.uint8), torch.tensor([[50.0, 50, 90, 90]]), torch.tensor([1]))
    values, seen = set(), set()
    for seed in range(40):
        canvas, labels, boxes = change(BoxAugment(mixup=1), seed=seed, boxed=dark, others=[light])
        assert len(labels) == 2
        assert (canvas[:, 0, 0] == 114).all()
        value = int(canvas[0, 64, 64])
        if labels == [0, 1]:
            assert 80 <= value <= 120
            values.add(value)
            assert (boxes[1] > boxes[0]).all()
        else:
            assert (labels, value) == ([0, 0], 0)
        seen.add(tuple(labels))
    assert seen == {(0, 1), (0, 0)}
    assert len(values) > 5


def test_blue_first():
    letterbox = SQUARE.replace(channels="bgr")
    for augment in (BoxAugment(), BoxAugment(flip=1, zoom_out=1), BoxAugment(mosaic=1, mixup=1)):
        rgb, _, boxes = change(augment, seed=3)
        bgr, _, same = change(augment, seed=3, letterbox=letterbox)
        assert torch.equal(bgr, rgb.flip(0))
        assert torch.equal(boxes, same)


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (7, 9), (8, 8), (500, 30)])
def test_images_of_any_shape(size):
    pixels = np.zeros((*size, 3), np.uint8)
    boxed = Boxed(pixels, torch.tensor([[0.0, 0, size[1], size[0]]]), torch.tensor([0]))
    for seed in range(15):
        for letterbox in (SQUARE, WIDE):
            canvas, labels, boxes = change(ALL, seed=seed, boxed=boxed, letterbox=letterbox, others=[with_rectangles()])
            assert canvas.shape == (3, *letterbox.canvas_size)
            assert len(labels) == len(boxes)


def test_images_without_boxes():
    boxed = Boxed(np.zeros((60, 80, 3), np.uint8), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert fit_boxed(boxed, SQUARE)[1].shape == (0, 5)
    for seed in range(15):
        _, labels, boxes = change(ALL, seed=seed, boxed=boxed)
        assert (labels, boxes.shape) == ([], (0, 4))


def test_the_generator_decides():
    first = change(ALL, seed=5, others=[with_rectangles(first=3)])
    again = change(ALL, seed=5, others=[with_rectangles(first=3)])
    other = change(ALL, seed=6, others=[with_rectangles(first=3)])
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[2], again[2])
    assert not torch.equal(first[0], other[0])
    plain = ALL.without_mixing()
    assert (plain.mosaic, plain.mixup, plain.flip, plain.scale_jitter) == (0, 0, 0.5, 0.5)
    assert not plain.is_none
    assert BoxAugment(mosaic=1, mixup=1).without_mixing().is_none
    assert BoxAugment().is_none


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"flip": 1.5}, r"flip is 1\.5; expected a number from 0 to 1\."),
        ({"mosaic": -0.1}, r"mosaic is -0\.1; expected a number from 0 to 1\."),
        ({"max_rotation": 181}, r"max_rotation is 181; expected a number from 0 to 180\."),
        ({"scale_jitter": 1}, r"scale_jitter is 1; expected a number from 0 to 0\.9\."),
        ({"mixup": float("nan")}, r"mixup is nan; expected"),
        ({"zoom_out": "often"}, r"zoom_out is 'often'; expected"),
        ({"iou_crop": True}, r"iou_crop is True; expected"),
    ],
)
def test_wrong_settings(settings, text):
    with pytest.raises(InputError, match=text):
        BoxAugment(**settings)
