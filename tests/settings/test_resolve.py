import pytest
import torch
from torch import nn

from plan_nets import owners
from zoo.errors import InputError, PlanError, PresetError
from zoo.settings.files import parse_preset
from zoo.settings.preset import Preset
from zoo.settings.resolve import plan_rates, resolve_preset


class Plain(nn.Module):
    """A module without a mapping and without hooks."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)


def test_a_preset_may_be_a_mapping():
    effective = resolve_preset({"epochs": 3}, 0.1, None, {}, defaults={"batch_size": 16}).preset
    assert (effective.epochs, effective.batch_size, effective.lr) == (3, 16, 0.1)
    with pytest.raises(
        InputError, match=r"preset is a list; expected a preset name \(zoo\.list_presets\(\)\), the path of a YAML"
    ):
        resolve_preset([1], None, None, {})


def test_a_presets_warm_up_is_shortened_to_the_callers_epochs_and_it_is_said():
    assert Preset(warmup_epochs=2.0, epochs=9) == resolve_preset({"warmup_epochs": 2.0}, None, None, {"epochs": 9})[0]
    short = resolve_preset("detection-full", None, None, {"epochs": 1})
    assert (short.preset.epochs, short.preset.warmup_epochs) == (1, 0.5)
    assert short.notes == ("warmup_epochs is 0.5 instead of the preset's 1: the run is too short",)
    with pytest.raises(PresetError, match=r"Train for more epochs, or set warmup_epochs to 0\.5\."):
        resolve_preset("detection-full", None, None, {"epochs": 1, "warmup_epochs": 1.0})


def test_what_repeats_another_system_is_decoded_in_full_unless_it_says_otherwise():
    exact = Preset(compat="super-gradients")
    for preset, fields, decode in (
        (exact, {}, "full"),
        (Preset(), {"compat": "super-gradients"}, "full"),
        (exact, {"decode": "fast"}, "fast"),
        (exact.replace(decode="fast"), {"epochs": 3}, "fast"),
        (Preset(), {}, None),
    ):
        settled = resolve_preset(preset, None, None, fields).preset
        assert settled.decode == decode
        assert parse_preset(settled.to_yaml(), "again").decode == decode


def test_weights_that_the_caller_names_need_not_be_those_of_the_preset():
    preset = Preset(pretrained="old", pretrained_sha256="0" * 64)
    settled = resolve_preset(preset, None, None, {"pretrained": "new"}).preset
    assert (settled.pretrained, settled.pretrained_sha256) == ("new", None)
    assert resolve_preset(preset, None, None, {"epochs": 3}).preset.pretrained_sha256 == "0" * 64


@pytest.mark.parametrize("fields", [{"lr": 0.1}, {"mode": "full"}, {"order": []}, {"optimizer_params": {}}])
def test_what_the_groups_of_an_optimizer_say_is_not_given_again(fields):
    given = {"lr": None, "mode": None} | fields
    lr, mode = given.pop("lr"), given.pop("mode")
    with pytest.raises(
        PlanError, match=rf"has its own groups and learning rates, so {next(iter(fields))} cannot be set"
    ):
        resolve_preset(None, lr, mode, given, optimizer=torch.optim.SGD(Plain().parameters(), lr=0.1))


def test_an_optimizer_gives_the_preset_its_name():
    sgd = torch.optim.SGD(Plain().parameters(), lr=0.1)
    assert [resolve_preset(None, None, None, {}, optimizer=own)[:2] for own in ("adamw", torch.optim.Adam, sgd)] == [
        (Preset(optimizer="adamw"), None),
        (Preset(optimizer="Adam"), torch.optim.Adam),
        (Preset(), sgd),
    ]


@pytest.mark.parametrize(
    ("optimizer", "decay"), [("SGD", 1e-4), ("AdamW", 0.01), ("adam_w", 0.01), ("Adam", 0.0), ("Rprop", 0.0)]
)
def test_an_optimizer_keeps_its_own_decay_unless_told(optimizer, decay):
    made = plan_rates(Plain(), Preset(lr=0.1, optimizer=optimizer))
    assert owners(made)["fc.weight"].weight_decay == decay
    assert owners(made)["fc.bias"].weight_decay == owners(made)["bn.weight"].weight_decay == 0
    told = plan_rates(Plain(), Preset(lr=0.1, optimizer=optimizer, weight_decay=0.0))
    assert owners(told)["fc.weight"].weight_decay == 0
    everything = plan_rates(Plain(), Preset(lr=0.1, optimizer=optimizer, decay_norm_and_bias=True))
    assert {group.weight_decay for group in everything.groups} == {decay}


def test_a_class_of_ones_own_keeps_its_own_decay_too():
    assert owners(plan_rates(Plain(), Preset(), optimizer=torch.optim.AdamW))["fc.weight"].weight_decay == 0.01


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"mode": "full"}, "mode"),
        ({"lr": {"default": 0.1}}, "lr"),
        ({"unfreeze": {"1": "fc"}, "layer_decay": 0.5}, "layer_decay, unfreeze"),
        ({"weight_decay": 0.0}, "weight_decay"),
        ({"gradient_centralization": True}, "gradient_centralization"),
        ({"order": ["fc.bias"]}, "order"),
    ],
)
def test_what_an_optimizers_groups_say_already_is_refused(fields, named):
    model = Plain()
    with pytest.raises(
        PlanError, match=rf"the SGD has its own groups and learning rates, so the preset cannot set {named} as "
    ):
        plan_rates(model, Preset(**fields), optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
