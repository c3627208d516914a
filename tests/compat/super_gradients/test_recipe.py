from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from zoo.compat.super_gradients import Translation
from zoo.compat.super_gradients.recipe import _MODELS, translate_recipe
from zoo.errors import PresetError
from zoo.models.catalog import find_entry
from zoo.settings.files import MAX_BYTES, load_preset

BIRDS = """\
# Tells birds apart, beginning from ImageNet.
defaults:
  - training_hyperparams: birds_train_params
  - dataset_params: birds_dataset_params
  - checkpoint_params: nowhere_checkpoint_params
  - _self_
  - variable_setup

architecture: resnet50
num_classes: 200
rate: 3e-3
arch_params:
  num_classes: ${num_classes}
  droppath_prob: 0.05
checkpoint_params:
  pretrained_weights: imagenet
train_dataloader: birds_train
val_dataloader: birds_val
resume: False
training_hyperparams:
  resume: ${resume}
  initial_lr:
    linear: 0.03
    default: ${rate}
  mixed_precision: on
experiment_name: ${architecture}_birds
multi_gpu: Off
num_gpus: 1
ckpt_root_dir:
"""
BIRDS_TRAIN_PARAMS = """\
defaults:
  - default_train_params
max_epochs: 30
initial_lr: 1.0
lr_mode: cosine
lr_warmup_epochs: 3
optimizer: AdamW
optimizer_params: {weight_decay: 0.05, betas: [0.9, 0.95]}
zero_weight_decay_on_bias_and_bn: True
loss: cross_entropy
criterion_params: {smooth_eps: 0.1}
metric_to_watch: Accuracy
valid_metrics_list: [Accuracy, Top5]
_convert_: all
"""
BIRDS_DATASET_PARAMS = """\
batch_size: 512
train_dataloader_params: {batch_size: 48, num_workers: 6, shuffle: True}
val_dataloader_params: {batch_size: 96}
"""
READ = (
    "training_hyperparams/birds_train_params, dataset_params/birds_dataset_params, default_train_params, variable_setup"
)
RESOLVE = (
    "Create a single resolved file first: python -m super_gradients.train_from_recipe --config-name=NAME "
    "--cfg job --resolve"
)


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    for file, text in (
        ("training_hyperparams/birds_train_params.yaml", BIRDS_TRAIN_PARAMS),
        ("dataset_params/birds_dataset_params.yaml", BIRDS_DATASET_PARAMS),
    ):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text(text)
    (tmp_path / "birds.yaml").write_text(BIRDS)
    return tmp_path / "birds.yaml"


def recipe(tmp_path: Path, text: str, *, exact: bool = True) -> Translation:
    path = tmp_path / "recipe.yaml"
    path.write_text(dedent(text))
    return translate_recipe(path, exact=exact)


def refusal(path: Path) -> str:
    with pytest.raises(PresetError) as caught:
        translate_recipe(path)
    return str(caught.value)


def line(translation: Translation, key: str) -> tuple[str, ...]:
    return next(tuple(line)[1:] for line in translation.lines if line.key == key)


def test_a_recipe_with_the_files_that_it_includes(birds: Path) -> None:
    preset = translate_recipe(birds).preset
    assert preset.to_yaml().splitlines() == [
        "model: resnet50",
        "compat: super-gradients",
        "lr:",
        "  linear: 0.03",
        "  default: 0.003",
        "optimizer: AdamW",
        "optimizer_params:",
        "  betas:",
        "  - 0.9",
        "  - 0.95",
        "weight_decay: 0.05",
        "epochs: 30",
        "batch_size: 48",
        "warmup_epochs: 3.0",
        "label_smoothing: 0.1",
        "seed: 42",
        "precision: fp16",
        "num_workers: 6",
        "keep: best",
    ]


def test_what_is_told_of_a_recipe(birds: Path) -> None:
    translation = translate_recipe(birds)
    assert line(translation, "architecture") == (
        *("'resnet50'", "model", "resnet50"),
        "its parameters have other names: fc; in super-gradients: linear",
    )
    place = "dataset_params.train_dataloader_params.batch_size"
    assert line(translation, place) == ("48", "batch_size", "48", "per process, as in super-gradients")
    assert line(translation, "resume") == ("False", "-", "-", "no effect")
    assert line(translation, "defaults")[0] == READ
    reason = translation.left_out["defaults"]
    assert reason.startswith("not found beside it: checkpoint_params/nowhere_checkpoint_params.")
    assert line(translation, "seed")[-1].endswith("; unless a missing file overrides it")
    translation = translate_recipe(birds)
    told = {line.key.partition(".")[0] for line in translation.lines} | set(translation.left_out)
    for text in (BIRDS, BIRDS_TRAIN_PARAMS):
        keys = {row.partition(":")[0] for row in text.splitlines() if row[:1].strip(" #-")}
        assert keys - {"rate", "training_hyperparams"} <= told
    assert translation.left_out["rate"] == "it is not a training parameter"
    assert set(translation.left_out) == {
        *("defaults", "num_classes", "rate", "arch_params", "checkpoint_params", "train_dataloader", "val_dataloader"),
        *("dataset_params", "experiment_name", "multi_gpu", "num_gpus"),
    }
    meant = translate_recipe(birds, exact=False).preset
    assert (meant.compat, meant.warmup_epochs, meant.warmup_start) == (None, 3.0, 0.25)


def test_a_written_preset_can_be_loaded(birds: Path, tmp_path: Path) -> None:
    for exact in (True, False):
        preset = translate_recipe(birds, exact=exact).preset
        (tmp_path / "preset.yaml").write_text(preset.to_yaml())
        assert load_preset(tmp_path / "preset.yaml") == preset


def test_training_parameters_alone(birds: Path) -> None:
    path = birds.parent / "training_hyperparams" / "birds_train_params.yaml"
    translation = translate_recipe(path)
    assert (translation.preset.model, translation.preset.lr, translation.preset.epochs) == (None, 1.0, 30)
    assert translation.left_out == {}
    assert line(translation, "_convert_")[-1] == "no effect"


@pytest.mark.parametrize("section", ["training_hyperparams", "training_params"])
def test_names_of_the_section(tmp_path: Path, section: str) -> None:
    assert recipe(tmp_path, f"{section}: {{initial_lr: 0.2}}").preset.lr == 0.2


def test_the_recipe_itself_counts_over_what_it_includes_unless_it_says_otherwise(tmp_path: Path) -> None:
    (tmp_path / "training_params").mkdir()
    (tmp_path / "training_params" / "a.yaml").write_text("initial_lr: 0.1\nseed: 1\nema_params: {decay: 0.9}\n")
    (tmp_path / "training_params" / "b.yaml").write_text("initial_lr: 0.2\nema_params: {decay_type: constant}\n")
    own = "training_params: {initial_lr: 0.3, ema: true}\n"
    head = "defaults:\n  - training_params: a\n  - training_params: b\n"
    for order, lr in (("", 0.3), ("  - _self_\n", 0.3)):
        preset = recipe(tmp_path, f"{head}{order}{own}").preset
        assert (preset.lr, preset.seed, preset.ema_decay) == (lr, 1, 0.9)
    first = "defaults:\n  - _self_\n  - training_params: a\n  - training_params: b\n"
    assert recipe(tmp_path, first + own).preset.lr == 0.2


def test_an_included_recipe_lies_in_the_same_folder(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("training_hyperparams: {initial_lr: 0.1}\narchitecture: resnet18\n")
    preset = recipe(tmp_path, "defaults: [base, _self_]\narchitecture: resnet34\n").preset
    assert (preset.lr, preset.model) == (0.1, "resnet34")


def test_a_list_replaces_a_call(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("lr_updates: {_target_: numpy.arange, stop: 3}\n")
    text = "defaults: [base]\ninitial_lr: 0.1\nlr_mode: step\nlr_decay_factor: 0.5\nlr_updates: [7]\n"
    assert recipe(tmp_path, text).preset.schedule["milestones"] == [7.0]


@pytest.mark.parametrize(
    "entry", ["../base", "/etc/base", "override /base: x", "base@there", "other", "[a, b]", "null"]
)
def test_what_is_not_beside_the_recipe_is_not_read(tmp_path: Path, entry: str) -> None:
    (tmp_path / "base.yaml").write_text("training_hyperparams: {initial_lr: 0.5}\n")
    (tmp_path / "inner").mkdir()
    text = f"defaults:\n  - {entry}\ntraining_hyperparams:\n  initial_lr: 0.1\n"
    translation = recipe(tmp_path / "inner", text)
    assert translation.preset.lr == 0.1
    assert translation.left_out["defaults"].startswith("not found beside it: ")
    assert "seed" in {line.key for line in translation.lines}


def test_library_defaults_are_known(tmp_path: Path) -> None:
    translation = recipe(tmp_path, "defaults: [default_train_params, _self_, variable_setup]\ninitial_lr: 0.1\n")
    assert translation.left_out == {}
    assert not any("unless" in line.remark for line in translation.lines)
    assert line(translation, "defaults")[0] == "default_train_params, variable_setup"


def test_references(tmp_path: Path) -> None:
    text = """\
        a: {b: [7], c: "${d}"}
        d: ${e}
        e: 0.25
        loop: ${pool}
        pool: ${loop}
        training_hyperparams:
          initial_lr: ${a.c}
          seed: ${a.b}
          max_epochs: ${a.missing}
          clip_grad_norm: ${loop}
          lr_warmup_epochs: ${times:2,3}
          optimizer_params: {momentum: "${e}"}
    """
    translation = recipe(tmp_path, text)
    assert (translation.preset.lr, translation.preset.optimizer_params) == (0.25, {"momentum": 0.25})
    assert (translation.preset.seed, translation.preset.epochs) == (42, 10)
    left = {"seed", "max_epochs", "clip_grad_norm", "lr_warmup_epochs"}
    assert left <= set(translation.left_out)
    assert translation.left_out["max_epochs"] == "'${a.missing}' is a hydra interpolation that was not resolved"


def test_shortcuts(tmp_path: Path) -> None:
    text = """\
        lr: 0.5
        epochs: 7
        ema: true
        resume: false
        batch_size: 12
        num_workers:
        training_hyperparams: {initial_lr: 0.1, max_epochs: 3, ema: false}
        dataset_params: {train_dataloader_params: {batch_size: 99}}
    """
    translation = recipe(tmp_path, text)
    preset = translation.preset
    assert (preset.lr, preset.epochs, preset.ema_decay, preset.batch_size) == (0.5, 7, 0.9999, 12)
    assert line(translation, "lr")[-1] == "copied to initial_lr"
    assert line(translation, "batch_size")[0] == "12"
    assert line(translation, "num_workers")[-1] == "no effect"
    assert preset.num_workers is None


@pytest.mark.parametrize("count", ["0", "x", "true", "1.5", "${size}"])
def test_counts_that_are_none(tmp_path: Path, count: str) -> None:
    translation = recipe(tmp_path, f"training_params:\n  initial_lr: 0.1\ndataset_params:\n  batch_size: {count}\n")
    assert translation.preset.batch_size == 32
    assert translation.left_out["dataset_params.batch_size"].endswith("is not a whole number, 1 or more")


@pytest.mark.parametrize("name", _MODELS)
def test_models_are_known(name: str) -> None:
    assert find_entry(_MODELS[name][0]).name == _MODELS[name][0]


@pytest.mark.parametrize("name", ["yolo_nas_s", "[resnet18]", "{a: b}", "18"])
def test_an_unknown_architecture_is_left_out(tmp_path: Path, name: str) -> None:
    translation = recipe(tmp_path, f"architecture: {name}\ntraining_params: {{initial_lr: 0.1}}")
    assert translation.preset.model is None
    assert "unknown model" in translation.left_out["architecture"]


def test_no_architecture(tmp_path: Path) -> None:
    translation = recipe(tmp_path, "architecture:\ntraining_params: {initial_lr: 0.1}")
    assert line(translation, "architecture")[-1] == "no effect"


def test_a_model_that_is_known_has_no_hooks(tmp_path: Path) -> None:
    text = "training_params: {initial_lr: 0.1, multiply_head_lr: 10}\n"
    assert recipe(tmp_path, text).preset.mode is None
    preset = recipe(tmp_path, f"architecture: resnet18\n{text}").preset
    assert (preset.mode, preset.training_params) == ("full", {"multiply_head_lr": 10})
    text = "training_params: {initial_lr: {default: 0.1}, multiply_head_lr: 10}\n"
    assert recipe(tmp_path, f"architecture: resnet18\n{text}").preset.mode is None


def test_recipes_that_are_not_there_or_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "no.yaml"
    assert refusal(path) == f"recipe '{path}' cannot be read: No such file or directory."
    assert refusal(tmp_path) == f"recipe '{tmp_path}' cannot be read: it is not a regular file."
    (tmp_path / "recipe.yaml").write_text("defaults: [recipe]\ninitial_lr: 0.1\n")
    assert refusal(tmp_path / "recipe.yaml").endswith("includes more than 50 files. Does one include itself?")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "is empty; expected names and values, such as training_hyperparams."),
        (b"just text", "holds 'just text'; expected names and values, such as training_hyperparams."),
        (b"- 1\n", "holds [1]; expected"),
        (b"\x80\x04\x95\x00", "is not UTF-8 text (byte 0). Is it a YAML file?"),
        (b"PK\x03\x04rest", "character '\\x03' is not allowed."),
        (b"a: !!python/object/apply:os.system ['x']\n", "tag 'tag:yaml.org,2002:python/object/apply:os.system'"),
        (b"initial_lr: 1\ninitial_lr: 2\n", "line 2: initial_lr is a duplicate key, first on line 1."),
        (b"a: " + b"x" * MAX_BYTES, f"is larger than {MAX_BYTES:,} bytes. Is it a recipe?"),
        (b"epochs: 3\n", "' has no training_hyperparams."),
        (b"training_hyperparams: 3\n", "training_hyperparams is 3; expected names and values."),
        (b"training_hyperparams:\n", "training_hyperparams is None; expected names and values."),
        (b"initial_lr: x\nseed: y\n", "training parameters of super-gradients: 2 errors."),
    ],
)
def test_files_that_are_no_recipes(tmp_path: Path, data: bytes, expected: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(data)
    text = refusal(path)
    assert text.startswith(f"recipe '{path}'")
    assert expected in text
    assert len(text) < 1000


def test_many_problems_are_not_all_listed(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("a: 1\n" * 100)
    text = refusal(tmp_path / "bad.yaml")
    assert ": 99 errors." in text
    assert len(text.splitlines()) == 11


def test_a_recipe_of_which_the_better_half_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "half.yaml"
    for text in ("training_hyperparams: {seed: 1}\n", ""):
        path.write_text("defaults:\n  - training_hyperparams: gone\n" + text)
        assert f"It includes training_hyperparams/gone, not found beside it. {RESOLVE}" in refusal(path)


def test_nested_defaults_are_told(tmp_path: Path) -> None:
    values: dict[str, Any] = recipe(tmp_path, "training_params: {initial_lr: 0.1, defaults: [x]}").left_out
    assert values["defaults"].startswith("unknown to super-gradients.")
