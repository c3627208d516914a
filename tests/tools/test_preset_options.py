import pytest

from tools.preset_options import parse_rates, read_fields
from zoo.errors import InputError, PresetError
from zoo.settings.preset import Preset


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("0.01", 0.01),
        ("1e-3", 0.001),
        (" 1 ", 1),
        ("fc=0.01,default=0", {"fc": 0.01, "default": 0.0}),
        (" fc = 1e-2 , default = 0 ", {"fc": 0.01, "default": 0.0}),
        ("@norm=0.001,backbone@conv=0.0001,default=0.01", {"@norm": 0.001, "backbone@conv": 0.0001, "default": 0.01}),
        ("{default: 0, fc: 1e-2}", {"default": 0, "fc": 0.01}),
        ("{default: 0, '@norm': 1e-2}", {"default": 0, "@norm": 0.01}),
        ("{default: 0, fc: {lr: 0.01, unfreeze_at: 3}}", {"default": 0, "fc": {"lr": 0.01, "unfreeze_at": 3}}),
        ("{default: 0, 'a=b': 1}", {"default": 0, "a=b": 1}),
        ("default: 0\nfc: 0.1", {"default": 0, "fc": 0.1}),
    ],
)
def test_rates_are_a_number_pairs_or_yaml(text: str, rates: object) -> None:
    assert parse_rates(text) == rates


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fast", "--lr is 'fast'; expected a number such as 0.01, rates by prefix such as 'fc=0.01"),
        ("", "--lr is ''; expected a number"),
        ("[0.1]", r"--lr is '\[0.1\]'; expected a number"),
        ("fc=x,default=0", "--lr: 'fc=x' is no key=rate. Expected for example 'fc=0.01,layer4=0.001,default=0'"),
        ("fc=0.1,default", "--lr: 'default' is no key=rate"),
        ("fc=0.1,default=0,fc=0.2", "--lr names 'fc' twice. Remove one of them"),
        ("{fc: 1, fc: 2}", r"setting 'lr=\{fc: 1, fc: 2\}': 1 error.\n  line 1: fc is a duplicate key"),
        ("{fc: 1", "cannot be parsed"),
    ],
)
def test_rates_that_cannot_be(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_rates(text)


def test_options_are_fields_and_none_leaves_the_preset() -> None:
    assert read_fields(None, lr=None, mode=None, epochs=None) == {}
    settings = ["seed=3", "unfreeze={3: layer4}"]
    fields = read_fields(settings, lr="0.5", mode="head", epochs=9, batch_size="8")
    assert fields == {"seed": 3, "unfreeze": {"3": "layer4"}, "lr": 0.5, "mode": "head", "epochs": 9, "batch_size": 8}
    assert read_fields(None, lr=None, batch_size="auto") == {"micro_batch_size": "auto"}


@pytest.mark.parametrize("setting", ["epoch=3", "out=x", "data=y"])
def test_what_is_no_field_is_refused(setting: str) -> None:
    with pytest.raises(PresetError, match=f"unknown key '{setting.partition('=')[0]}'"):
        read_fields([setting], lr=None)


@pytest.mark.parametrize(
    ("rates", "text"),
    [
        ("fc=0.1", r"lr has no 'default'"),
        ("{default: 0, fc: {lr_scal: 2}}", r"unknown key 'lr.fc.lr_scal'. Did you mean 'lr_scale'\?"),
        ("@nrm=1,default=0", r"lr: key '@nrm' names an unknown layer kind 'nrm'"),
        (".nan", r"lr is nan; expected a number"),
    ],
)
def test_the_preset_checks_what_the_options_say(rates: str, text: str) -> None:
    with pytest.raises(PresetError, match=text):
        Preset(**read_fields(None, lr=rates))
