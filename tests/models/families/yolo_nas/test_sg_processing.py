import numpy as np
import pytest

from zoo.data.letterbox import Letterbox, fit_image, normalize_canvas
from zoo.errors import InputError
from zoo.models.families.yolo_nas.sg_processing import read_processing

ROBOFLOW = [
    "ReverseImageChannels",
    {"DetectionLongestMaxSizeRescale": {"output_shape": [640, 640]}},
    {"DetectionBottomRightPadding": {"output_shape": [640, 640], "pad_value": 114}},
    {"ImagePermute": {"permutation": [2, 0, 1]}},
    {"StandardizeImage": {"max_value": 255.0}},
]
COCO = [
    "ReverseImageChannels",
    {"ReverseImageChannels": {}},
    {"DetectionLongestMaxSizeRescale": {"output_shape": [636, 636]}},
    {"DetectionCenterPadding": {"output_shape": [640, 640], "pad_value": 114}},
    {"StandardizeImage": None},
    {"ImagePermute": {"permutation": [2, 0, 1]}},
]


def letterbox(steps):
    config, notes = read_processing({"image_processor": {"ComposeProcessing": {"processings": steps}}})
    assert notes == []
    return Letterbox.from_dict(config["preprocess"])


def test_names_and_thresholds_are_read_if_they_are_there():
    found = {"class_names": ["ant", 7], "conf": 0.5, "iou": 0.65, "image_processor": COCO}
    config, notes = read_processing(found)
    assert config == {
        "classes": ["ant", "7"],
        "preprocess": Letterbox().to_dict(),
        "postprocess": {"conf": 0.5, "iou": 0.65},
    }
    assert notes == []
    config, notes = read_processing({"conf": 2, "iou": "x", "class_names": []})
    assert config == {}
    assert notes == [
        "the file has no preprocessing; that of the published weights is used",
        "its confidence threshold, 2, is not between 0 and 1: the default is used",
        "its IoU threshold, 'x', is not between 0 and 1: the default is used",
    ]
    config, notes = read_processing({"conf": 0.65, "iou": 0.65, "image_processor": COCO})
    assert config["postprocess"] == {"iou": 0.65}
    assert notes == ["its confidence threshold equals its IoU threshold, 0.65: the default is used"]


@pytest.mark.parametrize("name", ["", "a" * 1001])
def test_names_that_no_configuration_may_have_are_left_out(name):
    config, notes = read_processing({"class_names": ["ant", name], "image_processor": COCO})
    assert "classes" not in config
    assert notes == ["its class names were ignored: one is empty, or longer than 1000 characters"]


def test_the_steps_of_published_weights_and_of_roboflow():
    assert letterbox(COCO) == Letterbox()
    assert letterbox(ROBOFLOW) == Letterbox(content_size=(640, 640), position="top-left", channels="bgr")
    assert letterbox([{"ComposeProcessing": {"processings": COCO[:3]}}, *COCO[3:]]) == Letterbox()
    found = letterbox([{"DetectionRescale": {"output_shape": [320, 640]}}, "StandardizeImage"])
    assert found == Letterbox(canvas_size=(320, 640), content_size=(320, 640), keep_ratio=False)


def run_steps(pixels, steps):
    """What the steps make of an image that needs no resizing; float64 `(3, H, W)`."""
    values = pixels.astype(np.float64)
    for step in steps:
        ((name, settings),) = step.items() if isinstance(step, dict) else ((step, {}),)
        if name == "ReverseImageChannels":
            values = values[..., ::-1]
        elif name == "StandardizeImage":
            values = values / settings["max_value"]
        elif name == "NormalizeImage":
            values = (values - np.array(settings["mean"])) / np.array(settings["std"])
        elif name == "DetectionBottomRightPadding":
            height, width = settings["output_shape"]
            pads = ((0, height - values.shape[0]), (0, width - values.shape[1]), (0, 0))
            values = np.pad(values, pads, constant_values=settings["pad_value"])
    return values.transpose(2, 0, 1)


RESIZE = {"DetectionLongestMaxSizeRescale": {"output_shape": [32, 32]}}
PAD = {"DetectionBottomRightPadding": {"output_shape": [64, 32], "pad_value": 0}}
SCALE = {"StandardizeImage": {"max_value": 255.0}}
NORMALIZE = {"NormalizeImage": {"mean": [0.4, 0.5, 0.3], "std": [0.2, 0.25, 0.5]}}


@pytest.mark.parametrize(
    "steps",
    [
        [RESIZE, PAD, SCALE, NORMALIZE, "ImagePermute"],
        [RESIZE, PAD, SCALE, NORMALIZE, "ReverseImageChannels", "ImagePermute"],
        ["ReverseImageChannels", RESIZE, SCALE, PAD, NORMALIZE],
        [RESIZE, PAD, NORMALIZE, {"StandardizeImage": {"max_value": 3.0}}],
        [RESIZE, PAD, NORMALIZE, NORMALIZE, "ImagePermute", SCALE],
        [RESIZE, PAD],
    ],
)
def test_steps_in_any_order_amount_to_the_same(steps):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 20, 3), np.uint8)
    found = letterbox(steps)
    canvas, _ = fit_image(pixels, found)
    expected = run_steps(pixels, [RESIZE, *steps])
    assert normalize_canvas(canvas, found).numpy() == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ([{"DetectionAutoPadding": {"shape_multiple": [32, 32]}}], "unsupported step"),
        (["Strange"], "unsupported step Strange. Known: ReverseImageChannels,"),
        ([RESIZE, RESIZE, PAD], "the step DetectionLongestMaxSizeRescale comes after one that resizes or pads"),
        ([PAD, RESIZE], "the step DetectionLongestMaxSizeRescale comes after one that resizes or pads"),
        ([RESIZE, PAD, PAD], "the step DetectionBottomRightPadding comes after another that pads"),
        ([PAD], "no step resizes images"),
        ([RESIZE], "no step pads images"),
        ([RESIZE, PAD, "ImagePermute", "ReverseImageChannels"], "the step ReverseImageChannels comes after"),
        ([RESIZE, {"ImagePermute": {"permutation": [0, 1, 2]}}], "the step ImagePermute has the permutation [0, 1, 2]"),
        ([{"DetectionRescale": {"output_shape": 640}}], "the step DetectionRescale has the output_shape 640; expected"),
        ([{"DetectionRescale": {"output_shape": [640.5, 9]}}], "has the output_shape [640.5, 9]; expected whole"),
        ([{"StandardizeImage": {"max_value": 0}}], "the step StandardizeImage has the max_value 0; expected a number"),
        ([{"NormalizeImage": {"mean": [0, 0, 0]}}], "the step NormalizeImage has mean [0, 0, 0] and std None"),
        ([{"NormalizeImage": {"mean": [0] * 3, "std": [1, 0, 1]}}], "has the std [1, 0, 1]; expected numbers above 0"),
        ([RESIZE, SCALE, {"DetectionCenterPadding": {"output_shape": [64, 64]}}], "has the pad_value 114; expected"),
        ([RESIZE, SCALE, NORMALIZE, PAD], "has the pad_value 0; expected a single grey value from 0 to 255"),
        ([["a", {"b": 1, "c": 2}]], "a step is {'b': 1, 'c': 2}; expected a name, or one name with its settings"),
        ([{"ReverseImageChannels": 3}], "the step ReverseImageChannels has the settings 3; expected a mapping"),
        ([RESIZE, {"DetectionCenterPadding": {"output_shape": [16, 16]}}], "content_size is (32, 32); expected at"),
    ],
)
def test_a_step_that_cannot_be_done_is_named(steps, text):
    with pytest.raises(InputError) as caught:
        letterbox(steps)
    assert text in str(caught.value)
