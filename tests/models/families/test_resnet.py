import pytest

import zoo
from models.contract import ClassifierContract


class TestResNet(ClassifierContract):
    name = "resnet18"


@pytest.mark.parametrize(("name", "blocks"), [("resnet18", 2), ("resnet34", 3), ("resnet50", 3), ("resnet101", 3)])
def test_facts(name, blocks):
    facts = zoo.describe(name)
    model = zoo.get(name)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(facts["parameters"], abs=0.006)
    assert len(model.layer1) == blocks
    assert model.head_prefixes == ("fc",)
    assert model.preprocess.crop_pct == 0.95
