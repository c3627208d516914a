import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from tools.preset_commands import app
from zoo.errors import InputError, PresetError
from zoo.rates.spec import GroupSettings
from zoo.settings.files import list_presets, load_preset, read_preset
from zoo.settings.preset import Preset, preset_fields


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def output(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def error(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert isinstance(result.exception, InputError), result.output
    return str(result.exception)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "preset.yaml").write_text(Preset(model="resnet18", lr=1e-3, seed=7).to_yaml(full=True))
    return folder


def test_list_names_each_preset_and_its_purpose() -> None:
    lines = output("list").splitlines()
    assert [line.split()[0] for line in lines] == list_presets()
    for line in lines:
        name, _, purpose = line.partition("  ")
        assert purpose.strip() == read_preset(name).splitlines()[0].removeprefix("# ")


def test_show_prints_the_file_and_all_values_and_fields() -> None:
    assert output("show", "classify-heads") == read_preset("classify-heads")
    shown = output("show", "classify-heads", "--full")
    assert shown.startswith(read_preset("classify-heads"))
    assert shown.endswith(load_preset("classify-heads").to_yaml(full=True))
    shown = output("show", "--fields")
    first = [line.split()[0] for line in shown.splitlines() if line.strip("─")]
    assert first == ["fields", "field", *preset_fields(), "settings", "field", *GroupSettings.model_fields]
    fields = json.loads(output("show", "--fields", "--json"))
    assert [field["name"] for field in fields["fields"]] == list(preset_fields())
    assert json.loads(output("show", "classify-heads", "--json"))["lr"] == load_preset("classify-heads").lr
    assert "org/name[@revision]" in shown
    assert error("show").startswith("no preset is named.")
    assert "Did you mean 'classify-heads'" in error("show", "classify-head")


def test_validate_reports_every_file_and_all_errors(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("epochs: 3\n")
    bad.write_text("epochs: 0\nbatch: 3\n")
    result = run("validate", bad, good, "classify-full", tmp_path / "missing.yaml")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"preset '{bad}': 2 errors.",
        "  line 1: epochs is 0; expected an integer, 1 or more.",
        "  line 2: unknown key 'batch'. Did you mean 'batch_size'?",
        f"{good}: OK",
        "classify-full: OK",
        f"preset '{tmp_path / 'missing.yaml'}' cannot be read: No such file or directory.",
    ]
    assert output("validate", good, *list_presets()).count("OK") == 1 + len(list_presets())


def test_validate_holds_a_preset_against_its_model_and_notes_what_the_machine_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    bad, there = tmp_path / "bad.yaml", tmp_path / "there.yaml"
    bad.write_text("model: resnet18\noptimizer: SDG\nmixup: 0.5\nlr: {default: 0, layer44: 0.1}\nepochs: -1\n")
    result = run("validate", bad)
    assert (result.exit_code, result.stdout.splitlines()[0]) == (1, f"preset '{bad}': 4 errors.")
    assert [line.split(":")[0] for line in result.stdout.splitlines()[1:]] == [
        f"  line {line}" for line in (2, 3, 4, 5)
    ]
    there.write_text("model: resnet18\ndevice: cuda\n")
    text = output("validate", there)
    assert text.startswith(f"{there}: OK\n  note: on this machine, device 'cuda' is not available")


def test_export_for_a_model(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    said = output(
        "export", "ResNet18", "-o", file, "--set", "lr=5e-3", "--set", "optimizer_params={betas: [0.9, 0.99]}"
    )
    assert said == f"wrote {file}. Use it: zoo finetune DATA --preset {file}\n"
    expected = load_preset("classify-heads").replace(
        model="resnet18", lr=0.005, optimizer_params={"betas": [0.9, 0.99]}
    )
    assert load_preset(file) == expected
    assert file.read_text().splitlines()[:2] == [
        "# Fine-tunes resnet18. Fields that are not here have their default: zoo preset show --fields",
        "# zoo finetune DATA --preset THIS_FILE",
    ]


def test_export_starts_from_another_preset_or_reports_what_is_wrong(tmp_path: Path) -> None:
    written = output("export", "resnet18", "--preset", "classify-full")
    assert "model: resnet18\n" in written
    assert "mode: full\n" in written
    assert "Did you mean 'resnet50'" in error("export", "resnet5")
    assert "unknown preset 'nope'" in error("export", "resnet18", "--preset", "nope")
    text = error("export", "resnet18", "--set", "epochs=0", "--set", "lrr=1")
    assert "2 errors" in text
    assert "epochs is 0; expected an integer, 1 or more." in text
    assert "unknown key 'lrr'. Did you mean 'lr'?" in text
    assert "expected key=value" in error("export", "resnet18", "--set", "epochs")
    assert "preset.yaml' cannot be read: No such file" in error("export", tmp_path)


def test_export_from_a_run(finished: Path, tmp_path: Path) -> None:
    written = output("export", finished, "--set", "epochs=3")
    assert {"model: resnet18", "lr: 0.001", "epochs: 3", "seed: 7", "label_smoothing: 0.0"} <= set(written.splitlines())
    assert "# Fine-tunes resnet18." in written
    own = (finished / "preset.yaml").read_text()
    assert output("export", finished, "--full").endswith(own)
    assert "its own preset is taken. Leave out --preset." in error("export", finished, "--preset", "classify-full")
    file = tmp_path / "my.yaml"
    output("export", finished, "-o", file)
    assert output("export", finished) == output("export", finished, "-o", "-") == file.read_text()


def test_export_from_a_run_of_a_model_that_was_brought(finished: Path) -> None:
    (finished / "preset.yaml").write_text("epochs: 3\n")
    assert output("export", finished).startswith("# Fine-tunes a model that you bring.")


def test_export_from_a_damaged_run(finished: Path) -> None:
    (finished / "preset.yaml").write_text("epochs: 0\n")
    result = run("export", finished)
    assert isinstance(result.exception, PresetError)
    assert "line 1: epochs is 0" in str(result.exception)


def test_export_load_export_gives_identical_bytes(finished: Path, tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("first.yaml", "second.yaml", "third.yaml"))
    output("export", finished, "-o", first, "--set", "lr={default: 0, fc.: 1e-3}")
    output("export", "resnet18", "--preset", first, "-o", second, "--full")
    assert first.read_bytes() == second.read_bytes()
    (finished / "preset.yaml").write_bytes(second.read_bytes())
    output("export", finished, "-o", third)
    assert first.read_bytes() == third.read_bytes()


def test_export_overwrites_only_when_told(finished: Path, tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("precious")
    assert "exists. Choose another name, or replace it with --force." in error("export", finished, "-o", file)
    assert file.read_text() == "precious"
    output("export", finished, "-o", file, "--force")
    assert load_preset(file).seed == 7


def test_export_to_where_nothing_can_be_written(finished: Path, tmp_path: Path) -> None:
    assert "cannot be written: No such file or directory" in error(
        "export", finished, "-o", tmp_path / "no" / "my.yaml"
    )
    assert "cannot be written: Is a directory" in error("export", finished, "-o", tmp_path, "--force")


def test_help_teaches_by_example() -> None:
    assert "zoo preset export resnet50 -o my.yaml --set lr=0.005" in output("export", "--help")
    for command in ("list", "show", "validate"):
        assert f"zoo preset {command}" in output(command, "--help")
    assert "zoo preset import-sg recipe.yaml -o preset.yaml --clean" in output("import-sg", "--help")


RECIPE = """\
architecture: resnet18
dataset_params: {train_dataloader_params: {batch_size: 64}}
training_hyperparams:
  initial_lr: {fc: 0.02, default: 0}
  max_epochs: 12
  lr_mode: CosineLRScheduler
  lr_warmup_epochs: 2
  sync_bn: True
  "odd\\nkey": 3
  "\\e[2J": [1]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


def test_import_sg_writes_a_preset_that_loads(recipe: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    said = output("import-sg", recipe, "-o", file)
    assert said.splitlines()[-1] == f"wrote {file}. See what learns: zoo plan resnet18 --preset {file}"
    assert load_preset(file) == Preset(
        model="resnet18",
        compat="super-gradients",
        lr={"fc": 0.02, "default": 0.0},
        optimizer_params={"momentum": 0.9},
        weight_decay=1e-4,
        decay_norm_and_bias=True,
        training_params={"odd\nkey": 3},
        epochs=12,
        batch_size=64,
        warmup_epochs=2.0,
        seed=42,
    )
    assert file.read_text().splitlines()[:4] == [
        "# From recipe.yaml, a recipe of super-gradients. Fields that are not here have their default: "
        "zoo preset show --fields",
        "# Left out: sync_bn, ?[2J, dataset_params",
        "# zoo finetune DATA --preset THIS_FILE",
        "model: resnet18",
    ]


def test_import_sg_shows_every_key(recipe: Path, tmp_path: Path) -> None:
    said = output("import-sg", recipe, "-o", tmp_path / "mine.yaml")
    for key in ("initial_lr", "max_epochs", "lr_mode", "lr_warmup_epochs", "architecture", "dataset_params", "sync_bn"):
        assert f"\n{key} " in said
    assert "odd key" in said
    assert "?[2J" in said
    assert "\x1b" not in said
    assert "norm statistics are computed per process" in said
    assert "dataset_params.train_dataloader_params.batch_size" in "".join(
        part for row in said.splitlines() if "dataset" in row or "batch_size" in row for part in row.split()[:1]
    )


def test_import_sg_prints_the_preset_alone(recipe: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    output("import-sg", recipe, "-o", file)
    result = run("import-sg", recipe)
    assert result.stdout == file.read_text()
    assert "lr_warmup_epochs" in result.stderr
    assert result.stdout == run("import-sg", recipe, "-o", "-").stdout


def test_import_sg_keeps_what_is_meant(recipe: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    output("import-sg", recipe, "-o", file, "--clean")
    preset = load_preset(file)
    assert (preset.compat, preset.warmup_epochs, preset.warmup_start) == (None, 2.0, pytest.approx(1 / 3))


def test_import_sg_of_a_model_that_is_brought(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("initial_lr: 0.1\n")
    said = output("import-sg", tmp_path / "recipe.yaml", "-o", tmp_path / "mine.yaml")
    assert "See what learns: zoo plan MODEL --preset" in said
    assert "left out" not in said
    lines = (tmp_path / "mine.yaml").read_text().splitlines()
    assert lines[1:3] == ["# Left out: nothing", "# zoo finetune MODEL DATA --preset THIS_FILE"]


def test_import_sg_overwrites_only_when_told(recipe: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("precious")
    assert "exists. Choose another name, or replace it with --force." in error("import-sg", recipe, "-o", file)
    assert file.read_text() == "precious"
    output("import-sg", recipe, "-o", file, "--force")
    assert load_preset(file).epochs == 12


def test_import_sg_refuses_what_is_no_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    assert "cannot be read: No such file or directory." in error("import-sg", tmp_path / "no.yaml", "-o", file)
    (tmp_path / "bad.yaml").write_bytes(b"\x80binary")
    assert "is not UTF-8 text (byte 0)." in error("import-sg", tmp_path / "bad.yaml", "-o", file)
    (tmp_path / "bad.yaml").write_text("epochs: 3\n")
    assert "' has no training_hyperparams." in error("import-sg", tmp_path / "bad.yaml", "-o", file)
    assert not file.exists()
