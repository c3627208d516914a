import json

import pytest
import torch

import zoo
from coloured_folder import write_coloured
from stopping import equal
from zoo.errors import InputError
from zoo.files.safetensors import read_tensors
from zoo.training.soup import mean_of

TINY = {"batch_size": 6, "image_size": 32, "num_workers": 0, "progress": False, "device": "cpu", "epochs": 2}


@pytest.fixture(scope="module")
def runs(images, tmp_path_factory):
    """Heads of three seeds; the last run has trained its norms, too."""
    out = tmp_path_factory.mktemp("runs")
    options = [{"seed": 0}, {"seed": 1}, {"seed": 2, "mode": "full"}]
    models = [zoo.get("timm/test_resnet", num_classes=3, seed=3) for _ in options]
    return [
        zoo.finetune(model, images, lr=0.05, out=out / f"{number}", **TINY | option)
        for number, (model, option) in enumerate(zip(models, options, strict=True))
    ]


def test_the_mean_is_exact_and_what_is_frozen_stays_bit_for_bit(runs, tmp_path):
    found = zoo.average([run.folder for run in runs[:2]], out=tmp_path / "mean", progress=False)
    first, second = (run.model.state_dict() for run in runs[:2])
    for name, value in found.model.state_dict().items():
        if name.startswith("fc."):
            assert torch.equal(value, ((first[name].double() + second[name].double()) / 2).float())
        else:
            assert torch.equal(value, first[name])
    assert found.norms == 0
    assert found.evaluation.loss != runs[0].evaluation.loss
    assert {str(member.run): member.evaluation.top1 for member in found.members} == {
        str(run.folder): run.evaluation.top1 for run in runs[:2]
    }
    opened = zoo.load(found.folder)
    assert equal(found.model.state_dict(), opened.state_dict())
    assert json.loads((found.folder / "average.json").read_text())["scores"]["top1"] == found.evaluation.top1


def test_norms_that_moved_get_new_statistics_and_a_worse_run_is_left_out(runs, tmp_path):
    folders = [run.folder for run in (runs[0], runs[2])]
    found = zoo.average(folders, out=tmp_path / "mean", progress=False)
    assert found.norms > 0
    plain = mean_of([read_tensors(folder / "model.safetensors") for folder in folders])
    now = found.model.state_dict()
    assert torch.equal(now["conv1.0.weight"], plain["conv1.0.weight"])
    assert not torch.equal(now["bn1.running_mean"], plain["bn1.running_mean"])
    greedy = zoo.average(folders, out=tmp_path / "greedy", greedy=True, progress=False)
    assert greedy.evaluation.score >= max(member.evaluation.score for member in greedy.members)
    assert greedy.members[0].is_used


def test_what_has_no_mean_is_refused(runs, images, tmp_path):
    other = zoo.finetune("timm/test_vit", images, pretrained=False, out=tmp_path / "vit", **TINY | {"epochs": 1})
    more = write_coloured(tmp_path / "more", train=7, val=2)
    model = zoo.get("timm/test_resnet", num_classes=3, seed=3)
    moved = zoo.finetune(model, more, out=tmp_path / "moved", **TINY | {"epochs": 1})
    for pair, text in (
        ((runs[0].folder, other.folder), "differ in model"),
        ((runs[0].folder, runs[0].folder), "expected two different runs"),
        ((runs[0].folder, moved.folder), "were trained on different images"),
    ):
        with pytest.raises(InputError, match=text):
            zoo.average(pair, out=tmp_path / "mean", progress=False)
    assert not (tmp_path / "mean").exists()
