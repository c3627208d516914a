import functools
import re
from typing import Any

import numpy as np
import pytest
import torch

from zoo.errors import PresetError
from zoo.rates.schedules import parse as schedule_module
from zoo.rates.schedules.parse import Clock, parse_schedule, register_schedule
from zoo.rates.spec import DecayEvery, GroupSettings
from zoo.settings.files import parse_preset
from zoo.settings.preset import Preset

SCHEDULERS = torch.optim.lr_scheduler


@pytest.fixture
def halving(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A registered function; after the test nobody knows it."""
    monkeypatch.setattr(schedule_module, "_REGISTERED", dict(schedule_module._REGISTERED))

    @register_schedule("halving")
    def halving(step: int) -> float:
        return 0.5**step

    return halving


def complaints(**values: Any) -> list[str]:
    """All complaints about these values."""
    with pytest.raises(PresetError) as caught:
        Preset(**values)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def reread(preset: Preset) -> Preset:
    return parse_preset(preset.to_yaml(), "x.yaml")


def test_a_key_has_to_be_a_text() -> None:
    expected = "a mapping of names to a number, 0 or more, or to settings (lr, lr_scale, schedule, ...)"
    assert complaints(lr={"default": 0.0, 3: 0.1}) == [
        f"lr is {{'default': 0.0, 3: 0.1}}; expected a number, 0 or more, or {expected}."
    ]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"lr_scal": 1}, "unknown key 'lr.fc.lr_scal'. Did you mean 'lr_scale'?"),
        ({"lr": [0.1, "x"]}, "lr.fc.lr.1 is 'x'; expected a number, 0 or more."),
        ({"lr_scale": None}, "lr.fc.lr_scale is None; expected a number, 0 or more."),
        ({"decay_every": 3}, "lr.fc.decay_every is 3; expected settings (steps, factor, start), or null."),
        ({"decay_every": {"steps": 3, "factor": 1, "stat": 2}}, "unknown key 'lr.fc.decay_every.stat'. Did you mean"),
        ({"optimizer_params": {"a": print}}, "lr.fc.optimizer_params is {'a': <built-in function print>}; expected a"),
        ({"schedule": {"kind": "cosine", "final_ration": 0.1}}, "lr.fc.schedule: unknown key 'final_ration'. Did you"),
        ({"weight_decay_schedule": {"kind": "polynomial", "power": -1}}, "lr.fc.weight_decay_schedule: power is -1"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], text: str) -> None:
    (found,) = complaints(lr={"default": 0.1, "fc": settings})
    assert found.startswith(text)


def test_settings_may_be_given_as_such_and_are_not_shared() -> None:
    params = {"betas": (0.9, 0.99)}
    settings = GroupSettings(lr=0.1, optimizer_params=params, decay_every=DecayEvery(steps=3, factor=0.5))
    preset = Preset(lr={"default": 0, "fc": settings})
    params["betas"] = (0.0, 0.0)
    assert isinstance(preset.lr, dict)
    assert preset.lr["fc"] == GroupSettings(
        lr=0.1, optimizer_params={"betas": [0.9, 0.99]}, decay_every=DecayEvery(steps=3, factor=0.5)
    )
    assert reread(preset) == preset


def test_a_file_holds_only_what_was_said_of_a_key() -> None:
    settings = {"lr": 0.1, "schedule": "step_down", "decay_every": {"steps": 3, "factor": 0.5}}
    settings["schedule"] = {"kind": "step", "every_steps": 3}
    assert Preset(lr={"default": 0, "fc": settings, "@norm": {"weight_decay": 0}}).to_yaml() == (
        "lr:\n  default: 0.0\n  fc:\n    lr: 0.1\n    schedule:\n      kind: step\n      every_steps: 3\n"
        "    decay_every:\n      steps: 3\n      factor: 0.5\n  '@norm':\n    weight_decay: 0.0\n"
    )


HOSTILE = [
    *(
        "no",
        "1e-3",
        "0",
        "~",
        "null",
        "a: b",
        "#x",
        "- y",
        "ünï.",
        "x" * 200,
        "two\nlines",
        "=",
        "{",
        "@norm",
        "a@conv",
    ),
]


def test_hostile_keys_come_back() -> None:
    settings = {
        "lr": [0.1, 1e-300, 0],
        "lr_scale": 0.5,
        "weight_decay_schedule": {"kind": "list", "values": [1.0, 0]},
        "gradient_centralization": False,
        "clip_grad_norm": 1e-9,
        "unfreeze_at": 0,
        "optimizer_params": {"momentum": None, "no": {"1e3": [True, "off"]}},
    }
    preset = Preset(lr={"default": 0.0} | dict.fromkeys(HOSTILE, settings))
    assert reread(preset) == preset
    assert reread(preset).to_yaml() == preset.to_yaml()
    assert isinstance(preset.lr, dict)
    assert set(preset.lr) == {"default", *HOSTILE}


def test_arrays_become_lists() -> None:
    preset = Preset(lr={"default": {"lr": np.array([0.1, 0.2])}}, schedule={"kind": "list", "values": np.ones(3)})
    assert preset.schedule == {"kind": "list", "values": [1.0, 1.0, 1.0]}
    assert reread(preset) == preset


@pytest.mark.parametrize(
    ("schedule", "texts"),
    [
        (None, ["schedule is None; expected a name such as 'cosine', a mapping with 'kind', a function"]),
        ({"kind": "polynomial", "power": 0, "x": 1}, ["schedule: power is 0; ", "schedule: unknown key 'x'."]),
        ({"kind": "rates", "values": np.zeros((2, 2))}, ["schedule: values.0 is [0.0, 0.0]; expected a list of"]),
    ],
)
def test_schedules_that_cannot_be(schedule: Any, texts: list[str]) -> None:
    found = complaints(schedule=schedule)
    assert len(found) >= len(texts)
    assert all(line.startswith(text) for line, text in zip(found, texts, strict=False)), found


def test_the_reference_knows_other_settings() -> None:
    ours, theirs = {"kind": "cosine", "warmup_steps": 3, "warmup_start": 0.5}, {"kind": "cosine", "warmup": "epoch"}
    assert Preset(schedule=ours).schedule == ours
    assert Preset(schedule=theirs, compat="super-gradients").schedule == theirs
    (found,) = complaints(schedule=ours, compat="super-gradients")
    assert found == "schedule: unknown key 'warmup_start'. Did you mean 'warmup_start_lr' or 'warmup_steps'?"
    (found,) = complaints(lr={"default": {"lr": 0.1, "schedule": ours}}, compat="super-gradients")
    assert found.startswith("lr.default.schedule: unknown key 'warmup_start'.")
    assert complaints(schedule=theirs)[0].startswith("schedule: warmup is 'epoch'; expected")


def test_a_registered_function_is_its_name(halving: Any) -> None:
    assert Preset(schedule=halving).schedule == "halving"
    assert reread(Preset(schedule=halving)) == Preset(schedule="halving") == Preset(schedule=halving)
    warm = Preset(schedule={"kind": "halving", "warmup_steps": 3})
    assert reread(warm) == warm


@pytest.mark.parametrize(
    ("schedule", "written"),
    [
        (
            functools.partial(SCHEDULERS.StepLR, step_size=3),
            {"kind": "torch", "scheduler": "StepLR", "step_size": 3, "per": "epoch"},
        ),
        (
            {"kind": "torch", "scheduler": functools.partial(SCHEDULERS.StepLR, step_size=3), "warmup_steps": 2},
            {"kind": "torch", "scheduler": "StepLR", "step_size": 3, "per": "epoch", "warmup_steps": 2},
        ),
    ],
)
def test_a_scheduler_of_torch_is_its_name_and_arguments(schedule: Any, written: dict[str, Any]) -> None:
    preset = Preset(schedule=schedule)
    assert preset.schedule == written
    assert reread(preset) == preset


def test_a_schedule_that_is_made_says_all() -> None:
    made = parse_schedule({"kind": "cosine", "final_ratio": 0.5}, {"warmup_steps": 3, "final_lr_ratio": 0.1})
    preset = reread(Preset(schedule=made))
    again = parse_schedule(preset.schedule, {"warmup_epochs": 0.5, "warmup_start": 0.4, "final_lr_ratio": 0.2})
    clock = Clock(2, 5)
    assert complaints(schedule=made, final_lr_ratio=0.2) == [
        "final_lr_ratio is 0.2, and schedule.final_ratio is 0.5. Remove one of them."
    ]
    assert [again.rate(step, clock, 0.1) for step in range(10)] == [made.rate(step, clock, 0.1) for step in range(10)]


def test_what_no_file_can_hold_stays_and_says_what_to_do() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    made = SCHEDULERS.StepLR(optimizer, 3)
    for value in (lambda step: 1.0, made, {"kind": "function", "function": len, "warmup_steps": 1}):
        preset = Preset(schedule=value, lr={"default": {"lr": 0.1, "schedule": value}}).replace(epochs=3)
        assert preset.schedule == value
        assert isinstance(preset.lr, dict)
        assert isinstance(preset.lr["default"], GroupSettings)
        assert preset.lr["default"].schedule == value
        with pytest.raises(PresetError, match=r" and cannot be saved to a file\. Pass it again") as caught:
            reread(preset)
        assert len(re.findall(r"line \d+: ", str(caught.value))) == 2
    named = Preset(schedule=lambda step: 1.0).to_yaml()
    assert named.startswith("schedule:\n  kind: function\n  name: test_what_no_file")
    with pytest.raises(PresetError, match=r"register it with @register_schedule\("):
        parse_preset(named, "x.yaml")


def test_epochs_may_be_numbers_and_become_texts() -> None:
    preset = Preset(unfreeze={3: "layer4", "06": ("layer3", "layer2")})  # type: ignore[dict-item]
    assert preset.unfreeze == {"3": "layer4", "6": ["layer3", "layer2"]}
    assert preset == parse_preset("unfreeze: {3: layer4, 6: [layer3, layer2]}", "x.yaml")


@pytest.mark.parametrize(
    ("unfreeze", "text"),
    [
        ({"soon": "fc"}, "unfreeze: 'soon' is not a whole number of epochs. Expected, for example, {3: [layer4]}."),
        ({1.5: "fc"}, "unfreeze: 1.5 is not a whole number of epochs."),
        ({-1: "fc"}, "unfreeze: -1 is not a whole number of epochs."),
        ({True: "fc"}, "unfreeze: True is not a whole number of epochs."),
        ({3: "fc", "03": "layer4"}, "unfreeze names epoch 3 twice. Put all of its prefixes into one list."),
        ({3: []}, "unfreeze.3 names no prefix. Expected, for example, {3: [layer4]}."),
        ({3: ["fc", ""]}, "unfreeze.3 names no prefix."),
        ({"3": ["fc", 1]}, "unfreeze.3.1 is 1; expected a string."),
        ({"3": None}, "unfreeze.3 is None; expected a string, or a list of strings."),
    ],
)
def test_unfreeze_points_that_cannot_be(unfreeze: Any, text: str) -> None:
    (found,) = complaints(unfreeze=unfreeze)
    assert found.startswith(text)


def test_a_list_of_rates_needs_no_name_around_it() -> None:
    preset = Preset(lr={"fc": [0.1, 0.05], "default": 0.0})
    assert preset == Preset(lr={"fc": {"lr": [0.1, 0.05]}, "default": 0.0})
    assert parse_preset(preset.to_yaml(), "here") == preset
