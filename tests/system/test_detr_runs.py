"""Detectors of transformers from the Hub to a finished run: what needs the loaders and the training loop together."""

import pytest
import torch

import zoo
from boxed_folder import write_boxed
from hub_server import HubServer
from small_detr import NAMES, save_as_transformers, shrink
from zoo.errors import WeightsError
from zoo.models.families._coco import COCO_CLASSES

pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")

OPTIONS = {"image_size": 128, "batch_size": 4, "device": "cpu", "num_workers": 0, "progress": False, "augment": "none"}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    shrink(monkeypatch)


@pytest.fixture
def publish(hub: HubServer, tmp_path):
    """Put a random network onto the Hub, as transformers writes it."""

    def publish(name, repo, **config):
        network = save_as_transformers(name, tmp_path / "theirs", num_classes=config.pop("num_classes", 80), **config)
        files = {path.name: path.read_bytes() for path in (tmp_path / "theirs").iterdir()}
        return network, hub.add(repo, files)

    return publish


def same(model, network, images):
    model.eval()
    with torch.inference_mode():
        ours, theirs = model(images), network(images)
    return torch.equal(ours.logits, theirs.logits) and torch.equal(ours.boxes, theirs.pred_boxes)


@pytest.mark.parametrize("name", NAMES)
def test_pulled_from_the_hub_the_outputs_are_equal_bit_for_bit(name, publish):
    names = {"id2label": {str(number): text for number, text in enumerate(["ant", "bee", "cow"])}}
    network, commit = publish(name, "org/cells", num_classes=3, **names)
    model = zoo.get(name, pretrained="org/cells")
    assert same(model, network, torch.rand(2, 3, 128, 128))
    assert model.classes == ("ant", "bee", "cow")
    assert (model.load_report.revision, model.load_report.pinned) == (commit, False)
    assert model.load_report.reinitialised == ()


@pytest.mark.parametrize("name", NAMES)
def test_the_known_weights_are_fetched_from_their_repository(name, publish):
    known = zoo.describe(name)["weights"]["repo"]
    network, _ = publish(name, known, num_classes=91 if name == "rfdetr_n" else 80)
    model = zoo.get(name, pretrained=True)
    assert model.classes == COCO_CLASSES
    assert model.licence.weights == "apache-2.0"
    if name != "rfdetr_n":
        assert same(model, network, torch.rand(1, 3, 128, 128))
        return
    assert torch.equal(model.class_embed.weight[0], network.class_embed.weight[1])
    assert model.load_report.notes == ("kept the 80 used rows of COCO's 91 category ids",)


@pytest.mark.parametrize("name", NAMES)
def test_for_other_classes_the_heads_are_new(name, publish):
    network, _ = publish(name, "org/cells")
    model = zoo.get(name, pretrained="org/cells", classes=["red", "white"])
    theirs = network.state_dict()
    new = set(model.load_report.reinitialised)
    assert new == {key for key in model.state_dict() if key.startswith(model.class_prefixes)}
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in model.state_dict().items() if key not in new)
    assert model.classes == ("red", "white")


def test_weights_of_another_size_or_family_are_refused(publish):
    publish("dfine_n", "org/cells", num_classes=3, decoder_layers=6)
    with pytest.raises(WeightsError, match="has a different size or variant: decoder_layers is 6, expected 2"):
        zoo.get("dfine_n", pretrained="org/cells")
    publish("dfine_n", "org/cells", num_classes=3)
    with pytest.raises(
        WeightsError,
        match=r"has model_type 'd_fine'; expected 'rt_detr_v2'",
    ):
        zoo.get("rtdetr_v2_r18", pretrained="org/cells")


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    return write_boxed(tmp_path_factory.mktemp("data"), side=128, train=8, val=4)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_from_the_hub_to_scores_and_back(name, publish, squares, tmp_path):
    publish(name, "org/cells")
    model = zoo.get(name, pretrained="org/cells", classes=["blue", "red"])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    run = zoo.finetune(model, squares, 0.002, out=tmp_path / "run", epochs=2, clip_grad_norm=0.1, **OPTIONS)
    assert [record["epoch"] for record in run.metrics] == [1, 2]
    assert {"loss", "val_loss", "map", "map50"} <= run.metrics[-1].keys()
    after = run.model.state_dict()
    backbone = "model.backbone.backbone." if name == "rfdetr_n" else "model.backbone."
    for key, value in before.items():
        if key.startswith(backbone):
            assert torch.equal(value, after[key]), key
    learned = [key for key, value in before.items() if not torch.equal(value, after[key])]
    assert {key.split(".")[1] for key in learned} >= {"decoder"}
    assert set(run.proof["digests"]) >= {key for key in before if key.startswith(backbone)} - _counters(before)

    loaded, images = zoo.load(run.folder), torch.rand(1, 3, 128, 128)
    with torch.inference_mode():
        assert torch.equal(loaded(images).logits, run.model.eval()(images).logits)
    again = zoo.evaluate(run.folder, squares, device="cpu", progress=False)
    assert again.map == run.evaluation.map
    (result,) = loaded.predict(next((squares / "images" / "val").iterdir()), conf=0.0)
    assert len(result.boxes) > 0
    assert result.classes == ("blue", "red")


def _counters(state):
    return {key for key in state if key.endswith("num_batches_tracked")}


def test_the_denoising_queries_learn_in_a_run(squares, tmp_path):
    model = zoo.get("dfine_n", classes=["blue", "red"])
    before = model.model.denoising_class_embed.weight.detach().clone()
    options = OPTIONS | {"optimizer": "AdamW", "weight_decay": 0.0, "clip_grad_norm": 0.1, "epochs": 2}
    run = zoo.finetune(model, squares, 0.002, out=tmp_path / "run", **options)
    moved = (run.model.model.denoising_class_embed.weight != before).any(dim=1)
    assert moved.tolist() == [True, True, False]  # the last row is padding


@pytest.mark.parametrize("preset", ["detr-heads", "detr-low-lr"])
@pytest.mark.parametrize("name", NAMES)
def test_the_presets_fit(name, preset, squares, tmp_path):
    model = zoo.get(name, classes=["blue", "red"])
    options = {key: value for key, value in OPTIONS.items() if key != "augment"}
    run = zoo.finetune(model, squares, preset=preset, out=tmp_path / "run", epochs=2, **options)
    assert run.metrics[-1]["loss"] > 0
