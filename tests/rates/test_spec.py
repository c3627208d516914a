import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from zoo.errors import PlanError
from zoo.rates.spec import (
    MOST_LISTED,
    DecayEvery,
    GroupSettings,
    Key,
    Prefixes,
    is_rate,
    parse_key,
    raise_all,
    read_rates,
    read_settings,
)


@pytest.mark.parametrize(
    ("text", "prefix", "kind"),
    [
        ("backbone.", "backbone.", None),
        ("@norm", "", "norm"),
        ("backbone@conv", "backbone", "conv"),
        ("backbone.@bias", "backbone.", "bias"),
        ("default", "", None),
        ("default.", "default.", None),
    ],
)
def test_a_key_is_a_prefix_a_kind_or_both(text, prefix, kind):
    assert parse_key(text) == Key(text, prefix, kind)


@pytest.mark.parametrize("text", ["", 3, None, ("a",)])
def test_a_key_that_is_no_text_is_refused(text):
    with pytest.raises(PlanError, match=r"is not a parameter-name prefix\. Expected, for example, 'head'"):
        parse_key(text)


@pytest.mark.parametrize("text", ["@nrm", "backbone@nrm", "backbone@norm@nrm"])
def test_an_unknown_kind_is_refused_with_those_that_are_known(text):
    with pytest.raises(PlanError, match=r"unknown layer kind '.*nrm'\. Did you mean 'norm'\? Known: conv, norm, li"):
        parse_key(text)


def test_the_default_has_no_kinds_and_settings_know_what_was_said():
    with pytest.raises(PlanError, match=r"key 'default@norm' means the same as '@norm'.* Use that\."):
        parse_key("default@norm")
    settings = GroupSettings(lr=0.1, lr_scale=1.0, schedule=None)
    assert settings.said == {"lr": 0.1, "lr_scale": 1.0}
    assert settings.model_dump() == {"lr": 0.1, "lr_scale": 1.0, "schedule": None}
    assert GroupSettings().said == GroupSettings().model_dump() == {}


def test_the_decay_of_oneflows_eager_loop_and_ours():
    """It multiplies after the batches 0, 10, 20: the rate of batch k is lr0 * factor^(1 + floor((k - 1) / 10))."""
    decay = DecayEvery(steps=10, factor=0.9, start=1)
    assert decay.multiplier(0) == 1
    for step in range(1, 100):
        assert decay.multiplier(step) == pytest.approx(0.9 ** (1 + (step - 1) // 10), rel=1e-15)
    decay = DecayEvery(steps=3, factor=0.5)
    assert [decay.count(step) for step in range(8)] == [0, 0, 0, 1, 1, 1, 2, 2]
    assert [decay.multiplier(step) for step in (0, 3, 6)] == [1, 0.5, 0.25]
    assert DecayEvery(steps=3, factor=0.5, start=0).count(0) == 1
    assert DecayEvery(steps=3, factor=0, start=2).multiplier(1) == 1
    assert DecayEvery(steps=3, factor=0, start=2).multiplier(2) == 0


@pytest.mark.parametrize(
    "values", [[0.5, 0.25], (0.5, 0.25), np.array([0.5, 0.25]), torch.tensor([0.5, 0.25]), np.float32([0.5, 0.25])]
)
def test_rates_of_every_step_may_be_a_list_a_tuple_an_array_or_a_tensor(values):
    assert GroupSettings(lr=values).lr == [0.5, 0.25]


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), torch.tensor(0.5), np.array(0.5)])
def test_one_rate_may_be_an_array_of_one_number(value):
    settings = GroupSettings(lr=value, lr_scale=value, weight_decay=value)
    assert (settings.lr, settings.lr_scale, settings.weight_decay) == (0.5, 0.5, 0.5)
    assert type(settings.lr) is float


def test_the_longest_prefix_is_found():
    prefixes = Prefixes(["conv", "conv2", "head."])
    assert prefixes.longest("conv1.weight") == "conv"
    assert prefixes.longest("conv2.weight") == "conv2"
    assert prefixes.longest("head.weight") == "head."
    assert prefixes.longest("head2.weight") is None
    assert prefixes.longest("con") is None
    assert prefixes.longest("a.weight", "conv2.weight", "conv.weight") == "conv2"
    assert Prefixes([]).longest("a") is None


def test_prefixes_agree_with_looking_at_all_of_them():
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("ab."), size=rng.integers(1, 6))) for _ in range(200)]
    prefixes = Prefixes(words[:50])
    for name in words[50:]:
        expected = max((word for word in words[:50] if name.startswith(word)), key=len, default=None)
        assert prefixes.longest(name) == expected


def test_rates_settings_and_mappings_of_settings_are_read():
    spec = read_rates({"a": 1, "b": {"lr": 0.5, "unfreeze_at": 2}, "c": GroupSettings(lr_scale=2.0), "default": 0})
    assert [settings.said for settings in spec.values()] == [
        {"lr": 1.0},
        {"lr": 0.5, "unfreeze_at": 2},
        {"lr_scale": 2.0},
        {"lr": 0.0},
    ]
    assert list(spec) == ["a", "b", "c", "default"]


@pytest.mark.parametrize("rate", [1, 0.5, np.float32(0.5), np.int64(1), Fraction(1, 2), 0, 10**300])
def test_any_real_number_of_0_or_more_is_a_rate(rate):
    assert is_rate(rate)
    assert read_rates({"default": rate})["default"].lr == float(rate)


@pytest.mark.parametrize(
    "rate", [True, False, -0.1, math.nan, math.inf, "0.1", None, [0.1], np.bool_(True), -1, 1j, np.float32("nan")]
)
def test_what_is_no_finite_number_of_0_or_more_is_no_rate(rate):
    assert not is_rate(rate)
    with pytest.raises(PlanError, match=r"'conv' is .*\. Expected a finite number, 0 or more; 0 freezes\."):
        read_rates({"conv": rate, "default": 0.1})


def test_all_bad_rates_are_told_at_once():
    with pytest.raises(PlanError, match=r"'conv' is -1; 'head' is 'x' \(str\); 'default' is nan\. Expected a finite"):
        read_rates({"conv": -1, "head": "x", "default": math.nan})


def test_everything_that_is_wrong_is_told_at_once():
    with pytest.raises(PlanError) as caught:
        read_rates({"": 1, "a@nrm": 1, "b": -1, "c": {"lr": -1, "decay_every": {"steps": 0, "factr": 1}}, "d": {3: 1}})
    assert str(caught.value).splitlines() == [
        "lr plan: 9 errors.",
        "  key '' is not a parameter-name prefix. Expected, for example, 'head' or '@norm'.",
        "  key 'a@nrm' names an unknown layer kind 'nrm'. Did you mean 'norm'? Known: conv, norm, linear, bias.",
        "  'c': lr is -1; expected a number, 0 or more, or a list of numbers, 0 or more, or null.",
        "  'c': decay_every.steps is 0; expected an integer, 1 or more.",
        "  'c': decay_every.factor is missing; expected a number, 0 or more.",
        "  'c': unknown key 'decay_every.factr'. Did you mean 'factor'?",
        "  'd': the settings 3 are not strings. Expected, for example, 'lr'.",
        "  'b' is -1. Expected a finite number, 0 or more; 0 freezes.",
        "  the mapping {'': 1, 'a@nrm': 1, 'b': -1, 'c': {'lr': -1, 'decay_every... has no 'default', the learning "
        "rate of all other parameters. Add it; 0 freezes.",
    ]
    raise_all("lr plan", [])
    with pytest.raises(PlanError, match=r"^lr plan: one\.$"):
        raise_all("lr plan", ["one."])
    with pytest.raises(PlanError) as caught:
        raise_all("lr plan", [f"{index}." for index in range(MOST_LISTED + 5)])
    first, *lines, last = str(caught.value).splitlines()
    assert first == f"lr plan: {MOST_LISTED + 5} errors."
    assert lines == [f"  {index}." for index in range(MOST_LISTED)]
    assert last == "  and 5 more."


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"lr": True}, r"lr is True; expected a number, 0 or more, or a list of numbers"),
        ({"lr": math.inf}, r"lr is inf; expected a number"),
        ({"lr": [0.1, -2]}, r"lr\.1 is -2; expected a number, 0 or more"),
        ({"lr": [0.1, math.nan]}, r"lr\.1 is nan; expected"),
        ({"lr": []}, r"lr is an empty list; expected one rate per optimizer step"),
        ({"lrr": 0.1}, r"unknown key 'lrr'\. Did you mean 'lr'"),
        ({"weight_decay": -1}, r"weight_decay is -1; expected a number, 0 or more"),
        ({"weight_decay": True}, r"weight_decay is True"),
        ({"unfreeze_at": 2.5}, r"unfreeze_at is 2\.5; expected an integer, 0 or more"),
        ({"unfreeze_at": -1}, r"unfreeze_at is -1"),
        ({"clip_grad_norm": 0}, r"clip_grad_norm is 0; expected a number, above 0"),
        ({"gradient_centralization": 1}, r"gradient_centralization is 1; expected true or false"),
        ({"decay_every": 3}, r"decay_every is 3; expected settings \(steps, factor, start\)"),
        ({"decay_every": {"steps": 2, "factor": -1}}, r"decay_every\.factor is -1"),
        ({"optimizer_params": 3}, r"optimizer_params is 3; expected a mapping"),
    ],
)
def test_wrong_settings_are_told(values, text):
    with pytest.raises(PlanError, match=rf"^lr plan: 'fc': {text}"):
        read_rates({"fc": values, "default": 0})
    settings, problems = read_settings(values)
    assert settings == GroupSettings()
    assert len(problems) == 1
