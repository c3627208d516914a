import pytest
import torch

import zoo
from models.families._detr.sizes import check_size
from zoo.data.letterbox import Letterbox
from zoo.models.families import dfine

pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")

PUBLISHED = {"n": 4, "s": 10, "m": 19, "l": 31, "x": 62}  # millions, in the authors' table


@pytest.mark.parametrize("size", PUBLISHED)
def test_a_size_has_as_many_parameters_as_its_authors_say(size):
    check_size(dfine, f"dfine_{size}", PUBLISHED[size], kind="d_fine", owner="ustc-community/dfine-")


def test_images_are_stretched_and_not_normalised():
    letterbox = zoo.get("dfine_n").preprocess
    assert letterbox == Letterbox(content_size=(640, 640), keep_ratio=False)
    place = letterbox.place(480, 320)
    assert (place.height, place.width, place.top, place.left) == (640, 640, 0, 0)
    assert (place.scale_y, place.scale_x) == (640 / 480, 2)


def test_the_nano_size_sees_two_maps():
    model = zoo.get("dfine_n", num_classes=2)
    assert model.size_step == 32
    with torch.inference_mode():
        features = model.trunk(torch.zeros(1, 3, 256, 256))
        outputs = model.head(features)
    assert [tuple(level.shape[1:]) for level in features] == [(512, 16, 16), (1024, 8, 8)]
    assert outputs.size == (256, 256)
    assert outputs.logits.shape == (1, 300, 2)
