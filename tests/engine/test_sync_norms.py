import copy

import pytest
import torch
from timm.layers import SyncBatchNormAct
from torch import nn

import zoo
from zoo.engine.sync_norms import restore_norms, synchronize_norms
from zoo.optim.freeze import apply_plan, keep_norm_statistics

GPU = torch.device("cuda")


class OwnNorm(nn.BatchNorm2d):
    """One that may compute anything."""


def classes(model):
    return [(name, type(module)) for name, module in model.named_modules()]


def synchronised(model):
    return [name for name, module in model.named_modules() if isinstance(module, nn.SyncBatchNorm)]


@pytest.fixture(scope="module")
def mobilenet():
    return zoo.get("mobilenetv2_050", num_classes=3)


@pytest.fixture
def model(mobilenet):
    yield mobilenet
    restore_norms(mobilenet)


@pytest.fixture
def said():
    return []


def test_only_norms_that_learn_are_synchronised(model, said):
    apply_plan(model, zoo.plan(model, {"default": 0.0, "conv_head": 0.1, "bn2": 0.1, "classifier": 0.1}))
    assert synchronize_norms(model, GPU, 2, said.append) == synchronised(model) == ["bn2"]
    assert type(model.bn2) is SyncBatchNormAct
    assert not model.bn2.training, "the mode is as it was"
    assert said == ["1 batch norms are synchronised across all 2 processes"]


def test_none_is_where_statistics_are_kept(model, said):
    apply_plan(model, zoo.plan(model, 0.1, mode="full"))
    keep_norm_statistics(model)
    before = classes(model)
    assert synchronize_norms(model, GPU, 2, said.append) == said == []
    assert classes(model) == before


def test_what_is_unfrozen_later_joins(model, said):
    plan = zoo.plan(model, 0.1, unfreeze={"1": "bn2", "3": "default"})
    chosen = []
    for epoch in (0, 1, 3):
        apply_plan(model, plan, epoch)
        chosen.append(synchronize_norms(model, GPU, 4, said.append))
        assert synchronised(model) == chosen[-1]
    assert chosen[:2] == [[], ["bn2"]]
    assert set(chosen[2]) == {name for name, _ in model.named_modules() if f"{name}.running_mean" in model.state_dict()}


@pytest.mark.usefixtures("small_detector")
@pytest.mark.parametrize("name", ["mobilenetv2_050", "resnet18", "yolo_nas_s"])
def test_modules_parameters_names_and_hooks_stay(said, name):
    model = zoo.get(name, num_classes=3)
    model.eval()
    first = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    calls = []
    first.register_forward_hook(lambda *_: calls.append(1))
    images = torch.rand(2, 3, 64, 64)
    before, kinds = dict(model.state_dict(keep_vars=True)), classes(model)
    modules = list(model.modules())
    with torch.inference_mode():
        expected = model(images)
        assert synchronize_norms(model, GPU, 2, said.append)
        during = model(images)  # in eval mode it runs on any device
    assert len(calls) == 2
    for one in (model, restored(model)):
        after = one.state_dict(keep_vars=True)
        assert list(after) == list(before)
        assert all(after[key] is before[key] for key in before)
        assert all(new is old for new, old in zip(one.modules(), modules, strict=True))
    assert classes(model) == kinds
    assert not any("process_group" in module.__dict__ for module in model.modules())
    with torch.inference_mode():
        torch.testing.assert_close([during, model(images)], [expected, expected], rtol=0, atol=0)


def restored(model):
    restore_norms(model)
    return model


def test_a_copy_can_be_restored_too(model, said):
    apply_plan(model, zoo.plan(model, 0.1, mode="full"))
    kinds = classes(model)
    assert synchronize_norms(model, GPU, 2, said.append)
    twin = copy.deepcopy(model)
    assert synchronised(twin) == synchronised(model)
    assert classes(restored(twin)) == classes(restored(model)) == kinds


def test_a_norm_of_two_owners_is_changed_for_both(said):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
    model.append(model[1])
    synchronize_norms(model, GPU, 2, said.append)
    assert type(model[3]) is nn.SyncBatchNorm
    assert model[3] is model[1]
    assert type(restored(model)[3]) is nn.BatchNorm2d


def test_one_process_needs_none_of_it(model, said):
    apply_plan(model, zoo.plan(model, 0.1, mode="full"))
    assert synchronize_norms(model, GPU, 1, said.append) == said == synchronised(model) == []


def test_on_the_cpu_it_is_said_that_it_is_not_done(said):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    assert synchronize_norms(model, torch.device("cpu"), 2, said.append) == synchronised(model) == []
    assert said == ["note: 1 batch norms use per-process statistics (they are synchronised on GPUs only; this is cpu)"]


def test_classes_that_may_compute_anything_stay_and_are_named(said):
    model = nn.Sequential(OwnNorm(4), nn.SyncBatchNorm(4), nn.InstanceNorm2d(4, track_running_stats=True))
    kinds = classes(model)
    assert synchronize_norms(model, GPU, 2, said.append) == []
    assert said == ["note: custom batch norm classes are not synchronised: OwnNorm"]
    assert classes(restored(model)) == kinds, "nor is one restored that was synchronised by somebody else"
