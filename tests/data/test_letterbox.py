import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from yolo_nas_fill import image
from zoo.data.letterbox import Letterbox, fit_image, normalize_canvas, resize_bilinear
from zoo.errors import InputError

pytestmark = pytest.mark.numbers

RECORDED = np.load(Path(__file__).parents[1] / "fixtures" / "yolo_nas" / "preprocess.npz")
SIZES = ["480x640", "333x500", "427x640", "400x31", "636x500"]
SMALL = Letterbox(canvas_size=(40, 60), content_size=(36, 56))


def pixels(tag, height, width):
    """An RGB image `(H, W, 3)` made of a formula."""
    return np.ascontiguousarray(image(tag, 1, height, width)[0].permute(1, 2, 0).numpy())


@pytest.fixture(scope="module", params=SIZES)
def recorded(request):
    """What super-gradients made of an image; and canvas and placement of the same image."""
    image = pixels(f"pre{request.param}", *map(int, request.param.split("x")))
    values = {name.split("/")[1]: RECORDED[name] for name in RECORDED.files if name.startswith(f"{request.param}/")}
    assert zlib.crc32(image.tobytes()) == values["image_crc32"]
    return values, *fit_image(image, Letterbox())


def test_the_input_is_that_of_super_gradients_to_the_bit(recorded):
    expected, canvas, _ = recorded
    assert canvas.dtype == torch.uint8
    found = normalize_canvas(canvas, Letterbox()).numpy()
    assert found.shape == tuple(expected["out_shape"])
    flat = found.reshape(-1)
    assert np.array_equal(flat[(np.arange(256) * (flat.size - 1)) // 255], expected["probe256"])
    assert np.array_equal(found[:, 320, 300:340], expected["row320_cols300_340"])
    wide = found.astype(np.float64)
    assert [wide.mean(), wide.std(), wide.min(), wide.max()] == pytest.approx(expected["stats"], abs=1e-12)


def test_the_place_on_the_canvas_is_that_of_super_gradients(recorded):
    expected, _, place = recorded
    top, bottom, left, right = expected["pad_top_bottom_left_right"]
    assert [place.height, place.width] == expected["resized_hw"].tolist()
    assert (place.top, place.left) == (top, left)
    assert (640 - place.height - place.top, 640 - place.width - place.left) == (bottom, right)
    assert [place.scale_y, place.scale_x] == expected["scale"].tolist()


def test_boxes_come_back_as_those_of_super_gradients_to_the_bit(recorded):
    expected, _, place = recorded
    boxes = torch.from_numpy(expected["boxes_in"])
    assert np.array_equal(place.to_image(boxes).numpy(), expected["boxes_out"])
    assert (place.to_canvas(place.to_image(boxes)) - boxes).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("size", "target", "checksum"),
    [
        ((1, 1), (5, 7), 1861880146),
        ((1, 3), (2, 200), 668742940),
        ((7, 5), (3, 9), 987408761),
        ((64, 48), (32, 24), 1023958890),  # halves, for which OpenCV has code of its own
        ((97, 53), (48, 300), 663471208),
        ((31, 400), (49, 636), 905855112),
        ((300, 200), (20, 30), 1408762309),
    ],
)
def test_resizing_gives_the_bytes_of_opencv(size, target, checksum):
    resized = resize_bilinear(pixels("resize", *size), *target)  # checksums: cv2.resize of OpenCV 4.14 and 5.0
    assert resized.shape == (3, *target)
    assert resized.dtype == np.uint8
    assert zlib.crc32(np.ascontiguousarray(resized.transpose(1, 2, 0)).tobytes()) == checksum


def test_resizing_leaves_one_colour_and_the_right_size_alone():
    for value in (0, 1, 254, 255):
        assert (resize_bilinear(np.full((13, 7, 3), value, np.uint8), 50, 90) == value).all()
    image = pixels("same", 36, 20)
    canvas, place = fit_image(image, SMALL)
    assert (place.top, place.left, place.scale_y) == (2, 20, 1)
    assert torch.equal(canvas[:, 2:38, 20:40], torch.from_numpy(image).permute(2, 0, 1))
    assert set(canvas[:, :2].unique().tolist()) == {114}
    assert set(canvas[:, :, 40:].unique().tolist()) == {114}


def test_images_of_any_kind_and_boxes_of_any_type():
    image = pixels("same", 30, 50)
    assert torch.equal(fit_image(Image.fromarray(image), SMALL)[0], fit_image(image, SMALL)[0])
    _, place = fit_image(pixels("same", 30, 50), SMALL)
    assert place.to_image(torch.zeros(2, 3, 4, dtype=torch.float64)).shape == (2, 3, 4)
    assert place.to_canvas(torch.zeros(0, 4, dtype=torch.float64)).dtype == torch.float64


def test_a_image_is_padded_at_the_bottom_and_on_the_right_blue_first_if_asked():
    letterbox = SMALL.replace(position="top-left", content_size=(40, 60), fill=7)
    canvas, place = fit_image(np.full((10, 30, 3), 200, np.uint8), letterbox)
    assert (place.height, place.width, place.top, place.left) == (20, 60, 0, 0)
    assert (canvas[:, :20] == 200).all()
    assert (canvas[:, 20:] == 7).all()
    assert place.to_image(torch.tensor([[0.0, 0, 60, 20]])).tolist() == [[0, 0, 30, 10]]
    image = np.full((36, 56, 3), (10, 20, 30), np.uint8)
    assert fit_image(image, SMALL)[0][:, 20, 30].tolist() == [10, 20, 30]
    assert fit_image(image, SMALL.replace(channels="bgr"))[0][:, 20, 30].tolist() == [30, 20, 10]


def test_a_image_may_fill_the_canvas_whatever_its_proportions():
    letterbox = SMALL.replace(keep_ratio=False, content_size=(40, 60))
    canvas, place = fit_image(pixels("wide", 10, 120), letterbox)
    assert (place.scale_y, place.scale_x) == (4, 0.5)
    assert canvas.shape == (3, 40, 60)
    boxes = torch.tensor([[10.0, 1, 20, 2]])
    assert place.to_canvas(boxes).tolist() == [[5, 4, 10, 8]]
    assert place.to_image(place.to_canvas(boxes)).tolist() == boxes.tolist()


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1)])
def test_a_side_never_vanishes(shape):
    _, place = fit_image(np.zeros((*shape, 3), np.uint8), SMALL)
    assert min(place.height, place.width) == 1


def test_batches_become_inputs_in_the_units_of_the_weights():
    found = normalize_canvas(torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8), Letterbox())
    assert found.dtype == torch.float32
    assert found.flatten().tolist() == pytest.approx([0, 0.2, 1])
    canvases = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)
    assert normalize_canvas(canvases, Letterbox(max_value=1)).flatten().tolist() == [0, 51, 255]
    other = Letterbox(max_value=51, mean=(1, 0, 3), std=(2, 1, 0.5))
    assert normalize_canvas(canvases, other).flatten().tolist() == pytest.approx([-0.5, 1, 4])
    assert normalize_canvas(canvases[0], other).shape == (3, 1, 1)


def test_values_go_to_a_file_and_back():
    letterbox = SMALL.replace(position="top-left", channels="bgr", mean=(1, 2, 3), keep_ratio=False)
    values = letterbox.to_dict()
    assert values["kind"] == "letterbox"
    assert Letterbox.from_dict(json.loads(json.dumps(values))) == letterbox
    values = Letterbox().to_dict()
    del values["position"]
    with pytest.raises(InputError, match=r"preprocess: position missing\. Expected kind, canvas_size, "):
        Letterbox.from_dict(values)
    assert Letterbox(canvas_size=[640, 640], content_size=[636, 636]) == Letterbox()
    assert hash(Letterbox(canvas_size=[640, 640])) == hash(Letterbox())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"kind": "crop"}, r"expected a mapping with kind: letterbox"),
        ({"fil": 3}, r"unknown key 'fil'\. Did you mean 'fill'\?"),
        ({"fill": 300}, r"fill is 300; expected an integer from 0 to 255"),
        ({"max_value": 0}, r"max_value is 0; expected a number above 0"),
        ({"max_value": float("inf")}, r"max_value is inf; expected a number above 0"),
        ({"mean": [0, 0]}, r"mean is \[0, 0\]; expected three numbers"),
        ({"std": [1, 1, 0]}, r"std is \(1\.0, 1\.0, 0\.0\); expected three numbers above 0"),
        ({"std": ["1", 1, 1]}, r"std is .*; expected three numbers"),
        ({"canvas_size": [640]}, r"canvas_size is \[640\]; expected height and width"),
    ],
)
def test_what_a_file_must_not_say(change, text):
    with pytest.raises(InputError, match=text):
        Letterbox.from_dict(Letterbox().to_dict() | change)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((5, 5, 3), np.float32),
        np.zeros((5, 5), np.uint8),
        np.zeros((5, 5, 4), np.uint8),
        np.zeros((3, 5, 5), np.uint8),
        np.zeros((0, 5, 3), np.uint8),
        Image.new("L", (5, 5)),
    ],
)
def test_other_images_are_refused(image):
    with pytest.raises(InputError, match=r"the image is .* of shape .*; expected RGB, uint8 \(height, width, 3\)"):
        fit_image(image, SMALL)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"canvas_size": 640}, r"canvas_size is 640; expected height and width, two integers from 1 to 8192 pixels"),
        ({"canvas_size": (640, 640.0)}, r"canvas_size is \(640, 640\.0\); expected"),
        ({"content_size": (0, 5)}, r"content_size is \(0, 5\); expected"),
        ({"canvas_size": (9000, 640)}, r"canvas_size is \(9000, 640\); expected"),
        ({"content_size": (636, 641)}, r"content_size is \(636, 641\); expected at most the canvas, \(640, 640\)"),
        ({"fill": 256}, r"fill is 256; expected an integer from 0 to 255"),
        ({"keep_ratio": "yes"}, r"keep_ratio is 'yes'; expected true or false"),
        ({"position": "centre"}, r"position is 'centre'; expected center, top-left\. Did you mean 'center'"),
        ({"channels": "rbg"}, r"channels is 'rbg'; expected rgb, bgr\. Did you mean"),
    ],
)
def test_wrong_settings(changes, text):
    with pytest.raises(InputError, match=text):
        Letterbox(**changes)


def test_another_side_keeps_the_distance_from_the_border():
    assert Letterbox().resized(320) == Letterbox(canvas_size=(320, 320), content_size=(316, 316))
    wide = Letterbox(canvas_size=(480, 640), content_size=(480, 600), position="top-left")
    assert wide.resized(96, step=32) == wide.replace(canvas_size=(96, 96), content_size=(96, 56))
    for side in (0, 33, 64.0, True):
        with pytest.raises(InputError, match=r"image_size is .*; expected a multiple of 32 pixels, such as 320\."):
            Letterbox().resized(side, step=32)
