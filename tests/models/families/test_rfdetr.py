import pytest

import zoo
from models.families._detr.sizes import check_size
from zoo.data.letterbox import Letterbox
from zoo.models.families import rfdetr

pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")

PUBLISHED = {"n": 30.5, "s": 32.1, "m": 33.7, "l": 33.9}  # millions, in the authors' table


@pytest.mark.parametrize("size", PUBLISHED)
def test_a_size_has_as_many_parameters_as_its_authors_say(size):
    check_size(rfdetr, f"rfdetr_{size}", PUBLISHED[size], kind="rf_detr", owner="Roboflow/rf-detr-")


@pytest.mark.parametrize(("size", "side"), [("n", 384), ("s", 512), ("m", 576), ("l", 704)])
def test_each_size_has_its_own_canvas_and_the_statistics_of_imagenet(size, side):
    expected = Letterbox(
        canvas_size=(side, side),
        content_size=(side, side),
        keep_ratio=False,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    assert zoo.describe(f"rfdetr_{size}")["preprocess"] == expected.to_dict()
    assert rfdetr.open_size(size).settings["backbone_config"]["image_size"] == side
