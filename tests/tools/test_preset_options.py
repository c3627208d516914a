import pytest

from tools.preset_options import choose_preset, parse_rates
from zoo.errors import InputError, PresetError
from zoo.settings.files import load_preset
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
        ("{fc: 1, fc: 2}", r"setting 'lr=\{fc: 1, fc: 2\}': 1 error.\n  line 1: fc is given again"),
        ("{fc: 1", "not readable"),
    ],
)
def test_rates_that_cannot_be(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_rates(text)


def test_options_change_the_preset_and_none_leave_it() -> None:
    assert choose_preset(None, None, None, None) == Preset()
    assert choose_preset("classify-full", None, None, None, epochs=None) == load_preset("classify-full")
    settings = ["seed=3", "unfreeze={3: layer4}"]
    preset = choose_preset("classify-heads", "0.5", "head", settings, epochs=9)
    assert (preset.lr, preset.mode, preset.seed, preset.unfreeze, preset.epochs) == (0.5, "head", 3, {"3": "layer4"}, 9)


def test_the_preset_checks_what_the_options_say() -> None:
    with pytest.raises(PresetError, match=r"lr has no 'default'"):
        choose_preset(None, "fc=0.1", None, None)
    with pytest.raises(PresetError, match=r"unknown key 'lr.fc.lr_scal'. Did you mean 'lr_scale'\?"):
        choose_preset(None, "{default: 0, fc: {lr_scal: 2}}", None, None)
    with pytest.raises(PresetError, match=r"lr: key '@nrm' names the unknown kind of layer 'nrm'"):
        choose_preset(None, "@nrm=1,default=0", None, None)
    with pytest.raises(PresetError, match=r"lr is nan; expected a number"):
        choose_preset(None, ".nan", None, None)
