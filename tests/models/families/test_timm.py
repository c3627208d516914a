import pytest
import torch

import zoo
from models.contract import ClassifierContract
from zoo.errors import InputError


class TestOpenDoor(ClassifierContract):
    name = "timm/convnext_atto"  # its classifier lies deep: head.fc


class TestNamesThatClash(ClassifierContract):
    name = "timm/vit_tiny_patch16_224"  # a module called head beside the method; a fixed input size
    size = 224


@pytest.mark.parametrize(
    "name", ["mobilenetv3_small_050", "regnetx_002", "mobilevit_xxs", "tf_efficientnet_b0", "resnet10t"]
)
def test_other_families_have_the_same_interface(name):
    model = zoo.get(f"timm/{name}", num_classes=3)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(images), model.__dict__["network"](images))
    assert zoo.plan(model, 0.1).trained


def test_preprocessing_and_licence_are_those_of_the_tag():
    facts = zoo.describe("timm/resnet50.tv_in1k")
    assert facts["weights"]["repo"] == "timm/resnet50.tv_in1k"
    assert facts["weights"]["licence"] == "bsd-3-clause"
    assert not facts["weights"]["pinned"]
    assert facts["preprocess"]["interpolation"] == "bilinear"
    assert zoo.describe("timm/resnet34.ra4_e3600_r224_in1k")["preprocess"]["mean"] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("timm/resnet5", "timm has no model 'resnet5'. Did you mean 'resnet50'"),
        ("timm/resnet50.nope", "resnet50 has no weights 'nope'.*Known: a1_in1k"),
        ("timm/deit_tiny_distilled_patch16_224", "is not a single linear layer"),
    ],
)
def test_names_that_cannot_be_opened(name, text):
    with pytest.raises(InputError, match=text):
        zoo.get(name)


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet34", "resnet50", "resnet101", "mobilenetv2_050", "mobilenetv2_140"]
)
def test_registered_facts_are_those_of_timm(name):
    own, theirs = zoo.describe(name), zoo.describe(f"timm/{name}")
    assert own["preprocess"] == theirs["preprocess"]
    assert own["weights"]["repo"] == theirs["weights"]["repo"]
    assert own["weights"]["licence"] == theirs["weights"]["licence"]
