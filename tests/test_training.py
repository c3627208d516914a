import os
import signal
import threading

import pytest
import torch
from torch import nn

import zoo
from coloured_folder import write_coloured
from zoo.errors import InputError
from zoo.preset import Preset
from zoo.training import StopRequest, training_params

TINY = {"epochs": 2, "batch_size": 4, "image_size": 32, "num_workers": 0, "progress": False, "device": "cpu"}
NAME = "timm/resnet10t"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_coloured(tmp_path_factory.mktemp("images"), train=6, val=3)


def test_the_first_interrupt_is_a_wish_and_the_second_a_command():
    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        assert not stop.asked
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_signals_are_left_alone():
    seen = []

    def enter():
        with StopRequest():
            seen.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]


def test_hooks_read_the_presets_fields_and_the_users_own():
    params = training_params(Preset(epochs=7, training_params={"multiply_backbone_lr": 0.1}))
    assert params.epochs == params["epochs"] == 7
    assert params.multiply_backbone_lr == 0.1


def test_loaders_train_and_evaluate(tmp_path):
    torch.manual_seed(0)
    targets = torch.arange(12) % 3
    pictures = torch.nn.functional.one_hot(targets, 3)[:, :, None, None] + 0.1 * torch.randn(12, 3, 8, 8)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(pictures, targets), batch_size=4)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    run = zoo.finetune(
        network, (loader, loader), lr={"default": 0.5}, optimizer="SGD", out=tmp_path / "run", **TINY | {"epochs": 20}
    )
    assert run.evaluation.top1 == 1
    assert run.evaluation.images == 12


def test_the_moving_average_is_what_is_scored_and_kept(images, tmp_path):
    options = {"lr": 0.1, "mode": "full", "optimizer": "SGD", **TINY}
    raw = zoo.finetune(zoo.get(NAME, num_classes=3), images, out=tmp_path / "raw", **options)
    slow = zoo.finetune(zoo.get(NAME, num_classes=3), images, out=tmp_path / "slow", ema_decay=0.999999, **options)
    start = zoo.get(NAME, num_classes=3).state_dict()["fc.weight"]
    assert torch.allclose(slow.model.state_dict()["fc.weight"], start, atol=1e-4)
    assert not torch.allclose(raw.model.state_dict()["fc.weight"], start, atol=1e-3)
    assert raw.metrics[-1]["loss"] == slow.metrics[-1]["loss"]


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_precision_and_accumulation_train(images, tmp_path, precision):
    run = zoo.finetune(
        zoo.get(NAME, num_classes=3), images, lr=0.05, out=tmp_path / "run", precision=precision, accumulate=2,
        clip_grad_norm=1.0, label_smoothing=0.1, augment="trivial", **TINY,
    )  # fmt: skip
    assert run.metrics[-1]["step"] == 2 * 3
    assert next(run.model.parameters()).dtype == torch.float32
    assert run.model(torch.randn(1, 3, 32, 32)).dtype == torch.float32


def test_norm_statistics_can_be_kept_in_a_full_fine_tune(images, tmp_path):
    model = zoo.get(NAME, num_classes=3)
    before = {name: value.clone() for name, value in model.named_buffers()}
    run = zoo.finetune(model, images, lr=0.05, mode="full", freeze_norm_stats=True, out=tmp_path / "run", **TINY)
    after = dict(run.model.named_buffers())
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_presets_size_and_crop_go_with_the_model(images, tmp_path):
    run = zoo.finetune(zoo.get(NAME, num_classes=3), images, lr=0.05, crop_pct=1.0, out=tmp_path / "run", **TINY)
    assert run.model.preprocess.image_size == 32
    assert zoo.load(run.folder).preprocess == run.model.preprocess
    assert run.model.preprocess.crop_pct == 1.0


def test_outputs_of_a_wrong_shape_are_told(images, tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 7))
    with pytest.raises(InputError, match=r"gives outputs of shape \(4, 7\) for 4 images; expected \(4, 3\)"):
        zoo.finetune(network, images, lr={"default": 0.1}, out=tmp_path / "run", **TINY)


def test_mixed_rates_show_each_group_once(images, tmp_path, capsys):
    zoo.finetune(
        zoo.get(NAME, num_classes=3), images, lr={"fc": 0.1, "layer4": 0.01, "default": 0}, out=tmp_path / "run",
        **TINY | {"progress": True, "epochs": 1},
    )  # fmt: skip
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch "))
    assert line.count("layer4") == line.count("fc") == 1
    assert "no decay" not in line
