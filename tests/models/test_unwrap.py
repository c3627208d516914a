"""What is handed over as a model: wrappers are taken off, once and told, so that a run can be opened again."""

import warnings

import pytest
import torch
from torch import nn

import zoo
from coloured_folder import write_coloured
from zoo.errors import InputError
from zoo.exporters._package import pack
from zoo.models.unwrap import take_model

TINY = "timm/test_resnet"
OPTIONS = {"epochs": 1, "image_size": 32, "num_workers": 0, "progress": False, "batch_size": 4}
compiled = torch.compile


def compile_a_part(model):
    model.layer1 = compiled(model.layer1)
    return model


def compile_in_place(model):
    model.layer1.compile()
    return model


WRAPPERS = {
    "compiled": (compiled, "torch.compile"),
    "parallel": (nn.DataParallel, "DataParallel"),
    "both": (lambda model: compiled(nn.DataParallel(model)), "torch.compile and DataParallel"),
    "both ways": (lambda model: nn.DataParallel(compiled(model)), "DataParallel and torch.compile"),
    "a part": (compile_a_part, "torch.compile"),
    "in place": (compile_in_place, "torch.compile"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_coloured(tmp_path_factory.mktemp("data"), train=3, val=1, size=16)


def make():
    return zoo.get(TINY, num_classes=3)


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_are_taken_off_and_told(name):
    wrap, words = WRAPPERS[name]
    model = make()
    names = list(model.state_dict())
    with pytest.warns(UserWarning, match=rf"the model is wrapped in {words}; using the Classifier inside"):
        assert take_model(wrap(model)) is model
    assert list(model.state_dict()) == names
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert take_model(model) is model


@pytest.mark.parametrize("name", ["compiled", "both"])
def test_a_run_of_a_wrapped_model_is_that_of_the_model(name, data, tmp_path):
    plain = zoo.finetune(make(), data, 0.1, out=tmp_path / "plain", **OPTIONS)
    with pytest.warns(UserWarning, match=r"Pass compile=True to train with torch"):
        run = zoo.finetune(WRAPPERS[name][0](make()), data, {"fc": 0.1, "default": 0}, out=tmp_path / "run", **OPTIONS)
    loaded = zoo.load(run.folder)
    for key, value in plain.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    assert zoo.evaluate(run.folder, data, progress=False).top1 == plain.evaluation.top1


def test_every_door_takes_wrappers_off(data, tmp_path):
    run = zoo.finetune(make(), data, 0.1, out=tmp_path / "run", **OPTIONS)
    with pytest.warns(UserWarning, match="is wrapped in DataParallel"):
        assert zoo.plan(nn.DataParallel(make()), 0.1) == zoo.plan(make(), 0.1)
    with pytest.warns(UserWarning, match="is wrapped in DataParallel"):
        assert zoo.evaluate(nn.DataParallel(run.model), data, progress=False).top1 == run.evaluation.top1
    with pytest.warns(UserWarning, match="is wrapped in DataParallel"):
        loaded = zoo.load(run.folder, nn.DataParallel(make()))
    assert torch.equal(loaded.fc.weight, run.model.fc.weight)
    (tmp_path / "packed").mkdir()
    with pytest.warns(UserWarning, match="is wrapped in DataParallel"):
        assert pack(nn.DataParallel(run.model), tmp_path / "packed", repo="somebody/tiny").model == TINY


def test_other_things_are_refused():
    with pytest.raises(
        InputError, match=r"model is a str; expected a model from zoo\.get or any nn\.Module\. Pass zoo\.get\('x',"
    ):
        take_model("x")
    for block in (torch.no_grad, torch.inference_mode):
        with block(), pytest.raises(InputError, match="gradients are disabled here"):
            zoo.finetune(nn.Linear(2, 2), "nowhere", 0.1)
        with block():
            take_model(nn.Linear(2, 2))
