"""What an earlier version has written is as good as ever: runs, presets, a repository, kept features, exported weights.

`tests/fixtures/old_runs/README.md` says how it was made. With ZOO_TEST_EXACT=1, on the processor and with the libraries
that made it, every number has to be the same.
"""

import csv
import functools
import json
import os
import re
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import yolo_nas_fill
import zoo
from tools.cli import main
from zoo.models import registry
from zoo.settings import plan_rates

pytestmark = pytest.mark.numbers

ARCHIVES = Path(__file__).parents[1] / "fixtures" / "old_runs"
EXACT = os.environ.get("ZOO_TEST_EXACT") == "1"
RUNS = ["classifier", "heads", "own", "yolo_nas"]
NEAR = 2e-4  # the same on any processor: ten times what the instructions of an old one change
FAR = 1e-2  # where AdamW, or a deep detector, makes more of rounding: six times
TIMES = {"seconds", "seconds_left", "images_per_second", "waiting"}
RENAMED = {
    "chunk_size": "micro_batch_size",
    "fuse_trunk": "fuse_backbone",
    "trunk_precision": "backbone_precision",
}  # fields of presets: their name then, their name now


YOUNGER = {
    "final_lr_ratio": "solver: null\nl2: null\nhead_init: null\n",
    "ema_warmup": "swa_epochs: null\n",
    "label_smoothing": "class_weights: none\nfocal_gamma: null\nmulti_label_loss: bce\nsampler: shuffle\n"
    "repeat_threshold: 0.1\n",
    "crop_pct": "decode: full\n",
    "augment": "augment_magnitude: null\nrand_ops: null\n",
    "flip_probability": "vertical_flip: 0.0\nmax_rotation: 0.0\ncolor_jitter: 0.0\ngrayscale: 0.0\n"
    "random_erasing: 0.0\nmixup_alpha: 0.0\ncutmix_alpha: 0.0\n",
    "plain_epochs": "transform: null\nlabels: single\n",
    "skip_bad": "image_root: null\nexclude: null\n",
    "evaluate_every": "monitor: null\npatience: null\nmin_delta: 0.0\n",
    "keep": "log: []\n",
}  # fields that presets have had since, by the field that they follow


def with_new_names(text, *, full):
    """Return the text of a preset with today's names of its fields; a full one has the younger fields, too."""
    for old, new in RENAMED.items():
        text = re.sub(rf"^{old}:", f"{new}:", text, flags=re.MULTILINE)
    for before, fields in YOUNGER.items() if full else ():
        text, count = re.subn(rf"^{before}: .*\n", rf"\g<0>{fields}", text, flags=re.MULTILINE)
        assert count == 1
    return text


class OldNet(nn.Module):
    """The class of the run `own`."""

    def __init__(self, num_classes):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, stride=2), nn.GroupNorm(2, 8)
        self.conv2, self.norm2 = nn.Conv2d(8, 12, 3, stride=2), nn.GroupNorm(2, 12)
        self.fc1, self.fc2 = nn.Linear(12, 10), nn.Linear(10, num_classes)

    def forward(self, images):
        maps = self.norm1(self.conv1(images)).relu()
        maps = self.norm2(self.conv2(maps)).relu()
        return self.fc2(self.fc1(maps.mean((2, 3))).relu())


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    zoo.list_models()
    monkeypatch.setattr(registry, "_ENTRIES", registry.entries())
    zoo.register_model("old_net", preprocess={"image_size": 32})(OldNet)


@pytest.fixture(scope="module")
def unpack(tmp_path_factory):
    """Return a function that unpacks an archive once, for all tests of this file, and gives its folder."""
    root = tmp_path_factory.mktemp("old_runs")

    @functools.cache
    def unpack(name):
        with tarfile.open(ARCHIVES / f"{name}.tar.xz") as archive:
            archive.extractall(root / name, filter="data")
        return root / name

    yield unpack
    shutil.rmtree(root)


@pytest.fixture
def agree(record_property):
    """Return a function that compares what comes out with what is recorded, and notes the largest difference."""
    largest = 0.0

    def agree(ours, recorded, near=NEAR):
        nonlocal largest
        largest = max(largest, distance(ours, recorded))
        record_property("largest_difference", largest)
        assert largest <= (0.0 if EXACT else near)

    return agree


def distance(ours, recorded, place=""):
    """Return the largest difference of numbers, over their size if that is more than 1; all else has to be equal.

    A later version may say more: a key that was not recorded is passed over.
    """
    if isinstance(recorded, dict):
        assert ours.keys() >= recorded.keys(), place
        return max((distance(ours[key], value, f"{place}.{key}") for key, value in recorded.items()), default=0.0)
    if isinstance(recorded, list):
        assert len(ours) == len(recorded), place
        pairs = enumerate(zip(ours, recorded, strict=True))
        return max((distance(*pair, f"{place}[{number}]") for number, pair in pairs), default=0.0)
    if isinstance(recorded, torch.Tensor):
        assert (ours.dtype, ours.shape) == (recorded.dtype, recorded.shape), place
        return float(((ours.double() - recorded.double()).abs() / recorded.double().abs().clamp(min=1)).max())
    if isinstance(recorded, float) and isinstance(ours, float):
        return abs(ours - recorded) / max(1.0, abs(recorded))
    assert ours == recorded, place
    return 0.0


def outputs(model, size):
    with torch.no_grad():
        found = model(yolo_nas_fill.image("old runs", 2, size, size).float() / 255)
    tensors = (found,) if isinstance(found, torch.Tensor) else (found.raw.class_logits, found.predictions.boxes)
    return [tensor.flatten().tolist() for tensor in tensors]


def predict(model, images, recorded):
    """Predict on the images whose predictions are recorded."""
    paths = [str(images / path) for path in recorded["predictions"]]
    sure = {"conf": 0.3} if "boxes" in recorded["evaluation"] else {}
    found = model.predict(paths, **sure) if paths else []
    return dict(zip(recorded["predictions"], map(describe, found), strict=True))


def describe(found):
    if hasattr(found, "boxes"):
        return {"boxes": found.boxes.tolist(), "scores": found.scores.tolist(), "labels": found.labels.tolist()}
    return dict(zip(found.names, found.probabilities, strict=True))


def read(path):
    """Return a record of a run, without what time it took."""
    if path.suffix == ".csv":
        names, *rows = csv.reader(path.read_text().splitlines())
        return [names, *([float(value) for value in row] for row in rows)]
    if path.suffix == ".jsonl":
        records = [json.loads(line) for line in path.read_text().splitlines()]
        return [
            {RENAMED.get(key, key): value for key, value in record.items() if key not in TIMES} for record in records
        ]
    return json.loads(path.read_text())


def image_size(folder):
    return zoo.load_preset(str(folder / "preset.yaml")).image_size


def put_features(folder, cache):
    """Put kept features where they are looked for; return their folders by the number of images."""
    shutil.copytree(folder / "features", cache / "zoo" / "features")
    return {read(path / "about.json")["images"]: path for path in (cache / "zoo" / "features").iterdir()}


@pytest.mark.parametrize("name", RUNS)
def test_a_finished_run_gives_what_it_gave(name, unpack, agree):
    folder = unpack(name)
    run, images, recorded = folder / "finished", folder / "images", read(folder / "recorded.json")
    size, near = zoo.load_preset(run / "preset.yaml").image_size, FAR if name == "yolo_nas" else NEAR
    for model in (zoo.get(run), zoo.load(run)):
        agree(outputs(model, size), recorded["outputs"], near)
    agree(predict(model, images, recorded), recorded["predictions"], near)
    scores = zoo.evaluate(run, images, device="cpu", num_workers=0, progress=False)
    agree(scores.to_dict(), recorded["evaluation"], near)


@pytest.mark.parametrize("name", RUNS)
def test_an_interrupted_run_ends_as_the_whole_one_did(name, unpack, agree, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = unpack(name)
    if name == "heads":
        put_features(folder, tmp_path)
    run, whole, near = folder / "interrupted", folder / "finished", FAR if name == "classifier" else NEAR
    zoo.resume(run, folder / "images", progress=False)
    agree(load_file(run / "model.safetensors"), load_file(whole / "model.safetensors"), near)
    for record in ("metrics.jsonl", "rates.csv", "evaluation.json", "plan.json", "config.json"):
        agree(read(run / record), read(whole / record), near)
    assert read(run / "proof.json")["digests"] == read(whole / "proof.json")["digests"]
    assert read(run / "run.json")["status"] == "finished"
    assert not (run / "state.pt").exists()


def test_a_pushed_repository_opens(unpack, hub, agree):
    repository, recorded = unpack("pushed") / "repository", read(unpack("classifier") / "recorded.json")
    files = {
        path.relative_to(repository).as_posix(): path.read_bytes() for path in repository.rglob("*") if path.is_file()
    }
    hub.add("org/colours", files)
    for model in (zoo.get("org/colours"), zoo.load("org/colours")):
        agree(outputs(model, 32), recorded["outputs"])
        assert model.classes == ("blue", "green", "red")


def test_a_finished_run_is_pushed_as_it_was(unpack, hub):
    run, repository = unpack("classifier") / "finished", unpack("pushed") / "repository"
    zoo.push(run, "org/again", token="hf_writer", log=[].append)
    sent = hub.store.resolve("org/again", "main")[1]
    for name in ("model.safetensors", "config.json", "preset.yaml", "metrics.jsonl", "evaluation.json", "plan.json"):
        before = (repository / name).read_text("latin1")
        if name == "preset.yaml":
            before = with_new_names(before, full=True)
        assert sent[name].local.read_text("latin1") == before, name


def test_exported_weights_are_imported(unpack, hub, agree, capsys):
    folder = unpack("exported")
    assert main(["weights", "import", str(folder / "weights")]) == 0, capsys.readouterr().err
    model = zoo.get("timm/test_efficientnet", pretrained=True)
    agree(outputs(model, 32), read(folder / "recorded.json")["outputs"])


def test_kept_features_are_found_or_computed_to_the_same_values(unpack, agree, monkeypatch, tmp_path):
    folder = unpack("heads")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    old = put_features(folder, tmp_path)
    first, second = (learn_head(folder, tmp_path / name) for name in ("first", "second"))
    assert first["computed"] in (0, 30), "other versions have other keys"
    assert (second["computed"], second["keys"]) == (0, first["keys"])
    for key, count in zip(first["keys"], (18, 12), strict=True):
        (kept,) = (tmp_path / "zoo" / "features" / key[:32]).glob("*.safetensors")
        agree(load_file(kept), load_file(old[count] / kept.name))


def learn_head(folder, out):
    """Train the head of an old run once more; return what the run says of kept features."""
    preset = zoo.load_preset(folder / "finished" / "preset.yaml").replace(epochs=1)
    zoo.finetune(zoo.load(folder / "finished"), folder / "images", preset=preset, out=out, progress=False)
    return read(out / "features.json")


def test_presets_are_read_and_written_as_they_were(unpack):
    folder = unpack("presets")
    names = sorted(path.name for path in folder.glob("*.yaml"))
    assert len(names) == 80
    for name in names:
        text, preset = (folder / name).read_text(), zoo.load_preset(folder / name)
        full = ".full." in name
        assert preset.to_yaml(full=full) == with_new_names(text, full=full), name


def test_presets_mean_what_they_meant(unpack, agree):
    folder = unpack("presets")
    model, plans = zoo.get("timm/test_resnet", num_classes=3), read(folder / "plans.json")
    assert len(plans) == 40
    for name, recorded in plans.items():
        preset = zoo.load_preset(folder / f"{name}.yaml")  # some are for detectors, which zoo.plan would tell
        plan = plan_rates(model, preset, steps_per_epoch=7)
        assert plan.digest == recorded["digest"], name
        agree({step: plan.rates(int(step)) for step in recorded["rates"]}, recorded["rates"])
