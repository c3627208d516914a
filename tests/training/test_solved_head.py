import json
import os
import shutil
import signal

import pytest
import torch

import zoo
from coloured_folder import write_coloured
from zoo.errors import Interrupted, ZooError
from zoo.optim.solvers import penalty

TINY = {"batch_size": 6, "image_size": 32, "num_workers": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_coloured(tmp_path_factory.mktemp("images"), train=6, val=2)


def make_model():
    return zoo.get("timm/test_resnet", num_classes=3, seed=3)


def solve(images, out, **options):
    options = {"solver": "exact"} | TINY | options
    return zoo.finetune(make_model(), images, out=out, **options)


def gradient(model, images, l2):
    """The gradient of mean cross-entropy and penalty at the head of a model, on standardised features."""
    data, head = zoo.open_data(images), model.get_head()
    inputs, targets = [], []
    handle = head.register_forward_hook(lambda module, seen, output: inputs.append(seen[0]))
    for index in range(len(data.train)):
        image, target = data.train.read(index)
        model.predict([image])
        targets.append(target)
    handle.remove()
    features, labels = torch.cat(inputs).double(), torch.tensor(targets)
    scale = features.std(0, correction=0)
    scale[scale == 0] = 1
    weight = (head.weight.detach().double() * scale).requires_grad_()
    bias = (head.bias.detach().double() + (head.weight.detach().double() @ features.mean(0))).requires_grad_()
    logits = ((features - features.mean(0)) / scale) @ weight.T + bias
    (torch.nn.functional.cross_entropy(logits, labels) + l2 / 2 * weight.square().sum()).backward()
    return float(torch.cat([weight.grad.flatten(), bias.grad]).norm())


def test_the_head_of_a_run_is_at_its_optimum_and_the_rest_is_as_it_was(images, tmp_path, capsys):
    run = solve(images, tmp_path / "run", progress=True)
    said, solution = capsys.readouterr().out, json.loads((run.folder / "solution.json").read_text())
    assert "solved, not stepped" in said
    assert "head solved exactly: 18 rows" in said
    assert len(solution["path"]) >= 20
    assert gradient(run.model, images, solution["l2"]) < 1e-4, "float32 weights, features of a folded backbone"
    assert run.metrics[0]["lr"]["fc"] == 0.0
    before = make_model().state_dict()
    changed = [name for name, value in run.model.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["fc.weight", "fc.bias"]
    with pytest.raises(ZooError, match="solved, not trained in epochs"):
        zoo.resume(run.folder, epochs=3)
    again = zoo.load(run.folder).state_dict()
    repeated = zoo.finetune(
        make_model(), images, out=tmp_path / "again", preset=run.folder / "preset.yaml", progress=False
    )
    assert all(torch.equal(value, again[name]) for name, value in repeated.model.state_dict().items())


def test_a_run_that_is_stopped_or_killed_while_it_solves(images, tmp_path, monkeypatch):
    score, calls = penalty._score, []

    def observe(*args):
        calls.append(args)
        if len(calls) == 3:
            shutil.copytree(tmp_path / "whole", tmp_path / "killed", ignore=shutil.ignore_patterns("run.lock"))
        if (tmp_path / "stopped").exists():
            os.kill(os.getpid(), signal.SIGINT)
        return score(*args)

    monkeypatch.setattr(penalty, "_score", observe)
    whole = solve(images, tmp_path / "whole", progress=False)
    with pytest.raises(Interrupted, match="before the first step"):
        solve(images, tmp_path / "stopped", progress=False)
    assert not (tmp_path / "stopped").exists()
    resumed = zoo.resume(tmp_path / "killed", progress=False)
    assert all(torch.equal(value, resumed.model.state_dict()[name]) for name, value in whole.model.state_dict().items())


def test_every_view_of_an_image_is_a_row_and_weights_of_classes_count(images, tmp_path):
    plain = solve(images, tmp_path / "plain", l2=0.1, progress=False)
    views = solve(images, tmp_path / "views", l2=0.1, views=3, progress=False)
    weighted = solve(images, tmp_path / "weighted", l2=0.1, class_weights={"red": 5.0}, cache="off", progress=False)
    rows = [json.loads((run.folder / "solution.json").read_text())["rows"] for run in (plain, views, weighted)]
    assert rows == [18, 54, 18]
    biases = [run.model.get_head().bias for run in (plain, weighted)]
    assert not torch.allclose(*biases, atol=1e-3)


@pytest.mark.parametrize("options", [{"mode": "full"}, {"mode": "head", "cache": "off"}], ids=["full", "head"])
def test_training_starts_from_a_solved_head(images, tmp_path, options):
    seen = []

    class First(zoo.Callback):
        def on_start(self, run):
            seen.append(run.model.get_head().weight.detach().clone())

    options = {"solver": None, "head_init": "exact", "l2": 0.1, "lr": 0.001, "epochs": 2} | options
    zoo.finetune(make_model(), images, out=tmp_path / "run", callbacks=[First()], progress=False, **TINY, **options)
    solved = solve(images, tmp_path / "solved", l2=0.1, progress=False).model.get_head().weight
    torch.testing.assert_close(seen[0], solved, atol=1e-3, rtol=1e-2)


def test_few_images_are_told_apart_by_class_means(images, tmp_path, capsys):
    run = solve(images, tmp_path / "run", solver="prototype", progress=True)
    assert "head solved by class means" in capsys.readouterr().out
    assert run.evaluation.top1 == 1.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr": 0.1}, "lr has no effect"),
        ({"epochs": 5, "optimizer": "AdamW"}, "optimizer='AdamW', epochs=5: no effect"),
        ({"mode": "full"}, "mode is 'full'"),
        ({"solver": "prototype", "l2": 1.0}, "l2 is 1, which has no effect with solver=prototype"),
        ({"solver": None, "l2": 1.0}, "has no effect without solver"),
        ({"focal_gamma": 2.0}, "focal_gamma cannot be combined"),
        ({"augment": "crop-flip"}, "Set views"),
        ({"views": 2, "cache": "off"}, "cache=off keeps no versions"),
        ({"sampler": "balanced"}, "class_weights=balanced"),
        ({"labels": "multi"}, "one class per image"),
        ({"head_init": "exact"}, "Remove one of them"),
    ],
)
def test_what_a_solver_would_ignore_is_refused_before_anything_is_read(tmp_path, images, options, said):
    with pytest.raises(ZooError, match=said):
        solve(images, tmp_path / "run", progress=False, **options)
    assert not (tmp_path / "run").exists()


def test_a_head_of_two_layers_is_refused(images, tmp_path):
    model = make_model()
    model.fc = torch.nn.Sequential(torch.nn.Linear(model.num_features, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    with pytest.raises(ZooError, match="single linear layer"):
        zoo.finetune(model, images, out=tmp_path / "run", solver="exact", progress=False, **TINY)
