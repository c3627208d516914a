from pathlib import Path

import pytest

import zoo
from models.contract import ClassifierContract
from zoo.errors import WeightsError

SHARED = Path(__file__).parents[4] / "shared"
CORAL = SHARED / "weights" / "mobilenetv2_100.in1k_coral.safetensors"


class TestMobileNetV2(ClassifierContract):
    name = "mobilenetv2_050"


@pytest.mark.parametrize("width", ["050", "100", "110d", "120d", "140"])
def test_facts(width):
    facts = zoo.describe(f"mobilenetv2_{width}")
    model = zoo.get(f"mobilenetv2_{width}")
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(facts["parameters"], abs=0.006)
    assert model.head_prefixes == ("classifier",)


@pytest.mark.parametrize("alias", ["mobilenet_v2", "MobileNetV2", "mobilenet-v2-100", "mobilenetv2_100"])
def test_aliases(alias):
    assert zoo.describe(alias)["name"] == "mobilenetv2_100"


@pytest.fixture(scope="module")
def model():
    return zoo.get("mobilenetv2_100", pretrained=CORAL)


@pytest.mark.skipif(not CORAL.is_file(), reason="the pretrained MobileNetV2 is not beside the checkout")
class TestPretrained:
    def test_padding_and_preprocessing_come_with_the_weights(self, model):
        assert model.config["options"]["pad_type"] == "same"
        assert model.preprocess.mean == model.preprocess.std == (0.5, 0.5, 0.5)
        assert model.preprocess.interpolation == "bilinear"
        assert model.licence.weights == "apache-2.0"
        assert len(model.load_report.loaded) == 314
        assert model.load_report.reinitialised == model.load_report.unused == ()

    def test_it_knows_what_is_on_a_photo(self, model):
        """Two photos of scikit-learn: the summer palace in Beijing, and a flower."""
        photos = pytest.importorskip("sklearn.datasets").load_sample_images().images
        palace, flower = model.predict(photos)
        assert palace.name == "palace"
        assert "daisy" in flower.names

    def test_weights_for_another_model_are_refused(self):
        with pytest.raises(WeightsError, match="these weights are for mobilenetv2_100, not for resnet18"):
            zoo.get("resnet18", pretrained=CORAL)
