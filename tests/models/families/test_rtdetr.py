import pytest
import torch

import zoo
from zoo.data.letterbox import Letterbox
from zoo.models.families.rtdetr import SIZES, open_size

pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")

PUBLISHED = {"r18": 20, "r34": 31, "r50": 42.5, "r101": 76}  # millions, in the authors' table


@pytest.mark.parametrize("size", ["r18", "r34", "r50", "r101"])
def test_a_size_has_as_many_parameters_as_its_authors_say(size):
    assert size in SIZES
    facts = zoo.describe(f"rtdetr_v2_{size}")
    architecture = open_size(size)
    assert architecture.model_type == "rt_detr_v2"
    with torch.device("meta"):
        network = architecture.make_network(80)
    second = architecture.second_names
    learning = [
        p for name, p in network.named_parameters() if p.requires_grad and not (second and name.startswith(second))
    ]
    assert sum(p.numel() for p in learning) / 1e6 == pytest.approx(facts["parameters"], abs=0.006)
    assert facts["weights"]["repo"].startswith("PekingU/rtdetr_v2_")
    assert PUBLISHED[size] == pytest.approx(facts["parameters"], abs=1)


def test_pictures_are_stretched_and_not_normalised():
    assert zoo.describe("rtdetr_v2_r18")["preprocess"] == Letterbox(content_size=(640, 640), keep_ratio=False).to_dict()


def test_the_name_may_be_written_with_dashes():
    assert zoo.describe("RTDETR-v2-r18") == zoo.describe("rtdetr_v2_r18")
