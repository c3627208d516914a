import pytest

import zoo
from models.families._detr.sizes import check_size
from zoo.data.letterbox import Letterbox
from zoo.models.families import rtdetr

pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")

PUBLISHED = {"r18": 20, "r34": 31, "r50": 42.5, "r101": 76}  # millions, in the authors' table


@pytest.mark.parametrize("size", PUBLISHED)
def test_a_size_has_as_many_parameters_as_its_authors_say(size):
    check_size(rtdetr, f"rtdetr_v2_{size}", PUBLISHED[size], kind="rt_detr_v2", owner="PekingU/rtdetr_v2_")


def test_images_are_stretched_and_not_normalised():
    assert zoo.describe("rtdetr_v2_r18")["preprocess"] == Letterbox(content_size=(640, 640), keep_ratio=False).to_dict()
    assert zoo.describe("RTDETR-v2-r18") == zoo.describe("rtdetr_v2_r18")
