import json
import math

import pytest
import torch
from PIL import Image

import zoo
from boxed_folder import write_boxed
from stopping import StopAfter, equal
from tasks.contract import TaskContract
from zoo.data.letterbox import Letterbox
from zoo.errors import DataError, InputError, Interrupted, PresetError
from zoo.files.safetensors import read_tensors
from zoo.settings.preset import Preset
from zoo.tasks.detection.batches import BoxTargets
from zoo.tasks.detection.task import Detection, _join_rows, _split_rows

pytestmark = pytest.mark.usefixtures("small_detector")

OPTIONS = {"image_size": 64, "batch_size": 4, "device": "cpu", "num_workers": 0, "progress": False}
DRAWN = {"epochs": 2, "mosaic": 0.5, "plain_epochs": 1, "sampler": "repeat", "repeat_threshold": 1.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_boxed(tmp_path_factory.mktemp("data"), train=9, val=3)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory, drawn):
    model = zoo.get("yolo_nas_s", num_classes=2)
    out = tmp_path_factory.mktemp("runs") / "run"
    with drawn():
        return zoo.finetune(model, data, 0.002, out=out, **OPTIONS, **DRAWN)


def test_a_run_leaves_scores_and_images(run, data):
    assert [record["epoch"] for record in run.metrics] == [1, 2]
    for record in run.metrics:
        assert {"loss", "val_loss", "map", "map50"} <= record.keys()
    names = {path.name for path in (run.folder / "pictures").iterdir()}
    course = {"curves.png", "rates.png"}
    assert names == course | {"first_batch.png", "predictions.png", "precision_recall.png", "class_ap.png"} | {
        "by_confidence.png",
        "confusion.png",
    }
    for name in names:
        with Image.open(run.folder / "pictures" / name) as image:
            assert len(image.convert("L").getcolors()) > 10
    kept = json.loads((run.folder / "data.json").read_text())
    assert kept["class_map"] == [[0, "blue"], [1, "red"]]
    factors = {name: math.sqrt(9 / images) for name, images in kept["images_per_class"].items()}
    assert kept["repeat_factors"] == pytest.approx(factors)
    assert run.metrics[-1]["step"] == 2 * 3  # of 4 images, where each image once would be 2 steps
    assert run.evaluation.images == 3
    assert run.evaluation.boxes == 4


def test_the_heads_learn_and_the_rest_does_not_move(run):
    fresh, trained = zoo.get("yolo_nas_s", num_classes=2).state_dict(), run.model.state_dict()
    moved = {name.split(".")[0] for name in fresh if not torch.equal(fresh[name], trained[name])}
    assert moved == {"heads"}
    assert len(run.proof["digests"]) == len([name for name in fresh if not name.startswith("heads.")])


def test_the_folder_gives_the_same_model_back(run, data):
    model, images = zoo.load(run.folder), torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        for mine, theirs in zip(model(images).predictions, run.model(images).predictions, strict=True):
            assert torch.equal(mine, theirs)
    assert model.preprocess == Letterbox().resized(64).replace(decode="fast")
    assert model.classes == ("blue", "red")
    again = zoo.evaluate(run.folder, data, device="cpu", progress=False)
    assert again.map == run.evaluation.map
    assert again.loss == pytest.approx(run.evaluation.loss, abs=1e-6)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_resumed_run_is_the_uninterrupted_run(run, data, tmp_path, steps):
    model = zoo.get("yolo_nas_s", num_classes=2)
    options = OPTIONS | DRAWN | {"callbacks": StopAfter(steps)}
    with pytest.raises(Interrupted, match=r"everything is saved"):
        zoo.finetune(model, data, 0.002, out=tmp_path / "run", **options)
    resumed = zoo.resume(tmp_path / "run", progress=False)
    first, second = (read_tensors(place / "model.safetensors") for place in (run.folder, resumed.folder))
    assert equal(first, second)
    assert resumed.evaluation.map == run.evaluation.map


def test_all_of_it_learns_with_an_average_and_at_several_scales(data, tmp_path):
    model = zoo.get("yolo_nas_s", num_classes=2)
    options = OPTIONS | {"mode": "full", "optimizer": "AdamW", "epochs": 2, "keep": "best", "precision": "bf16"}
    options |= {"ema_decay": 0.9, "ema_warmup": True, "multi_scale": 0.5, "mixup": 0.5, "flip_probability": 0.0}
    made = zoo.finetune(model, data, 0.001, out=tmp_path / "run", loss_params={"assigner": "static"}, **options)
    assert made.evaluation.map == max(record["map"] for record in made.metrics)
    assert made.preset.loss_params == {"assigner": "static"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label_smoothing": 0.1}, r"label_smoothing is 0\.1, which does not apply to a detector"),
        ({"augment": "trivial"}, r"augment is 'trivial', which is for classifiers"),
        ({"cache": "memory"}, "cache=memory is not possible: augmentation changes the images every epoch"),
        (
            {"cache": "disk", "augment": "none", "multi_scale": 0.3},
            r"not possible: the input size changes with every batch \(multi_scale\)\. Use",
        ),
        (
            {"views": 2, "mosaic": 0.5, "plain_epochs": 1, "epochs": 2},
            "views is 2 and plain_epochs 1: with views, the same images repeat",
        ),
        ({"loss_params": {"asigner": "static"}}, r"asigner"),
        ({"image_size": 100}, r"multiples? of 32"),
    ],
)
def test_what_a_detector_cannot_do_is_told_before_anything_is_written(data, tmp_path, fields, message):
    model = zoo.get("yolo_nas_s", num_classes=2)
    with pytest.raises((InputError, PresetError), match=message):
        zoo.finetune(model, data, 0.01, out=tmp_path / "run", **OPTIONS | {"epochs": 1} | fields)
    assert not (tmp_path / "run").exists()


def test_data_of_another_kind_or_class_count_is_told(data, tmp_path):
    with pytest.raises(InputError, match=r"the data has 2 classes, but the model has 3 outputs"):
        zoo.finetune(zoo.get("yolo_nas_s", num_classes=3), data, 0.01, out=tmp_path / "run", epochs=1, **OPTIONS)
    for folder in ("train/a", "train/b"):
        (tmp_path / "plain" / folder).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "plain" / folder / "x.png")
    with pytest.raises(DataError, match=r"data\.yaml"):
        zoo.finetune(zoo.get("yolo_nas_s", num_classes=2), tmp_path / "plain", 0.01, epochs=1, **OPTIONS)


def test_evaluation_is_in_pixels_of_the_images(data):
    task, model = Detection(), zoo.get("yolo_nas_s", classes=("blue", "red"))
    task.check_options(Preset(mosaic=0.3))
    model.preprocess = Letterbox().resized(96)
    result = zoo.evaluate(model, data, split="train", device="cpu", progress=False)
    assert (result.images, result.boxes) == (9, 16)
    assert result.map_large is None  # squares of 12 to 25 px are small, whatever the network's input


def heads_on_features(data, out, cache, **fields):
    model = zoo.get("yolo_nas_s", num_classes=2)
    options = OPTIONS | {"optimizer": "SGD", "epochs": 2, "clip_grad_norm": 10.0} | fields
    return zoo.finetune(model, data, 0.1, cache=cache, out=out, **options)


@pytest.mark.parametrize("fields", [{"augment": "none"}, {"views": 2, "mosaic": 0.5, "photometric": 0.5}], ids=str)
def test_heads_learn_the_same_on_kept_maps(data, tmp_path, fields):
    """In float32 within a thousandth of how far the weights have moved; as float16 within a tenth."""
    plain = heads_on_features(data, tmp_path / "plain", "off", **fields)
    exact = heads_on_features(data, tmp_path / "exact", "disk", cache_dtype="float32", **fields)
    half = heads_on_features(data, tmp_path / "half", "memory", **fields)
    begin, weights = zoo.get("yolo_nas_s", num_classes=2).state_dict(), plain.model.state_dict()
    names = [name for name, _ in plain.model.named_parameters() if name.startswith("heads.")]
    moved = max(float((weights[name] - begin[name]).abs().max()) for name in names)
    assert moved > 1e-4
    for run, share in ((exact, 1e-3), (half, 0.1)):
        for name in names:
            torch.testing.assert_close(run.model.state_dict()[name], weights[name], rtol=0, atol=share * moved)
    for run in (exact, half):
        assert run.metrics[-1]["loss"] == pytest.approx(plain.metrics[-1]["loss"], rel=1e-3)
        assert run.metrics[-1]["val_loss"] == pytest.approx(plain.metrics[-1]["val_loss"], rel=1e-3)
        assert (run.folder / "pictures" / "first_batch.png").exists()
    kept = json.loads((half.folder / "features.json").read_text())
    assert (kept["where"], kept["numbers"], kept["engine"]["fused"]) == ("memory", "float16", True)
    assert kept["bytes"] > 2 * sum(kept["images"]) * 64 * 64 * (24 / 64 + 48 / 256 + 96 / 1024)


def test_rows_and_targets_are_the_same_thing():
    rows = torch.tensor([[0, 1, 5, 5, 2, 2], [2, 0, 6, 6, 3, 3], [2, 1, 7, 7, 4, 4.0]])
    targets = BoxTargets(rows, torch.tensor([4, 8, 2]))
    split = _split_rows(targets)
    assert [len(part) for part in split] == [1, 0, 2]
    again = _join_rows(torch.cat(split), torch.tensor([1, 0, 2]), targets.indices)
    assert torch.equal(again.rows, rows)
    assert torch.equal(again.indices, targets.indices)


def test_the_worst_batch_has_the_largest_canvas_and_the_most_boxes(data):
    opened, model = zoo.open_data(data, task="detection"), zoo.get("yolo_nas_s", num_classes=2)
    model.preprocess = model.preprocess.resized(64)
    preset = Preset(multi_scale=0.5, mosaic=0.5, mixup=0.1)
    images, targets = Detection().make_worst_batch(model, opened, preset, 3)
    assert images.shape == (3, 3, 96, 96)
    assert torch.bincount(targets.rows[:, 0].long()).tolist() == [16, 16, 16]  # two boxes, four images, twice
    assert torch.isfinite(model.train().loss(model(images), targets.rows))


class TestContract(TaskContract):
    name = "detection"

    @pytest.fixture
    def prepared(self, data):
        return zoo.open_data(data, task="detection"), zoo.get("yolo_nas_s", num_classes=2)
