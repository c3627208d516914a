import copy
import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, create_model

from zoo._fields import Options
from zoo.errors import PresetError, ZooError
from zoo.rates.spec import GroupSettings
from zoo.settings import files
from zoo.settings import preset as preset_module
from zoo.settings.fields import FIELD_OF, list_settings
from zoo.settings.files import (
    MAX_BYTES,
    list_presets,
    load_preset,
    parse_preset,
    parse_setting,
    presets_folder,
    read_preset,
)
from zoo.settings.preset import Preset, list_fields, preset_fields
from zoo.tasks.options import find_options

CHOICES = ("mode", "compat", "unmatched", "augment", "device", "precision", "cache", "keep")
RATES = {"default": 0.0, "fc": 0.1}
NAMES = sorted(path.stem for path in (Path(__file__).parents[2] / "presets").glob("*.yaml"))


def refusal(text: str) -> list[str]:
    """The lines of the error that a preset file with this text gives."""
    with pytest.raises(PresetError) as caught:
        parse_preset(text, "x.yaml")
    return str(caught.value).splitlines()


def complaint(**values: Any) -> str:
    """The only complaint about these values."""
    with pytest.raises(PresetError) as caught:
        Preset(**values)
    first, second = str(caught.value).splitlines()
    assert first == "preset: 1 error."
    return second.strip()


# The value


def test_defaults_need_nothing_and_stay_as_they_are() -> None:
    assert Preset() == Preset().replace() == parse_preset("{}", "x.yaml")
    preset = Preset()
    with pytest.raises(ValueError, match="frozen"):
        preset.epochs = 3
    preset = Preset(lr={"default": 0.0, "head": 1e-3}, epochs=3)
    assert copy.deepcopy(preset) == pickle.loads(pickle.dumps(preset)) == preset
    preset = Preset(optimizer_params={"betas": (0.9, 0.99)})  # type: ignore[dict-item]
    assert preset.optimizer_params == {"betas": [0.9, 0.99]}
    assert parse_preset(preset.to_yaml(), "x.yaml") == preset
    assert isinstance(Preset(lr=1).lr, float)
    assert Preset(lr={"default": 0, "head": 1}).lr == {"default": 0.0, "head": 1.0}


def test_no_two_presets_share_a_mapping() -> None:
    params = {"betas": [0.9, 0.99]}
    preset = Preset(optimizer_params=params)  # type: ignore[arg-type]
    params["betas"].append(1.0)
    preset.replace().optimizer_params["momentum"] = 0.9
    Preset().optimizer_params["momentum"] = 0.9
    assert preset.optimizer_params == {"betas": [0.9, 0.99]}
    assert Preset().optimizer_params == {}


def test_replace_takes_none_as_a_value() -> None:
    preset = Preset(image_size=128, epochs=3)
    assert preset.replace(image_size=None) == Preset(epochs=3)


def test_replace_reports_all_at_once_with_near_names() -> None:
    with pytest.raises(PresetError) as caught:
        Preset().replace(epochs=-1, learning_rate=0.1, augmnt="none", lr=True)
    assert sorted(str(caught.value).splitlines()) == sorted(
        [
            "preset: 4 errors.",
            "  epochs is -1; expected an integer, 1 or more.",
            "  unknown key 'learning_rate'. Did you mean 'lr'?",
            "  unknown key 'augmnt'. Did you mean 'augment'?",
            "  lr is True; expected a number, 0 or more, or a mapping of names to a number, 0 or more, or to settings "
            "(lr, lr_scale, schedule, ...).",
        ]
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("lr", value) for value in (True, -0.1, math.nan, math.inf, "0.1", None, [0.1])),
        *(("epochs", value) for value in (0, -1, 1.5, 3.0, True, "3", None)),
        *(("batch_size", value) for value in (0, True)),
        *(("accumulate", value) for value in (0, False)),
        *(("backbone_lr_factor", value) for value in (0, 1.1, math.nan)),
        *(("weight_decay", value) for value in (-1e-9, math.inf, True)),
        *(("warmup_start", value) for value in (-0.1, 1.1)),
        *(("final_lr_ratio", value) for value in (-0.1, 1.1)),
        *(("clip_grad_norm", value) for value in (0, -1, math.inf)),
        *(("label_smoothing", value) for value in (1, 1.0, -0.1)),
        *(("ema_decay", value) for value in (0, 1, 1.5)),
        *(("image_size", value) for value in (7, 4097, 128.0, "128")),
        *(("crop_pct", value) for value in (0, 1.01)),
        *(("crop_scale_min", value) for value in (0, 1.01)),
        *(("flip_probability", value) for value in (-0.1, 1.1)),
        *(("val_fraction", value) for value in (0, 1)),
        *(("seed", value) for value in (-1, 0.0, False)),
        *(("init_seed", value) for value in (-1, None)),
        *(("num_workers", value) for value in (-1, 1.0)),
        *(("evaluate_every", value) for value in (0, None)),
        *(("warmup_epochs", value) for value in (-0.1, True, "1")),
        *(("warmup_steps", value) for value in (-1, 1.0, True)),
        *(("warmup_start_lr", value) for value in (-1e-9, math.inf)),
        *(("cooldown_epochs", value) for value in (-1, None)),
        *(("layer_decay", value) for value in (0, -0.5, 1.1, "0.75")),
        *(("first_lr", value) for value in (0, -1, math.nan)),
        *(("unfreeze", value) for value in (None, 3, [3], "layer4")),
        *(("order", value) for value in (None, "fc.weight", {"a": 1})),
        *(("skip_bad", value) for value in (1, "yes", None)),
        *(("decay_norm_and_bias", value) for value in (0, "no")),
        *(("freeze_norm_stats", value) for value in (1, None)),
        *(("optimizer_params", value) for value in (None, [1], {1: 2}, "momentum=0.9")),
        *(("training_params", value) for value in (None, 3)),
        *(("optimizer", value) for value in (None, 3)),
        *(("model", value) for value in (3, True, ["resnet18"])),
        *(("pretrained", value) for value in (1, 0.5, ["x"])),
        *((name, "x") for name in CHOICES),
        *((name, None) for name in CHOICES if name not in ("mode", "compat")),
        *((name, False) for name in ("precision", "cache")),
        *((name, None) for name in ("gradient_centralization", "compile")),
    ],
)
def test_values_out_of_range_or_of_a_wrong_type(field: str, value: object) -> None:
    expected = next(entry.expected for entry in list_fields() if entry.name == field)
    assert complaint(**{field: value}) == f"{field} is {value!r}; expected {expected}."


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("lr", (0, 0.0, 1e-12, {"default": 0.0})),
        ("image_size", (8, 4096, None)),
        ("label_smoothing", (0, 0.999)),
        ("warmup_epochs", (0, 9.9)),
        ("crop_pct", (1, 1e-9)),
        ("num_workers", (0, None)),
        ("pretrained", (True, False, "org/name@main", None)),
        ("mode", ("head", "low_lr", "full", None)),
    ],
)
def test_values_on_the_edge_are_taken(field: str, values: tuple[object, ...]) -> None:
    for value in values:
        assert getattr(Preset(**{field: value}), field) == value  # type: ignore[arg-type]


def test_rates_need_a_default() -> None:
    assert complaint(lr={"head": 0.1}).startswith("lr has no 'default', the learning rate of all other parameters.")
    assert complaint(lr={}).startswith("lr has no 'default'")


def test_warm_up_ends_and_a_cool_down_begins_within_the_training() -> None:
    assert complaint(epochs=2, warmup_epochs=2) == (
        "warmup_epochs is 2.0; expected less than epochs, which is 2. Train for more epochs, or set warmup_epochs to 1."
    )
    assert complaint(epochs=2, cooldown_epochs=2) == "cooldown_epochs is 2; expected less than epochs, which is 2."


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            {"lr": RATES, "layer_decay": 0.5},
            "layer_decay is 0.5, but lr is a mapping and already sets every learning rate. Remove",
        ),
        (
            {"lr": RATES, "first_lr": 1e-5},
            "first_lr is 1e-05, but lr is a mapping and already sets every learning rate. Remove",
        ),
        ({"mode": "head", "first_lr": 0.5}, "first_lr is 0.5, but mode 'head' trains one layer only. Use mode"),
        ({"warmup_epochs": 0, "warmup_steps": 5}, "warmup_steps is 5 and warmup_epochs is 0. Set one of them to null."),
        (
            {"schedule": {"kind": "one_cycle"}, "warmup_steps": 5},
            "warmup_steps is 5, but the schedule one_cycle has its own",
        ),
    ],
)
def test_two_fields_that_contradict_each_other(values: dict[str, Any], text: str) -> None:
    assert complaint(**values).startswith(text)


@pytest.mark.parametrize(
    "values",
    [
        {"mode": "low_lr", "layer_decay": 0.5},
        {"mode": "full", "first_lr": 1e-5},
        {"schedule": "one_cycle", "warmup_epochs": 0},
        {"schedule": {"kind": "cosine", "warmup_epochs": 1}, "cooldown_epochs": 1},
        {"schedule": {"kind": "cosine", "warmup_epochs": None}, "warmup_epochs": 1},
        {"warmup_start_lr": 1e-3, "warmup_start": 0.1},
        {"compat": "super-gradients", "warmup_epochs": 3, "warmup_steps": 20, "warmup_start_lr": 1e-3},
        {"lr": {"default": 0.1, "fc": {"weight_decay": 0.0}}, "clip_grad_norm": 2},
        {"lr": 0.1, "clip_grad_norm": 2},
    ],
)
def test_fields_that_go_together(values: dict[str, Any]) -> None:
    preset = Preset(**values)
    assert preset.replace() == preset


def test_what_is_no_plain_value_is_named() -> None:
    assert complaint(optimizer_params={"a": [1, {2}]}) == "optimizer_params.a.1 is {2}; expected plain values."
    for make in (Preset, Preset().replace):
        with pytest.raises(ZooError, match="unknown key 'self'"):
            make(self=1)


# Reading


def test_what_is_no_preset_at_all_is_told_in_short() -> None:
    assert refusal("epochs: 3\nseed: 1\nepochs: 3\n") == [
        "preset 'x.yaml': 1 error.",
        "  line 3: epochs is a duplicate key, first on line 1. Remove one of them.",
    ]
    lines = refusal("".join(f"key{number}: 0\n" for number in range(1000)))
    assert lines[0] == "preset 'x.yaml': 1000 errors."
    assert lines[-2:] == ["  line 50: unknown key 'key49'.", "  and 950 more."]


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("learning_rate", "lr"),
        ("learing_rate", "lr"),
        ("initial_lr", "lr"),
        ("LR", "lr"),
        ("max_epochs", "epochs"),
        ("num_epochs", "epochs"),
        ("Epochs", "epochs"),
        ("batch", "batch_size"),
        ("batchsize", "batch_size"),
        ("wd", "weight_decay"),
        ("imgsz", "image_size"),
        ("img_size", "image_size"),
        ("momentum", "optimizer_params"),
        ("lr_mode", "schedule"),
        ("amp", "precision"),
        ("workers", "num_workers"),
        ("warmup", "warmup_epochs"),
    ],
)
def test_near_names_and_those_of_other_libraries(key: str, near: str) -> None:
    assert f"line 1: unknown key {key!r}. Did you mean {near!r}" in refusal(f"{key}: 1")[1]


def test_foreign_names_name_fields() -> None:
    assert set(FIELD_OF.values()) <= set(preset_fields())
    assert not set(FIELD_OF) & set(preset_fields())


def test_names_may_look_like_numbers_or_be_traps_of_yaml() -> None:
    preset = parse_preset("lr: 1e-3\nprecision: no\ncache: off\naugment: none\nmode: ~\n", "x.yaml")
    assert (preset.lr, preset.precision, preset.cache, preset.augment, preset.mode) == (1e-3, "no", "off", "none", None)
    assert parse_preset("lr: {default: 0, 0: 0.1, 1.: 0.2}", "x.yaml").lr == {"default": 0.0, "0": 0.1, "1.": 0.2}


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "null\n"])
def test_an_empty_file(text: str) -> None:
    assert refusal(text) == ["preset 'x.yaml' is empty; expected lines such as 'epochs: 20', or {} for all defaults."]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epochs: *n\n", "alias '*n'; write the value itself."),
        ("seed: 1\n\tepochs: 3\n", "line 2: cannot be parsed as 'key: value' lines"),
        ("epochs: [\n", "cannot be parsed as 'key: value' lines"),
        ("epochs: 3\n---\nepochs: 4\n", "line 2: cannot be parsed"),
    ],
)
def test_what_yaml_may_but_a_preset_may_not(text: str, words: str) -> None:
    first, second = refusal(text)
    assert first == "preset 'x.yaml': 1 error."
    assert words in second


def test_names_of_presets_are_those_of_the_folder() -> None:
    assert NAMES, "no preset was found"
    assert list_presets() == NAMES
    assert {"classify-heads", "classify-low-lr", "classify-full"} <= set(NAMES)


def test_the_folder_inside_the_package_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "__file__", str(tmp_path / "zoo" / "settings" / "files.py"))
    assert presets_folder() == tmp_path / "presets"
    (tmp_path / "zoo" / "presets").mkdir(parents=True)
    assert presets_folder() == tmp_path / "zoo" / "presets"


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_loads_and_holds_only_what_differs(name: str) -> None:
    text = read_preset(name)
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert len(comments) >= 3, "the head says what it is for, how it is used, and what was measured"
    assert f"--preset {name}" in comments[1]
    assert text == "".join(f"{line}\n" for line in comments) + load_preset(name).to_yaml()


def test_a_path_is_read(tmp_path: Path) -> None:
    for file in (tmp_path / "a.yaml", tmp_path / "b.yml"):
        file.write_bytes(b"\xef\xbb\xbfepochs: 3\r\nseed: 1\r\n")  # as an editor on Windows may save it
        assert load_preset(file) == load_preset(str(file)) == Preset(epochs=3, seed=1)


def test_unknown_names_get_a_hint() -> None:
    with pytest.raises(PresetError, match=r"unknown preset 'classify-head'. Did you mean 'classify-heads'"):
        load_preset("classify-head")
    with pytest.raises(PresetError, match=r"No such file or directory. Did you mean 'classify-heads'"):
        load_preset("classify-heads.yaml")
    with pytest.raises(
        PresetError, match=rf"unknown preset '../presets/x'.* There are {len(NAMES)} .*; a preset file needs the suffix"
    ):
        load_preset("../presets/x")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "no_ending").write_text("epochs: 3\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "preset.yaml").write_text("epochs: 3\n")
    (tmp_path / "binary.yaml").write_bytes(b"epochs: 3\nmodel: \xff\n")
    (tmp_path / "utf16.yaml").write_text("epochs: 3\n", encoding="utf-16")
    (tmp_path / "huge.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    words = {
        "folder.yaml": "cannot be read: it is not a regular file",
        "missing.yaml": "cannot be read: No such file or directory",
        "no_ending": "is a file without the suffix .yaml. Rename it.",
        "run": r"is a run folder\. Its preset is",
        "binary.yaml": r"is not UTF-8 text \(byte 17\). Save it as UTF-8.",
        "utf16.yaml": r"is not UTF-8 text \(byte 0\)",
        "huge.yaml": "is larger than 100,000 bytes",
    }
    for name, expected in words.items():
        with pytest.raises(PresetError, match=expected):
            load_preset(tmp_path / name)


# Writing

VARIED = [
    Preset(),
    Preset(lr=1e-05, weight_decay=5e-324, epochs=300),
    Preset(lr={"default": 0.0, "0.": 0.1, "layers.1e-3": 1, "yes": 0.5, "ünï": 1e-4}),
    Preset(model="timm/resnet18.a1_in1k", pretrained="1e-3", device="cpu", precision="fp16", cache="off"),
    Preset(pretrained=False, image_size=128, num_workers=0, ema_decay=0.999, warmup_epochs=0),
    Preset(optimizer="SGD", optimizer_params={"momentum": 0.9, "nested": {"a": [1, 2.0, None, True, "no", "1e3"]}}),
    Preset(training_params={"text": "two\nlines", "empty": {}, "list": [[], [0.1]]}),
    Preset(
        lr=1e-3, layer_decay=0.75, mode="low_lr", backbone_lr_factor=0.5, gradient_centralization=True, compile=True
    ),
    Preset(mode="full", first_lr=1e-6, weight_decay=None, order=["fc.weight", "no", "1e3", "a: b", "#c"]),
    Preset(unfreeze={3: "layer4", "06": ("layer3", "no"), 9: ["default"]}, unmatched="warn"),  # type: ignore[dict-item]
    Preset(warmup_steps=5, warmup_start_lr=1e-5, cooldown_epochs=0.5, final_lr_ratio=0.1),
    Preset(warmup_epochs=0.0, warmup_start=1),
    Preset(compat="super-gradients", warmup_epochs=3, warmup_steps=7, warmup_start_lr=0, schedule="cosine"),
    Preset(schedule={"kind": "multistep", "milestones": (3, 6.5), "gamma": 1e-3, "warmup_epochs": 1}),
]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("preset", VARIED)
def test_written_and_read_is_the_same_value_and_the_same_bytes(preset: Preset, full: bool) -> None:
    text = preset.to_yaml(full)
    again = parse_preset(text, "x.yaml")
    assert again == preset
    assert again.to_yaml(full).encode() == text.encode()


def test_only_what_differs_is_written_unless_all_is_asked_for() -> None:
    assert Preset(epochs=3, lr=1e-3, seed=0).to_yaml() == "lr: 0.001\nepochs: 3\n"
    assert Preset().to_yaml() == "{}\n"
    lines = Preset().to_yaml(full=True).splitlines()
    assert [line.partition(":")[0] for line in lines] == list(preset_fields())


# Settings and fields


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("lr=1e-3", "lr", 0.001),
        ("lr={default: 0, head: 1e-3}", "lr", {"default": 0, "head": 0.001}),
        (" epochs = 3 ", "epochs", 3),
        ("image_size=null", "image_size", None),
        ("image_size=", "image_size", None),
        ("precision=no", "precision", "no"),
        ("model=timm/resnet18", "model", "timm/resnet18"),
        ("pretrained=a=b", "pretrained", "a=b"),
        ("skip_bad=true", "skip_bad", True),
    ],
)
def test_settings_are_read_as_in_a_file(setting: str, key: str, value: object) -> None:
    assert parse_setting(setting) == (key, value)


@pytest.mark.parametrize("setting", ["lr", "=3", "", " = "])
def test_a_setting_needs_both_sides(setting: str) -> None:
    with pytest.raises(PresetError, match=r"; expected key=value, such as lr=0.005"):
        parse_setting(setting)


@pytest.mark.parametrize("setting", ["lr={a: 1, a: 2}", "lr=[", "model=*x"])
def test_a_setting_that_is_no_yaml(setting: str) -> None:
    with pytest.raises(PresetError, match="1 error"):
        parse_setting(setting)


def test_every_field_is_explained() -> None:
    fields = list_fields()
    assert [field.name for field in fields] == list(preset_fields())
    for field in fields:
        assert len(field.meaning) > 10
        assert not field.meaning.endswith(".")
        assert field.expected
    found = {field.name: field for field in fields}
    assert found["augment"].default == "auto"
    assert found["precision"].default == "'no'"
    assert found["image_size"].expected == "an integer, 8 to 4096, or null"
    assert found["unfreeze"].expected == "a mapping of epochs to a prefix, or to a list of prefixes"
    assert found["schedule"].expected.startswith("a name, or a mapping with 'kind'; in Python also a function")
    assert found["order"].expected == "a list of strings"


def test_every_setting_of_a_key_of_lr_is_explained() -> None:
    settings = {field.name: field for field in list_settings()}
    assert list(settings) == list(GroupSettings.model_fields)
    assert settings["lr"].expected == "a number, 0 or more, or a list of numbers, 0 or more, or null"
    assert settings["clip_grad_norm"].expected == "a number, above 0, or null"
    assert settings["decay_every"].expected == "settings (steps, factor, start), or null"
    assert settings["lr_scale"].default == "1.0"


@pytest.mark.parametrize("preset", [{"lr": 0.1}, 3, None, ["a"]])
def test_what_is_no_name_is_told(preset) -> None:
    with pytest.raises(PresetError, match=f"preset is a {type(preset).__name__}; expected a name"):
        load_preset(preset)


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("criterion", r"Define a method loss"),
        ("dropout", r"argument of zoo\.get"),
    ],
)
def test_what_is_said_elsewhere_has_a_hint(key, hint) -> None:
    with pytest.raises(PresetError, match=rf"unknown key '{key}'\. .*{hint}"):
        Preset(**{key: 1})


# As before the options lived in sections

FORMER = json.loads((Path(__file__).parent / "former_presets.json").read_text(encoding="utf-8"))


def test_defaults_and_order_in_a_file_are_those_of_ever() -> None:
    assert Preset().to_yaml(full=True).splitlines() == FORMER["defaults"]


@pytest.mark.parametrize("case", FORMER["wrong"], ids=lambda case: case["yaml"][0])
def test_what_is_wrong_with_a_file_is_said_in_the_words_and_lines_of_ever(case: dict[str, list[str]]) -> None:
    assert refusal("\n".join([*case["yaml"], ""])) == case["error"]


# Options of the tasks


def test_a_field_of_a_task_is_checked_and_kept_by_its_options() -> None:
    preset = Preset(mosaic=1, label_smoothing=0.1)
    assert preset.task_options["detection"].mosaic == preset.mosaic == 1.0
    assert preset.task_options["classification"].label_smoothing == preset.label_smoothing == 0.1
    assert preset != Preset(mosaic=1)
    assert preset.replace(mosaic=0.0) == Preset(label_smoothing=0.1) == copy.deepcopy(Preset(label_smoothing=0.1))
    assert (preset.model_dump()["mosaic"], "mosaic=1.0" in repr(preset)) == (1.0, True)
    with pytest.raises(AttributeError, match="mosiac"):
        preset.mosiac  # noqa: B018
    assert complaint(task_options={}) == "unknown key 'task_options'."


def test_fields_of_other_tasks_are_found() -> None:
    assert Preset(label_smoothing=0.1, mosaic=0.0).find_other_tasks("classification") == {}
    assert Preset(mosaic=0.5, plain_epochs=3).find_other_tasks("classification") == {"mosaic": 0.5, "plain_epochs": 3}
    assert Preset(resizer="torch", mosaic=0.5).find_other_tasks("detection") == {"resizer": "torch"}


def test_a_preset_knows_the_lines_of_its_file_until_a_value_is_replaced() -> None:
    preset = parse_preset("epochs: 3\nlr:\n  default: 0\n  fc: 0.1\n", "my.yaml")
    assert (preset.origin.where, preset.origin.find_line(("epochs",))) == ("preset 'my.yaml'", 1)
    assert [preset.origin.find_line(path) for path in (("lr", "fc"), ("lr", "conv"), ("seed",))] == [4, 2, 0]
    changed = preset.replace(epochs=5)
    assert (changed.origin.find_line(("epochs",)), changed.origin.find_line(("lr",))) == (0, 2)
    assert preset == Preset(epochs=3, lr={"default": 0, "fc": 0.1}) == copy.deepcopy(preset)
    assert parse_preset("chunk_size: 3\n", "old.yaml").origin.find_line(("micro_batch_size",)) == 1


def test_tasks_share_a_field_only_with_one_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    def fields(**defaults: Any) -> list[str]:
        task = create_model("Options", __base__=Options, **{name: (float, value) for name, value in defaults.items()})
        monkeypatch.setattr(preset_module, "find_options", lambda: {**find_options(), "third": task})
        return list(preset_fields.__wrapped__())

    assert fields(label_smoothing=0.0, dice=0.5)[-3:] == ["keep", "log", "dice"]
    for clash in ({"label_smoothing": 0.5}, {"seed": 0}):
        with pytest.raises(
            TypeError, match=rf"option {next(iter(clash))} of third already exists with a different meaning"
        ):
            fields(**clash)


def test_a_third_task_brings_its_own_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    third = create_model("Options", __base__=Options, dice=(float, Field(default=0.5, ge=0)))
    monkeypatch.setattr(preset_module, "find_options", lambda: {**find_options(), "third": third})
    monkeypatch.setattr(preset_module, "preset_fields", preset_fields.__wrapped__)
    preset = parse_preset("dice: 2\nepochs: 3\n", "x.yaml")
    assert (preset.dice, preset.task_options["third"].dice, preset.to_yaml()) == (2.0, 2.0, "epochs: 3\ndice: 2.0\n")
    assert refusal("epochs: 3\ndice: -1\n")[1] == "  line 2: dice is -1; expected a number, 0 or more."
    assert complaint(dicee=1) == "unknown key 'dicee'. Did you mean 'dice' or 'device'?"
    assert (preset.find_other_tasks("detection"), preset.find_other_tasks("third")) == ({"dice": 2.0}, {})
