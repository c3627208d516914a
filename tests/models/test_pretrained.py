"""`zoo.get(name, pretrained=...)`: every form of it, from files and from the Hub."""

import hashlib
import json
import time

import pytest
import timm
import torch
from safetensors.torch import save

import zoo
from zoo.data.transforms import Preprocess
from zoo.errors import LicenceError, WeightsError
from zoo.models import registry
from zoo.models.classifier import build_timm
from zoo.models.registry import entries, register
from zoo.training.run_folder import RunFolder
from zoo.weights.spec import Weights

TINY = "timm/test_resnet"
REPO = "timm/test_resnet.r160_in1k"  # where timm says that the weights of TINY are
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network():
    """What timm makes and others publish: 7 classes."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return timm.create_model("test_resnet", num_classes=7).eval()


@pytest.fixture(scope="module")
def content(network):
    return save(network.state_dict())


@pytest.fixture
def bare(content, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    return path


@pytest.fixture
def pin(monkeypatch):
    """Registers a model whose weights are pinned."""
    zoo.list_models()
    monkeypatch.setattr(registry, "_ENTRIES", entries())
    monkeypatch.setattr(time, "sleep", lambda seconds: None)

    def add(commit, sha256):
        weights = Weights(repo="org/tiny", revision=commit, sha256=sha256, licence="mit")

        @register(task="test", parameters=0.4, preprocess=Preprocess(image_size=160), weights=weights, num_classes=7)
        def tinynet(**options):
            """A network for tests."""
            return build_timm("test_resnet", **options)

    return add


@pytest.fixture
def pinned(hub, pin, content):
    commit = hub.add("org/tiny", {"model.safetensors": content})
    pin(commit, hashlib.sha256(content).hexdigest())
    return commit


@torch.no_grad()
def same(model, network):
    return torch.equal(model(IMAGES), network(IMAGES))


@torch.no_grad()
def same_backbone(model, network):
    return torch.equal(model.trunk(IMAGES), network.forward_head(network.forward_features(IMAGES), pre_logits=True))


def test_pinned_weights_are_downloaded_and_checked(hub, pinned, content, network):
    model = zoo.get("tinynet", pretrained=True)
    assert same(model, network)
    report = model.load_report
    assert (report.pinned, report.revision, report.origin) == (True, pinned, f"{hub.endpoint}/org/tiny")
    assert report.sha256 == hashlib.sha256(content).hexdigest()
    assert set(report.loaded) == set(network.state_dict())
    assert report.reinitialised == report.unused == ()
    assert (model.licence.weights, model.licence.commercial) == ("mit", True)
    assert model.preprocess.image_size == 160
    where = {"weights": report.origin, "revision": pinned, "sha256": report.sha256}
    assert model.config["origin"] == where | {"init_seed": 0, "pretrained": True}
    assert hub.count("GET .*/model.safetensors") > 0


def test_a_new_head_for_other_classes(hub, pinned, network):
    for arguments in ({"num_classes": 3}, {"classes": ["ant", "bee", "cat"]}, {"classes": list("abcdefg")}):
        model = zoo.get("tinynet", pretrained=True, **arguments)
        assert same_backbone(model, network)
        assert set(model.load_report.reinitialised) == set(model.load_report.unused) == {"fc.weight", "fc.bias"}
        assert model.classes == tuple(arguments.get("classes", ("0", "1", "2")))
        assert torch.equal(model.fc.weight, zoo.get("tinynet", **arguments).fc.weight)


def test_the_known_weights_of_timm_are_not_pinned(hub, content, network):
    commit = hub.add(REPO, {"model.safetensors": content})
    model = zoo.get(TINY, pretrained=True)
    assert same(model, network)
    assert (model.num_classes, model.classes) == (7, tuple("0123456"))
    assert (model.load_report.pinned, model.load_report.revision) == (False, commit)
    assert model.licence.weights == "apache-2.0"


def test_a_bare_file_tells_how_many_classes_it_has(bare, network):
    for source in (bare, str(bare), bare.parent):
        model = zoo.get(TINY, pretrained=source)
        assert same(model, network)
        assert (model.num_classes, model.classes) == (7, tuple("0123456"))
        assert model.config["origin"]["pretrained"] == str(source)
    assert zoo.get(TINY, pretrained=bare, num_classes=7).load_report.reinitialised == ()
    assert same_backbone(zoo.get(TINY, pretrained=bare, num_classes=4), network)


@pytest.mark.parametrize("count", [0, 10**9])
def test_a_file_with_an_absurd_head_is_refused_before_it_is_built(bare, count):
    shapes = {"fc.weight": {"dtype": "F32", "shape": [count, 96], "data_offsets": [0, 0]}}
    header = json.dumps(shapes).encode()
    bare.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(WeightsError, match=r"model\.safetensors (has a damaged safetensors header|does not fit)"):
        zoo.get(TINY, pretrained=bare)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_050", "timm/test_resnet", "timm/test_vit"])
def test_a_folder_that_timm_saved_gives_the_logits_of_timm(name, tmp_path):
    network = timm.create_model(name.removeprefix("timm/"), num_classes=3).eval()
    timm.models.save_for_hf(network, tmp_path, {"label_names": ["ant", "bee", "cat"]}, safe_serialization=True)
    model = zoo.get(name, pretrained=tmp_path)
    side = 160 if name.endswith("vit") else 32
    with torch.no_grad():
        images = torch.randn(2, 3, side, side)
        assert torch.equal(model(images), network(images))
    assert model.classes == ("ant", "bee", "cat")
    assert model.preprocess.image_size == network.pretrained_cfg["input_size"][1]
    assert model.preprocess.mean == tuple(network.pretrained_cfg["mean"])


def test_options_of_timm_come_with_its_folder(tmp_path):
    network = timm.create_model("test_efficientnet", num_classes=3, pad_type="same", global_pool="max").eval()
    timm.models.save_for_hf(network, tmp_path, safe_serialization=True)
    assert same(zoo.get("timm/test_efficientnet", pretrained=tmp_path), network)
    (tmp_path / "config.json").unlink()
    assert not same(zoo.get("timm/test_efficientnet", pretrained=tmp_path), network)


def test_a_run_brings_its_classes_and_they_may_be_replaced(tmp_path):
    before = zoo.get(TINY, classes=["ant", "bee"])
    RunFolder(tmp_path).save_model(before, before.state_dict())
    again = zoo.get(TINY, pretrained=tmp_path)
    assert (again.classes, again.load_report.reinitialised) == (("ant", "bee"), ())
    assert same(again, before)
    assert zoo.get(TINY, pretrained=tmp_path, classes=["ant", "bee"]).load_report.reinitialised == ()
    swapped = zoo.get(TINY, pretrained=tmp_path, classes=["bee", "ant"])
    assert (swapped.classes, swapped.load_report.reinitialised) == (("bee", "ant"), ())
    assert torch.equal(swapped.fc.weight, before.fc.weight[[1, 0]])
    more = zoo.get(TINY, pretrained=tmp_path, classes=["cat", "ant"])
    assert torch.equal(more.fc.weight[1], before.fc.weight[0])
    assert torch.equal(more.fc.weight[0], zoo.get(TINY, num_classes=2).fc.weight[0])
    assert more.load_report.notes == ("outputs by name: 'ant' keep their weights; 'cat' are new; 'bee' are dropped",)
    other = zoo.get(TINY, pretrained=tmp_path, classes=["cat", "dog"])
    assert other.load_report.reinitialised == ("fc.weight", "fc.bias")


def test_a_config_that_lies_about_the_number_of_classes(bare):
    bare.with_name("config.json").write_text('{"classes": ["ant", "bee"]}')
    with pytest.raises(WeightsError, match="Only the head differs"):
        zoo.get(TINY, pretrained=bare)


def test_a_repository_with_or_without_revision(hub, content, network):
    config = json.dumps({"architecture": "test_resnet", "num_classes": 7, "label_names": list("abcdefg")})
    old = hub.add("me/birds", {"model.safetensors": content, "config.json": config.encode()}, "v1")
    new = hub.add("me/birds", {"model.safetensors": save({n: v * 0 for n, v in network.state_dict().items()})})
    model = zoo.get(TINY, pretrained="me/birds@v1")
    assert same(model, network)
    assert (model.classes, model.load_report.revision) == (tuple("abcdefg"), old)
    assert same(zoo.get(TINY, pretrained=f"me/birds@{old}"), network)
    newest = zoo.get(TINY, pretrained="me/birds")
    assert (newest.load_report.revision, newest.load_report.pinned) == (new, False)
    assert not any(parameter.any() for parameter in newest.parameters())


@pytest.mark.parametrize(("licence", "free"), [("cc-by-nc-4.0", False), ("MIT", True), (None, False)])
def test_the_licence_of_a_repository_counts(hub, content, monkeypatch, licence, free):
    config = {"architecture": "test_resnet", "num_classes": 7, "pretrained_cfg": {"license": licence}}
    hub.add("me/birds", {"model.safetensors": content, "config.json": json.dumps(config).encode()})
    assert zoo.get(TINY, pretrained="me/birds").licence.commercial is free
    monkeypatch.setenv("ZOO_COMMERCIAL_ONLY", "1")
    if free:
        assert zoo.get(TINY, pretrained="me/birds").licence.commercial
    else:
        with pytest.raises(LicenceError, match=f"have the licence {licence or 'unknown'}, .*ZOO_COMMERCIAL_ONLY"):
            zoo.get(TINY, pretrained="me/birds")
    assert zoo.get(TINY, pretrained="me/birds", commercial=False).licence.commercial is free
