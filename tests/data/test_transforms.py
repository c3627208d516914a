import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor
from torchvision.transforms import v2

from image_files import make_image
from zoo.data.transforms import Preprocess, eval_transform, to_input, train_transform
from zoo.errors import InputError

PLAIN = Preprocess(image_size=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def smooth(size: tuple[int, int], seed: int = 0) -> Image.Image:
    small = make_image((max(1, size[0] // 4), max(1, size[1] // 4)), seed)
    return small.resize(size, Image.Resampling.BICUBIC)


def levels(ours: Tensor, theirs: Tensor, std: Any) -> Tensor:
    """Differences in steps of an 8-bit pixel."""
    return (ours - theirs).abs() * torch.tensor(std).view(-1, 1, 1) * 255


@pytest.mark.parametrize("size", [(32, 32), (500, 375), (375, 501), (100, 333), (5, 3), (1, 1)])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("crop_mode", ["center", "squash"])
def test_evaluation_gives_the_pixels_of_timm(size: tuple[int, int], interpolation: Any, crop_mode: Any) -> None:
    image = smooth(size)
    for image_size, crop_pct in ((64, 0.875), (128, 0.95), (96, 1.0)):
        values = {"interpolation": interpolation, "crop_pct": crop_pct, "crop_mode": crop_mode, "std": (0.5, 0.4, 0.3)}
        ours = eval_transform(Preprocess(image_size=image_size, **values))
        theirs = create_transform(image_size, mean=Preprocess().mean, **values)
        difference = levels(ours(image), theirs(image), values["std"])
        assert difference.max() < 1.001  # one level, and a rounding of float32
        assert (difference > 0.5).float().mean() < 0.01
        if min(size) < image_size:
            assert difference.max() < 0.001  # small images: exactly


def test_evaluation_gives_the_pixels_of_timm_for_a_photo_at_the_usual_size() -> None:
    image = smooth((640, 427))
    difference = levels(
        eval_transform(Preprocess())(image), create_transform(224, interpolation="bicubic")(image), (0.225,)
    )
    assert difference.max() < 1.05
    assert (difference > 0.5).float().mean() < 0.001


def test_evaluation_equals_torchvision_without_an_interpolation_to_differ_in() -> None:
    image = make_image((40, 32))
    theirs = v2.Compose(
        [
            v2.CenterCrop(32),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 1)),
        ]
    )
    ours = eval_transform(Preprocess(image_size=32, crop_pct=1.0, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 1.0)))
    torch.testing.assert_close(ours(image), theirs(image), rtol=0, atol=2e-6)


def test_the_tensor_is_float32_and_its_own() -> None:
    image = make_image((32, 32))
    transform = eval_transform(PLAIN.replace(crop_pct=1.0))
    first, second = transform(image), transform(image)
    assert first.shape == (3, 32, 32)
    assert first.dtype == torch.float32
    first.zero_()
    assert second.sum() > 0
    torch.testing.assert_close(second * 255, torch.from_numpy(np.array(image)).permute(2, 0, 1).float())


@pytest.mark.parametrize("resizer", ["pillow", "torch"])
def test_a_very_long_image_needs_little_memory(monkeypatch: pytest.MonkeyPatch, resizer: Any) -> None:
    strip = Image.new("RGB", (100_000, 2), (255, 0, 0))  # resized as a whole, a gigapixel
    largest = 0
    resize = Image.Image.resize

    def watch(image: Image.Image, size: tuple[int, int], *args: Any, **options: Any) -> Image.Image:
        nonlocal largest
        largest = max(largest, size[0] * size[1])
        return resize(image, size, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", watch)
    assert eval_transform(PLAIN.replace(image_size=128), resizer=resizer)(strip)[0].min() == 1
    assert train_transform(PLAIN, resizer=resizer)(strip)[0].min() == 1
    assert largest < 10**6


@pytest.mark.parametrize("lying", [True, False])
def test_the_middle_of_a_long_image_is_shown(lying: bool) -> None:
    ramp = np.repeat(np.arange(2001, dtype=np.float32)[:, None, None] - 900, 33, axis=1).repeat(3, axis=2)
    image = Image.fromarray(ramp.clip(0, 255).astype(np.uint8))  # 100 in its middle, one more in each row
    shown = eval_transform(PLAIN, normalise=False)(image.transpose(Image.Transpose.TRANSPOSE) if lying else image)
    along = (shown.mT if lying else shown)[0, :, 16].float()
    assert abs(along.mean() - 100) < 1
    assert abs(along[-1] - along[0] - 31 * 33 / 36) < 2  # 36 = 32 / 0.875, rounded down


TRANSFORMS: dict[str, Any] = {
    "eval": eval_transform,
    "squash": lambda preprocess, **options: eval_transform(preprocess.replace(crop_mode="squash"), **options),
    "crop-flip": train_transform,
    "trivial": lambda preprocess, **options: train_transform(preprocess, augment="trivial", **options),
}


def apply(transform: Any, images: list[Image.Image]) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.stack([transform(image) for image in images])


@pytest.mark.parametrize("resizer", ["pillow", "torch"])
@pytest.mark.parametrize("make", TRANSFORMS.values(), ids=TRANSFORMS)
def test_bytes_become_the_very_numbers(make: Any, resizer: Any) -> None:
    preprocess = Preprocess(image_size=32, std=(0.21, 0.22, 0.23))
    images = [smooth((60, 40)), smooth((40, 61), 1), make_image((32, 32)), Image.new("L", (9, 9), 200)]
    pixels = apply(make(preprocess, normalise=False, resizer=resizer), images)
    assert (pixels.shape, pixels.dtype) == ((4, 3, 32, 32), torch.uint8)
    numbers = apply(make(preprocess, resizer=resizer), images)
    for laid in (pixels, pixels.contiguous(memory_format=torch.channels_last)):
        inputs = to_input(laid, preprocess)
        assert torch.equal(inputs, numbers)
        assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(to_input(pixels[1], preprocess), numbers[1])


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("make", TRANSFORMS.values(), ids=TRANSFORMS)
def test_torch_resizes_as_pillow_does_but_for_rounding(make: Any, interpolation: Any) -> None:
    preprocess = Preprocess(image_size=64, interpolation=interpolation)
    images = [smooth((400, 300)), smooth((200, 380), 1), smooth((1000, 170), 2)]
    ours, theirs = (apply(make(preprocess, normalise=False, resizer=name), images) for name in ("torch", "pillow"))
    difference = (ours.int() - theirs.int()).abs()
    if interpolation == "nearest":
        assert difference.max() == 0
    elif make is eval_transform:
        assert difference.max() <= 1
        assert (difference > 0).float().mean() < 0.01
    else:  # Pillow squeezes tall images in another order; a random change may make a difference larger
        assert difference.float().mean() < 0.3


def test_to_input_takes_bytes_of_rgb_alone() -> None:
    with pytest.raises(
        InputError,
        match=r"torch\.float32 of shape \(3, 8, 8\); expected uint8 \(B, 3, height, width\), from a transform with "
        r"normalise=False",
    ):
        to_input(torch.rand(3, 8, 8), PLAIN)
    with pytest.raises(InputError, match=r"torch\.uint8 of shape \(2, 8, 8, 3\); expected uint8 \(B, 3"):
        to_input(torch.zeros(2, 8, 8, 3, dtype=torch.uint8), PLAIN)
    pixels = torch.arange(256, dtype=torch.uint8).expand(3, 8, 256)
    steps = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(Preprocess().mean, Preprocess().std)])
    assert torch.equal(to_input(pixels, Preprocess()), steps(pixels))


@pytest.mark.parametrize("augment", ["crop-flip", "trivial"])
def test_training_changes_images_as_the_generator_says(augment: Any) -> None:
    image, transform = smooth((60, 40)), train_transform(PLAIN, augment=augment)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = [transform(image) for _ in range(4)]
        torch.manual_seed(0)
        again = [transform(image) for _ in range(4)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])
    assert all(tensor.shape == (3, 32, 32) and tensor.min() >= 0 and tensor.max() <= 1 for tensor in first)


def test_training_without_changes_is_the_evaluation() -> None:
    image = smooth((60, 40))
    assert torch.equal(train_transform(PLAIN, augment="none")(image), eval_transform(PLAIN)(image))
    assert eval_transform(PLAIN)(Image.new("L", (9, 9), 255)).min() == 1


def test_flips() -> None:
    image = smooth((32, 32))
    still = train_transform(PLAIN, crop_scale_min=1.0, flip_probability=0.0)
    flipped = train_transform(PLAIN, crop_scale_min=1.0, flip_probability=1.0)
    with torch.random.fork_rng(devices=[]):
        for seed in range(5):
            torch.manual_seed(seed)
            one = still(image)
            torch.manual_seed(seed)
            torch.testing.assert_close(flipped(image), one.flip(-1))


def test_crops_keep_the_share_of_the_area_and_the_shape_that_are_asked_for() -> None:
    width, height = 400, 200
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[..., 0] = np.linspace(0, 255, width)[None]
    ramp[..., 1] = np.linspace(0, 255, height)[:, None]
    transform = train_transform(PLAIN.replace(interpolation="bilinear"), crop_scale_min=0.3, flip_probability=0)
    shares, ratios = [], []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(300):
            red, green, _ = transform(Image.fromarray(ramp))
            across = (red.mean(0)[-1] - red.mean(0)[0]).item() * width * 32 / 31
            down = (green.mean(1)[-1] - green.mean(1)[0]).item() * height * 32 / 31
            shares.append(across * down / (width * height))
            ratios.append(across / down)
    assert 0.28 < min(shares) < 0.33
    assert max(shares) > 0.6  # more does not fit an image of this shape
    assert 0.7 < min(ratios) < 0.8
    assert 1.25 < max(ratios) < 1.4


@pytest.mark.parametrize("resizer", ["pillow", "torch"])
@pytest.mark.parametrize("augment", ["none", "crop-flip", "trivial"])
def test_transforms_travel_between_processes(augment: Any, resizer: Any) -> None:
    image, transform = smooth((50, 40)), train_transform(PLAIN, augment=augment, resizer=resizer)
    copy = pickle.loads(pickle.dumps(transform))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        expected = transform(image)
        torch.manual_seed(1)
        assert torch.equal(copy(image), expected)


def test_values_go_to_json_and_back() -> None:
    preprocess = Preprocess(image_size=96, mean=(0.5, 0.5, 0.5), interpolation="bilinear", crop_mode="squash")
    values = preprocess.to_dict()
    assert values["mean"] == [0.5, 0.5, 0.5]
    assert Preprocess.from_dict(values) == preprocess
    assert preprocess.replace(image_size=128).image_size == 128
    assert hash(Preprocess.from_dict(values)) == hash(preprocess)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"image_size": 7}, "image_size is 7; expected an integer from 8 to 4096 pixels"),
        ({"image_size": 224.0}, "image_size is 224.0; expected an integer"),
        ({"image_size": True}, "image_size is True"),
        ({"mean": (0.5, 0.5)}, r"mean is \(0.5, 0.5\); expected three numbers"),
        ({"mean": "abc"}, "mean is 'abc'"),
        ({"std": (0.5, 0.5, 0)}, "std is .*; expected three numbers above 0"),
        ({"std": (0.5, float("nan"), 1)}, "std is"),
        ({"crop_pct": 0}, "crop_pct is 0; expected a number above 0, at most 1"),
        ({"crop_pct": 1.1}, "crop_pct is 1.1"),
        ({"crop_pct": "0.9"}, "crop_pct is '0.9'"),
        (
            {"interpolation": "bicubik"},
            "'bicubik'; expected nearest, bilinear, bicubic. Did you mean 'bicubic'",
        ),
        ({"crop_mode": "border"}, "crop_mode is 'border'; expected center, squash"),
    ],
)
def test_wrong_values(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        Preprocess(**changes)
    with pytest.raises(InputError, match=text):
        Preprocess.from_dict(Preprocess().to_dict() | changes)


def test_wrong_keys() -> None:
    values = Preprocess().to_dict()
    with pytest.raises(InputError, match=r"unknown key 'image_sise'\. Did you mean 'image_size'"):
        Preprocess.from_dict(values | {"image_sise": 3})
    del values["mean"], values["std"]
    with pytest.raises(InputError, match=r"preprocess: mean, std missing\. Expected image_size, mean"):
        Preprocess.from_dict(values)
    with pytest.raises(InputError, match="preprocess is a list; expected a mapping"):
        Preprocess.from_dict([])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"augment": "flip"}, "augment is 'flip'; expected none, crop-flip, .* Did you mean 'crop-flip'"),
        ({"crop_scale_min": 0}, "crop_scale_min is 0; expected"),
        ({"crop_scale_min": True}, "crop_scale_min is True"),
        ({"resizer": "opencv"}, r"resizer is 'opencv'; expected pillow, torch\."),
        ({"flip_probability": 1.5}, "flip_probability is 1.5; expected a number from 0 to 1"),
    ],
)
def test_wrong_options(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        train_transform(PLAIN, **options)
