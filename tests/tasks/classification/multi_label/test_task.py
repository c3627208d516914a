import json

import pytest
import torch

import zoo
from coloured_folder import write_coloured
from tasks.contract import TaskContract
from zoo.errors import InputError
from zoo.settings.preset import Preset
from zoo.tasks import task_of
from zoo.tasks.classification import rank_classes
from zoo.tasks.classification.data import open_data

NAME = "timm/test_resnet"
OPTIONS = {"epochs": 2, "batch_size": 8, "image_size": 32, "num_workers": 0, "labels": "multi", "progress": False}


@pytest.fixture
def table(tmp_path):
    """Images of three colours; all that are not blue are warm, too."""
    root = write_coloured(tmp_path / "data", train=12, val=4)
    rows = [path.relative_to(root) for path in sorted(root.rglob("*.png"))]
    lines = [f"{row},{row.parts[1]}{'|warm' * (row.parts[1] != 'blue')},{row.parts[0]}" for row in rows]
    (root / "tags.csv").write_text("\n".join(["image,labels,split", *lines]))
    return root / "tags.csv"


def test_a_run_names_all_labels_and_is_loaded_as_it_ended(table, tmp_path):
    options = {"pretrained": False, "mode": "full", "class_weights": "balanced"} | OPTIONS
    run = zoo.finetune(NAME, table, 0.05, out=tmp_path / "run", **options)
    assert run.evaluation.classes == ("blue", "green", "red", "warm")
    assert {"val_loss", "map", "micro_f1", "macro_f1"} <= run.metrics[-1].keys()
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["task"] == "classification.multi_label"
    assert config["thresholds"] == list(run.model.thresholds)
    described = json.loads((tmp_path / "run/data.json").read_text())
    assert described["images"] == {"train": 36, "val": 12}
    assert described["class_weights"] == {"blue": 2.0, "green": 2.0, "red": 2.0, "warm": 0.5}
    loaded = zoo.load(tmp_path / "run")
    assert zoo.evaluate(loaded, table, progress=False).to_dict() == run.evaluation.to_dict()
    answer = loaded.predict(table.parent / "val/red/00.png")[0]
    with torch.inference_mode():
        source = task_of(loaded).make_scoring_source(loaded, open_data(table, labels="multi").val)
        images, _ = source.prepare(*source.collate([source.samples[8]]), 0, 0)
        expected = loaded(images).sigmoid()[0]
    limits = dict(zip(loaded.classes, loaded.thresholds, strict=True))
    found = dict(zip(answer.names, answer.probabilities, strict=True))
    assert found == pytest.approx(
        {name: float(value) for name, value in zip(loaded.classes, expected, strict=True) if value >= limits[name]},
        abs=1e-4,
    )
    with pytest.raises(InputError, match="labels is single"):
        zoo.finetune(loaded, table, progress=False)


def test_cached_features_of_views_train_as_images_do(table, tmp_path):
    options = {"pretrained": False, "views": 2, "augment": "crop-flip", "micro_batch_size": 3} | OPTIONS
    kept, anew = (
        zoo.finetune(NAME, table, 0.05, cache=cache, out=tmp_path / cache, **options) for cache in ("disk", "off")
    )
    assert kept.evaluation.loss == pytest.approx(anew.evaluation.loss, rel=1e-4)


def test_a_new_head_begins_with_the_shares_of_the_labels(table):
    data = open_data(table, labels="multi")
    model = zoo.get(NAME, classes=data.classes)
    task = task_of(model).choose(Preset(labels="multi"))
    task.settle(model, data)
    assert task_of(model) is task
    assert model.get_head().bias.sigmoid().tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 2 / 3])
    trained = model.get_head().bias.detach().clone().add_(1)
    model.get_head().bias.data.copy_(trained)
    task.settle(model, data)
    assert torch.equal(model.get_head().bias, trained)


def test_labels_above_their_thresholds_are_ranked():
    logits = torch.tensor([[2.0, 0.0, -1.0], [-5.0, -5.0, -5.0]])
    first, second = rank_classes([logits], (0.9, 0.4, 0.2), None)
    assert (first.numbers, second.numbers) == ([1, 2], [])
    assert rank_classes([logits], (0.5, 0.4, 0.2), 1)[0].numbers == [0]
    assert rank_classes([logits], None, 2)[0].probabilities == pytest.approx(logits[0].softmax(0)[:2].tolist())


class TestContract(TaskContract):
    name = "classification.multi_label"
    preset = Preset(image_size=64, batch_size=2, seed=3, labels="multi")

    @pytest.fixture
    def prepared(self, table):
        data = open_data(table, labels="multi")
        model = zoo.get(NAME, num_classes=4)
        task_of(self.name).settle(model, data)
        return data, model
