import pytest
import torch

import zoo
from zoo.data.letterbox import Letterbox
from zoo.models.families.rfdetr import SIZES, open_size

pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")

PUBLISHED = {"n": 30.5, "s": 32.1, "m": 33.7, "l": 33.9}  # millions, in the authors' table


@pytest.mark.parametrize("size", ["n", "s", "m", "l"])
def test_a_size_has_as_many_parameters_as_its_authors_say(size):
    assert size in SIZES
    facts = zoo.describe(f"rfdetr_{size}")
    architecture = open_size(size)
    assert architecture.model_type == "rf_detr"
    with torch.device("meta"):
        network = architecture.make_network(80)
    second = architecture.second_names
    learning = [
        p for name, p in network.named_parameters() if p.requires_grad and not (second and name.startswith(second))
    ]
    assert sum(p.numel() for p in learning) / 1e6 == pytest.approx(facts["parameters"], abs=0.006)
    assert facts["weights"]["repo"].startswith("Roboflow/rf-detr-")
    assert PUBLISHED[size] == pytest.approx(facts["parameters"], abs=1)


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
    assert open_size(size).settings["backbone_config"]["image_size"] == side
