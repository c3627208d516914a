import json

import pytest
import torch
from torch import nn

import zoo
from stopping import StopAfter
from zoo.errors import InputError, Interrupted
from zoo.training.callbacks import Callback, RunHandle, call, check_callbacks


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, images):
        return self.head(self.trunk(images).mean((2, 3)))


class Batches:
    def __init__(self, count):
        generator = torch.Generator().manual_seed(1)
        self.batches = [(torch.randn(4, 3, 8, 8, generator=generator), torch.arange(4) % 2) for _ in range(count)]

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


class Diary(Callback):
    def __init__(self):
        self.entries = []

    def on_start(self, run):
        self.entries.append(("start", run.epoch, run.step))

    def on_epoch_start(self, run):
        self.entries.append(("epoch start", run.epoch, run.step))

    def on_step_end(self, run):
        assert run.rates["head"] == run.plan.rates(run.step - 1)["head"]
        assert isinstance(run.loss, float)
        self.entries.append(("step", run.epoch, run.step))

    def on_epoch_end(self, run):
        assert run.metrics[-1]["epoch"] == run.epoch
        self.entries.append(("epoch end", run.epoch, run.step))

    def on_end(self, run):
        self.entries.append(("end", run.epoch, run.step))


def finetune(tmp_path, callbacks, **options):
    settings = {"lr": {"head": 0.1, "default": 0.01}, "epochs": 2, "schedule": "constant", "warmup_epochs": 0}
    settings |= {"out": tmp_path / "run", "progress": False, "device": "cpu"} | options
    return zoo.finetune(Net(), (Batches(2), Batches(1)), callbacks=callbacks, **settings)


def test_the_five_moments_come_in_order(tmp_path):
    diary = Diary()
    finetune(tmp_path, [diary])
    assert diary.entries == [
        ("start", 0, 0),
        ("epoch start", 0, 0),
        ("step", 0, 1),
        ("step", 0, 2),
        ("epoch end", 1, 2),
        ("epoch start", 1, 2),
        ("step", 1, 3),
        ("step", 1, 4),
        ("epoch end", 2, 4),
        ("end", 2, 4),
    ]


def test_a_rate_set_by_a_callback_is_used_from_the_next_step_and_recorded(tmp_path):
    class Halve(Callback):
        def on_step_end(self, run):
            if run.step == 1:
                run.set_lr("head", 0.05)

    run = finetune(tmp_path, Halve())
    lines = (run.folder / "rates.csv").read_text().splitlines()
    column = lines[0].split(",").index('"head"')
    assert [float(line.split(",")[column]) for line in lines[1:]] == [0.1, 0.05, 0.05, 0.05]
    assert json.loads((run.folder / "rate_changes.json").read_text()) == [{"step": 1, "group": "head", "lr": 0.05}]
    plain = finetune(tmp_path, [], out=tmp_path / "plain")
    assert not (plain.folder / "rate_changes.json").exists()
    assert not torch.equal(plain.model.head.weight, run.model.head.weight)


def test_a_scheduled_group_cannot_be_set_and_the_run_says_so(tmp_path):
    class Set(Callback):
        def on_start(self, run):
            run.set_lr("head", 0.05)

    with pytest.raises(InputError, match=r"set_lr: 'head' follows a schedule from here on"):
        finetune(tmp_path, Set(), schedule="cosine")


def test_a_callback_may_end_the_run_early(tmp_path):
    class Stop(Callback):
        def __init__(self, step):
            self.step = step

        def on_step_end(self, run):
            if run.step == self.step:
                run.stop()

    for step, epochs in ((1, 0), (2, 1)):
        run = finetune(tmp_path, Stop(step), out=tmp_path / f"{step}", epochs=5)
        facts = json.loads((run.folder / "run.json").read_text())
        assert (facts["status"], facts["step"], facts["epoch"]) == ("finished", step, epochs)
        assert run.evaluation is not None
        assert not (run.folder / "state.pt").exists()
        assert (run.folder / "model.safetensors").exists()


def test_what_was_set_outlives_an_interruption(tmp_path):
    class Steps(StopAfter):
        def on_step_end(self, run):
            if run.step == 1:
                run.set_lr("head", 0.05)
            super().on_step_end(run)

    whole = finetune(tmp_path, Steps(), out=tmp_path / "whole", epochs=3)
    with pytest.raises(Interrupted):
        finetune(tmp_path, Steps(3), out=tmp_path / "cut", epochs=3)
    data = (Batches(2), Batches(1))
    resumed = zoo.resume(tmp_path / "cut", data, model=Net(), progress=False, callbacks=[Steps()])
    assert torch.equal(resumed.model.head.weight, whole.model.head.weight)
    for name in ("rates.csv", "rate_changes.json"):
        assert (resumed.folder / name).read_text() == (whole.folder / name).read_text()


def test_callbacks_are_checked():
    diary = Diary()
    assert check_callbacks(diary) == check_callbacks([diary]) == (diary,)
    with pytest.raises(InputError, match=r"got Diary itself; expected instances of zoo\.Callback"):
        check_callbacks([Diary])
    with pytest.raises(InputError, match=r"got function; expected instances"):
        check_callbacks(lambda run: None)


def test_call_reaches_every_callback_in_order(tmp_path):
    order = []

    class Named(Callback):
        def __init__(self, name):
            self.name = name

        def on_end(self, run):
            order.append(self.name)

    run = RunHandle(Net(), zoo.plan(Net(), {"default": 0.1}), tmp_path, 1)
    call([Named("a"), Named("b")], "on_end", run)
    call([Named("a"), Named("b")], "on_start", run)
    assert order == ["a", "b"]
