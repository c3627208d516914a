import hashlib
import json

import pytest

import zoo
from coloured_folder import write_coloured
from stopping import StopAfter, equal
from zoo.errors import InputError, Interrupted
from zoo.files.safetensors import read_tensors

TINY = {"batch_size": 4, "image_size": 32, "num_workers": 0, "device": "cpu", "mode": "full", "augment": "none"}
NAME = "timm/test_resnet"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_coloured(tmp_path_factory.mktemp("images"), train=4, val=2)


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    return zoo.finetune(zoo.get(NAME, num_classes=3), images, out=out, epochs=2, lr=0.01, progress=False, **TINY).folder


class FirstWeights(zoo.Callback):
    def on_start(self, run):
        self.tensors = {name: value.clone() for name, value in run.model.state_dict().items()}


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("step", [3, 4])
def test_an_interrupted_run_under_a_constant_rate_is_the_longer_run_bit_for_bit(images, tmp_path, step):
    options = TINY | {"lr": 0.01, "optimizer": "AdamW", "schedule": "constant", "warmup_epochs": 0, "progress": False}
    whole = zoo.finetune(zoo.get(NAME, num_classes=3), images, out=tmp_path / "whole", epochs=3, **options)
    model = zoo.get(NAME, num_classes=3)
    with pytest.raises(Interrupted):
        zoo.finetune(model, images, out=tmp_path / "cut", epochs=2, callbacks=StopAfter(step), **options)
    before = digests(tmp_path / "cut")
    run = zoo.resume(tmp_path / "cut", epochs=3, out=tmp_path / "more", progress=False)
    assert equal(whole.model.state_dict(), run.model.state_dict())
    assert (tmp_path / "more" / "rates.csv").read_text() == (tmp_path / "whole" / "rates.csv").read_text()
    assert digests(tmp_path / "cut") == before, "the folder of the parent is left as it is"
    parent = json.loads((tmp_path / "more" / "parent.json").read_text())
    assert parent["run"] == str(tmp_path / "cut")
    assert (parent["epochs"], parent["file"], parent["sha256"]) == (2, "state.pt", before["state.pt"])
    assert parent["position"]["step"] == step
    assert (run.preset.epochs, len(run.metrics)) == (3, 3)
    assert zoo.resume(tmp_path / "cut", progress=False).preset.epochs == 2, "and it can still go on by itself"


def test_a_finished_run_goes_on_from_its_weights(images, finished, tmp_path, capsys):
    before, first = digests(finished), FirstWeights()
    run = zoo.resume(finished, epochs=4, out=tmp_path / "more", callbacks=first)
    assert equal(read_tensors(finished / "last.safetensors"), first.tensors)
    assert digests(finished) == before
    assert [record["epoch"] for record in run.metrics] == [1, 2, 3, 4]
    assert run.metrics[:2] == [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert len((run.folder / "rates.csv").read_text().splitlines()) == 1 + run.plan.clock.steps
    told = capsys.readouterr().out
    assert f"continuing {finished} after 2 of 2 epochs as a new run, up to 4" in told
    assert "the weights of its last epoch are trained with a new optimizer" in told
    was, now = 0.0001, run.plan.rates(run.plan.clock.steps // 2)["default"]
    assert f"schedule cosine over 4 epochs instead of 2: learning rate of default after epoch 2 is {now:.3g}" in told
    assert now > 10 * was
    parent = json.loads((run.folder / "parent.json").read_text())
    assert (parent["file"], parent["sha256"]) == ("last.safetensors", before["last.safetensors"])
    assert zoo.load(run.folder).classes == zoo.load(finished).classes


def test_the_best_weights_so_far_stay_the_best(images, tmp_path):
    options = TINY | {"keep": "best", "lr": 0.01, "progress": False}
    run = zoo.finetune(zoo.get(NAME, num_classes=3), images, out=tmp_path / "run", epochs=2, **options)
    best = max(record["top1"] for record in run.metrics)
    longer = zoo.resume(run.folder, epochs=3, out=tmp_path / "more", progress=False)
    assert longer.evaluation.top1 == max([best, longer.metrics[-1]["top1"]])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"epochs": 2}, r"was trained for 2 epochs, but epochs is 2. Expected the total"),
        ({"epochs": 1}, r"Expected the total number of epochs, more than"),
        ({"out": "there"}, r"a resumed run stays in its own folder"),
    ],
)
def test_what_cannot_be_gone_on_with(finished, tmp_path, monkeypatch, options, text):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=text):
        zoo.resume(finished, progress=False, **options)
    assert not list(tmp_path.iterdir())


def test_a_longer_run_that_is_interrupted_is_resumed_in_its_own_folder(images, finished, tmp_path):
    whole = zoo.resume(finished, epochs=4, out=tmp_path / "whole", progress=False)
    with pytest.raises(Interrupted):
        zoo.resume(finished, epochs=4, out=tmp_path / "cut", progress=False, callbacks=StopAfter(8))
    run = zoo.resume(tmp_path / "cut", progress=False)
    assert equal(whole.model.state_dict(), run.model.state_dict())
    assert json.loads((run.folder / "parent.json").read_text())["run"] == str(finished)
