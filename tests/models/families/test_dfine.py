import pytest
import torch

import zoo
from zoo.data.letterbox import Letterbox
from zoo.models.families.dfine import SIZES, open_size

pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")

PUBLISHED = {"n": 4, "s": 10, "m": 19, "l": 31, "x": 62}  # millions, in the authors' table


@pytest.mark.parametrize("size", ["n", "s", "m", "l", "x"])
def test_a_size_has_as_many_parameters_as_its_authors_say(size):
    assert size in SIZES
    facts = zoo.describe(f"dfine_{size}")
    architecture = open_size(size)
    assert architecture.model_type == "d_fine"
    with torch.device("meta"):
        network = architecture.make_network(80)
    second = architecture.second_names
    learning = [
        p for name, p in network.named_parameters() if p.requires_grad and not (second and name.startswith(second))
    ]
    assert sum(p.numel() for p in learning) / 1e6 == pytest.approx(facts["parameters"], abs=0.006)
    assert facts["weights"]["repo"].startswith("ustc-community/dfine-")
    assert PUBLISHED[size] == pytest.approx(facts["parameters"], abs=1)


def test_pictures_are_stretched_and_not_normalised():
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
