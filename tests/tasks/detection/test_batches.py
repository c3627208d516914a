from functools import partial

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image
from torchvision.ops import box_convert

from image_files import make_image, make_photo
from zoo.data.letterbox import Letterbox, fit_image
from zoo.errors import DataError, InputError
from zoo.tasks.detection.augment import BoxAugment
from zoo.tasks.detection.batches import BoxSamples, BoxTargets, collate_boxes, draw_scale, make_box_loader, resize_batch
from zoo.tasks.detection.images import BoxedImages, Boxes

cxcywh_to_xyxy = partial(box_convert, in_fmt="cxcywh", out_fmt="xyxy")

pytestmark = pytest.mark.numbers

SMALL = Letterbox(canvas_size=(64, 96), content_size=(60, 92))
RANDOM = BoxAugment(flip=0.5, photometric=0.5, scale_jitter=0.3, mosaic=0.5, mixup=0.3)


class Images:
    """Images in memory with `index % 3` boxes each and one of a crowd; some cannot be read."""

    def __init__(self, count, bad=None):
        self.count, self.bad = count, bad
        self.sizes = [(30, 40)] * count

    def __len__(self):
        return self.count

    def read(self, index, /):
        if index == self.bad:
            raise DataError(f"image 'cells/{index}.jpg': cut off. Repair it.")
        boxes = [*[[2, 3, 22, 13], [10, 5, 30, 25]][: index % 3], [0, 0, 40, 30]]
        crowd = np.array([False] * (index % 3) + [True])
        labels = np.full(len(boxes), index)
        return make_image((40, 30), seed=index), Boxes(np.array(boxes, np.float32), labels, crowd)


def indices(loader):
    return [targets.indices.tolist() for _, targets in loader]


def test_a_sample_is_what_predict_sees():
    canvas, rows, index = BoxSamples(Images(5), SMALL)[2]
    expected, place = fit_image(make_image((40, 30), seed=2), SMALL)
    assert index == 2
    assert torch.equal(canvas, expected)
    assert (rows.shape, rows.dtype) == ((2, 5), torch.float32)
    assert rows[:, 0].tolist() == [2, 2]  # without the crowd
    back = place.to_image(cxcywh_to_xyxy(rows[:, 1:]))
    assert torch.allclose(back, torch.tensor([[2.0, 3, 22, 13], [10, 5, 30, 25]]), atol=1e-4)


def test_samples_repeat_for_an_epoch_and_differ_between_epochs():
    samples = BoxSamples(Images(5), SMALL, RANDOM, seed=1)
    assert len(samples) == 5
    for index in range(5):
        (first, rows, _), (again, same, _) = samples[index, 0], samples[index, 0]
        assert torch.equal(first, again)
        assert torch.equal(rows, same)
        assert torch.equal(samples[index][0], first)  # an index alone is epoch 0
        assert not torch.equal(samples[index, 1][0], first)
        assert not torch.equal(BoxSamples(Images(5), SMALL, RANDOM, seed=2)[index, 0][0], first)


def test_samples_leave_the_generator_alone():
    before = torch.get_rng_state()
    BoxSamples(Images(5), SMALL, RANDOM)[2, 5]
    assert torch.equal(torch.get_rng_state(), before)
    before = torch.get_rng_state()
    indices(make_box_loader(Images(5), SMALL, RANDOM, batch_size=2, shuffle=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_from_some_epoch_on_images_are_not_mixed():
    mixing = BoxAugment(mosaic=1, mixup=1)
    samples = BoxSamples(Images(5), SMALL, mixing, plain_from=3)
    plain = BoxSamples(Images(5), SMALL)[2][0]
    assert not torch.equal(samples[2, 2][0], plain)
    assert torch.equal(samples[2, 3][0], plain)
    assert torch.equal(samples[2, 9][0], plain)
    assert not torch.equal(BoxSamples(Images(5), SMALL, mixing)[2, 9][0], plain)


def test_batches_know_the_images_of_their_rows():
    images, targets = next(iter(make_box_loader(Images(5), SMALL, batch_size=4)))
    assert (images.shape, images.dtype) == ((4, 3, 64, 96), torch.uint8)
    assert targets.rows.dtype == torch.float32
    assert targets.rows[:, :2].tolist() == [[1, 1], [2, 2], [2, 2]]
    assert targets.indices.tolist() == [0, 1, 2, 3]
    samples = BoxSamples(Images(6), SMALL)
    images, targets = collate_boxes([samples[4], samples[3], samples[5]])
    assert targets.indices.tolist() == [4, 3, 5]
    assert targets.indices.dtype == torch.int64
    assert targets.rows[:, :2].tolist() == [[0, 4], [2, 5], [2, 5]]
    assert torch.equal(targets.rows[1:, 1:], samples[5][1])
    assert torch.equal(images[1], samples[3][0])
    _, targets = collate_boxes([BoxSamples(Images(6), SMALL)[index] for index in (0, 3)])
    assert (targets.rows.shape, targets.rows.dtype) == ((0, 6), torch.float32)
    assert targets.indices.tolist() == [0, 3]


@pytest.fixture
def prepare():
    yield Accelerator(cpu=True).prepare
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("prepared_loader", [False, True], ids=["plain", "accelerate"])
def test_the_number_of_workers_does_not_matter(prepared_loader, prepare):
    epochs = {}
    for workers in (0, 2):
        loader = make_box_loader(
            Images(10), SMALL, RANDOM, batch_size=4, shuffle=True, seed=1, num_workers=workers, plain_from=4
        )
        sampler, prepared = loader.epoch_sampler, prepare(loader) if prepared_loader else loader
        epochs[workers] = []
        for epoch in (3, 4, 3):  # as after a resume: not from 0
            sampler.set_epoch(epoch)
            batches = list(prepared)
            assert all(type(targets) is BoxTargets for _, targets in batches)
            assert [len(images) for images, _ in batches] == [4, 4, 2]
            epochs[workers].append([(images.clone(), *map(torch.clone, targets)) for images, targets in batches])
    for one, other in zip(epochs[0], epochs[2], strict=True):
        for batch, same in zip(one, other, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(batch, same, strict=True))
    first, second, third = ([batch[2].tolist() for batch in epoch] for epoch in epochs[0])
    assert first == third != second


def test_an_epoch_may_start_at_any_batch(prepare):
    loader = make_box_loader(Images(10), SMALL, RANDOM, batch_size=4, shuffle=True)
    sampler, prepared = loader.epoch_sampler, prepare(loader)
    sampler.set_epoch(2)
    whole = list(prepared)
    sampler.set_epoch(2, start=4)
    rest = list(prepared)
    assert len(rest) == 2
    for (images, targets), (same, equal) in zip(whole[1:], rest, strict=True):
        assert torch.equal(images, same)
        assert torch.equal(targets.rows, equal.rows)


def test_wrong_arguments():
    with pytest.raises(InputError, match=r"there are no images to load"):
        make_box_loader(Images(0), SMALL, batch_size=2)
    with pytest.raises(InputError, match=r"batch_size is 0, num_workers 0; expected 1 or more"):
        make_box_loader(Images(2), SMALL, batch_size=0)
    samples = BoxSamples(Images(2, bad=1), SMALL, BoxAugment(mosaic=1))
    with pytest.raises(DataError, match=r"^image 'cells/1\.jpg': cut off\. Repair it\.$"):
        [samples[0, epoch] for epoch in range(20)]


def test_scales_cover_their_range_and_repeat():
    letterbox = Letterbox(canvas_size=(320, 640), content_size=(320, 640))
    sizes = [draw_scale(letterbox, 0.25, 1, epoch, batch) for epoch in range(10) for batch in range(30)]
    assert sizes[35] == draw_scale(letterbox, 0.25, 1, 1, 5)
    assert sizes != [draw_scale(letterbox, 0.25, 2, epoch, batch) for epoch in range(10) for batch in range(30)]
    assert {height for height, _ in sizes} == {256, 288, 320, 352, 384}  # 320 · 0.75 = 240, rounded to 256; 400 to 384
    assert {width for _, width in sizes} == set(range(480, 801, 32))
    assert all(abs(2 * height - width) <= 32 for height, width in sizes)
    letterbox = Letterbox(canvas_size=(100, 600), content_size=(100, 600))
    assert draw_scale(letterbox, 0, 1, 2, 3) == (100, 600)
    assert draw_scale(Letterbox(canvas_size=(32, 32), content_size=(32, 32)), 0.9, 1, 2, 3) in [(32, 32), (64, 64)]


@pytest.mark.parametrize("strength", [-0.1, 1, float("nan"), "much", True])
def test_wrong_strength(strength):
    with pytest.raises(InputError, match=r"multi_scale is .*; expected a number from 0 to below 1\."):
        draw_scale(SMALL, strength, 0, 0, 0)


def test_batches_are_resized_with_their_boxes():
    images, targets = next(iter(make_box_loader(Images(5), SMALL, batch_size=4)))
    resized, moved = resize_batch(images, targets, (128, 160))
    assert (resized.shape, resized.dtype) == ((4, 3, 128, 160), torch.uint8)
    assert torch.equal(moved.rows[:, :2], targets.rows[:, :2])
    factors = torch.tensor([160 / 96, 2, 160 / 96, 2])
    assert torch.allclose(moved.rows[:, 2:], targets.rows[:, 2:] * factors)
    assert moved.indices is targets.indices
    images = torch.zeros(1, 3, 64, 64)
    images[:, :, 16:32, 8:40] = 1
    targets = BoxTargets(torch.tensor([[0, 0, 24.0, 24, 32, 16]]), torch.tensor([7]))
    for side in (32, 96, 160):
        resized, moved = resize_batch(images, targets, side)
        assert resized.dtype == torch.float32
        y, x = (resized[0, 0] > 0.5).nonzero().unbind(1)
        found = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])
        assert torch.equal(found, cxcywh_to_xyxy(moved.rows[0, 2:]).long())


def test_bytes_and_floats_are_resized_alike():
    images, targets = next(iter(make_box_loader(Images(5), SMALL, batch_size=4)))
    as_bytes, _ = resize_batch(images, targets, 32)
    as_floats, _ = resize_batch(images.float(), targets, 32)
    assert (as_bytes - as_floats).abs().max() <= 0.5
    images, targets = next(iter(make_box_loader(Images(5), SMALL, batch_size=4)))
    same, rows = resize_batch(images, targets, (64, 96))
    assert same is images
    assert rows is targets


@pytest.mark.parametrize("size", [0, 33, (64, 100), (32, -32)])
def test_wrong_sizes(size):
    with pytest.raises(InputError, match=r"the batch has images of .* x .*; expected multiples of 32 pixels"):
        resize_batch(torch.zeros(1, 3, 64, 64), BoxTargets(torch.zeros(0, 6), torch.tensor([0])), size)


def test_the_targets_of_some_images_are_numbered_anew():
    rows = torch.tensor([[0, 1, 5, 5, 2, 2], [1, 2, 5, 5, 2, 2], [3, 3, 6, 6, 4, 4.0]])
    targets = BoxTargets(rows, torch.tensor([8, 9, 10, 11]))
    middle, last = targets.narrow(1, 3), targets.narrow(3, 4)
    assert middle.rows.tolist() == [[0, 2, 5, 5, 2, 2]]
    assert middle.indices.tolist() == [9, 10]
    assert last.rows.tolist() == [[0, 3, 6, 6, 4, 4]]
    assert targets.narrow(2, 3).rows.shape == (0, 6)  # an image without boxes
    assert torch.equal(targets.narrow(0, 4).rows, rows)
    assert torch.equal(targets.rows, rows)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("augment", [None, BoxAugment(flip=1.0), BoxAugment(scale_jitter=0.5)])
def test_boxes_lie_where_they_lay_if_less_of_a_photo_is_decoded(augment, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    photo, size = make_photo((1001, 805), exif=exif), (805, 1001) if orientation == 1 else (1001, 805)
    boxes = Boxes(np.float32([[100, 200, 500, 700]]), np.int64([3]), np.array([False]))
    whole = BoxedImages(lambda _: photo, ("a",), (size,), (boxes,), (0,))
    fast, factor = SMALL.replace(decode="fast"), (augment or BoxAugment()).enlargement
    less = whole.needing(fast.need_enlarged(factor))
    assert less.read(0)[0].size != whole.read(0)[0].size == size[::-1]
    (first, rows, _), (second, others, _) = (BoxSamples(images, fast, augment)[0] for images in (whole, less))
    assert (rows - others).abs().max() < (0.01 if augment is None else 1.5)  # windows begin at other pixels
    assert BoxAugment(scale_jitter=0.5, iou_crop=1.0).enlargement == pytest.approx(5)
    if augment is None or augment.flip:
        assert (first.float() - second.float()).abs().mean() < 3
