import io
import json
import os
import re
import shlex
import sys

import pytest
from PIL import Image

import zoo
from tools import plan_command
from tools.cli import main

TINY = "timm/test_resnet"
FAST = ["--no-picture"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(capsys, *argv):
    """Return exit code, standard output and standard error."""
    code = main(["plan", *map(str, argv)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def output(capsys, *argv):
    code, out, err = call(capsys, *argv)
    assert code == 0, err
    return out


def table(text, title):
    """The cells of the rows below a title, by their first cell; cells are apart by two spaces or more."""
    lines = text.partition(f"{title}\n")[2].splitlines()
    columns = re.split(r" {2,}", lines[0].strip())
    found = {}
    for line in lines[2:]:
        if not line or line.startswith(("plot", "─")):
            break
        cells = re.split(r" {2,}", line.strip())
        found[cells[0]] = dict(zip(columns, cells, strict=False))
    return found


def test_every_example_of_the_help_runs(capsys):
    lines = [line.strip() for line in output(capsys, "--help").splitlines() if line.startswith("    zoo plan")]
    assert len(lines) == 9
    for line in lines:
        _, *argv = shlex.split(line.removesuffix("--plot low.png"), comments=True)  # there is no plot here
        assert main([*argv, *FAST]) == 0, line


def test_the_table_of_groups_and_their_rates_over_the_run(capsys):
    out = output(capsys, "resnet18", "--lr", "fc=0.01,layer4=0.001,default=0", *FAST)
    assert re.search(r"layer4 +trained +5 +8,388,608 +0.001", out)
    assert re.search(r"total +76.19% trained", out)
    assert "\n10 epochs × 100 steps (assumed; --steps-per-epoch says it)\n" in out
    rates = table(out, "rates over the run")
    assert list(rates) == ["default", "layer4", "fc"]  # the halves without decay have the same rates
    assert rates["fc"] | {"curve": ""} == {
        "prefix": "fc", "start": "0.001", "warmed up": "0.01", "half-way": "0.00545", "end": "1e-4", "curve": "",
    }  # fmt: skip
    assert rates["default"]["half-way"] == "-"
    assert rates["default"]["curve"] == "·" * 24
    assert rates["fc"]["curve"] == rates["layer4"]["curve"]
    assert rates["fc"]["curve"][0] == "▂"
    assert rates["fc"]["curve"][2] == "█"
    assert rates["fc"]["curve"][-1] == "▁"


def test_what_is_unfrozen_later_has_a_column_for_its_epoch(capsys):
    out = output(capsys, TINY, "--set", "unfreeze={3: layer4, 6: [layer3]}", "--set", "schedule=constant", *FAST)
    rates = table(out, "rates over the run")
    assert [rates["layer4"][at] for at in ("start", "warmed up", "epoch 3", "half-way", "end")] == [
        "0", "0", "0.001", "0.001", "0.001",
    ]  # fmt: skip
    assert rates["layer3"]["epoch 3"] == "0"
    assert rates["layer3"]["epoch 6"] == "0.001"
    assert rates["layer4"]["curve"] == "·" * 7 + "█" * 17


def test_many_unfreeze_points_do_not_make_many_columns(capsys):
    epochs = ", ".join(
        f"{epoch}: {name}" for epoch, name in enumerate(["layer4", "layer3", "layer2", "layer1", "bn1"], 1)
    )
    out = output(capsys, TINY, "--set", f"unfreeze={{{epochs}}}", *FAST)
    assert list(table(out, "rates over the run")["fc"]) == [
        "prefix", "start", "warmed up", "epoch 1", "epoch 3", "epoch 5", "end", "curve",
    ]  # fmt: skip


def test_several_warm_ups_are_told_by_their_step(capsys, folder):
    rates = "{default: 0.1, fc: {lr: 0.2, schedule: {kind: constant, warmup_steps: 7}}}"
    out = output(capsys, TINY, "--lr", rates, "--steps-per-epoch", 20, "--classes", 3, *FAST)
    assert table(out, "rates over the run")["fc"]["step 10"] == "0.2"
    assert (
        table(output(capsys, TINY, "--classes", 5, *FAST), f"lr plan of {TINY}")["fc (no decay)"]["parameters"] == "5"
    )
    (folder / "my.yaml").write_text(f"model: {TINY}\nlr: 0.5\n")
    assert table(output(capsys, "--preset", "my.yaml", *FAST), f"lr plan of {TINY}")["fc"]["lr"] == "0.5"


@pytest.mark.parametrize(
    ("options", "length"),
    [
        (["--epochs", 3, "--images", 100, "--batch-size", 8, "--set", "accumulate=2"], "3 epochs × 7 steps = 21"),
        (["--steps-per-epoch", 157], "10 epochs × 157 steps = 1,570"),
        (["--steps-per-epoch", 1, "--set", "epochs=1"], "1 epoch × 1 step = 1"),
        ([], "10 epochs × 100 steps (assumed; --steps-per-epoch says it)"),
    ],
)
def test_the_length_of_the_run_is_said(capsys, options, length):
    assert f"\n{length}\n" in output(capsys, TINY, *options, *FAST)


def test_the_reasons_stand_beside_the_rates_of_a_step(capsys):
    options = [TINY, "--lr", "{default: 0, fc: {lr: 0.01, lr_scale: 0.3}}", "--set", "warmup_steps=10", *FAST]
    out = output(capsys, *options, "--step", 3)
    assert "\nrates at step 3, after 0.03 epochs\n" in out
    assert re.search(r"\nfc        0\.00111 = 0\.01 × 0\.3 × warm-up 3/10 \(0\.37\)\n", out)
    assert "\ndefault   0: frozen\n" in out
    out = output(capsys, TINY, "--set", "unfreeze={3: layer4}", *FAST, "--epoch", 1)
    assert "\nrates at step 100, after 1 epoch\n" in out
    assert "\nlayer4    0: frozen until epoch 3\n" in out


def test_as_data(capsys, folder):
    plan = json.loads(output(capsys, TINY, "--json"))
    assert plan["digest"] == zoo.plan(zoo.get(TINY)).digest
    assert {group["name"] for group in plan["groups"]} == {"default", "fc", "fc (no decay)"}
    assert list(folder.iterdir()) == []
    plan = json.loads(output(capsys, TINY, "--json", "--step", 5, "-o", "my.png"))
    assert plan["rates"]["fc"] == pytest.approx(0.01 * (0.1 + 0.9 * 5 / 50))
    assert plan["reasons"]["default"] == "0: frozen"
    assert (folder / "my.png").is_file()


def test_letters_that_cannot_be_printed_are_left_out(capsys, monkeypatch):
    monkeypatch.setattr(plan_command, "_can_print", lambda text: False)
    assert "curve" not in table(output(capsys, TINY, *FAST), "rates over the run")["fc"]
    monkeypatch.undo()
    with io.TextIOWrapper(io.BytesIO(), encoding="ascii") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert not plan_command._can_print(plan_command.BARS)
        assert plan_command._can_print("fc")


@pytest.mark.parametrize(("columns", "letters"), [(200, 24), (65, 17), (30, 8)])
def test_the_curve_takes_the_room_that_a_terminal_leaves(capsys, monkeypatch, columns, letters):
    with monkeypatch.context() as patch:
        patch.setattr(sys.stdout, "isatty", lambda: True)
        patch.setattr(plan_command.shutil, "get_terminal_size", lambda: os.terminal_size((columns, 24)))
        rows = plan_command._rates_over_the_run(zoo.plan(zoo.get(TINY)))
    assert {len(row["curve"]) for row in rows} == {letters}


# The plot


def test_the_plot_is_written_and_named_last(capsys, folder):
    assert "plot" not in output(capsys, TINY)
    assert list(folder.iterdir()) == []
    out = output(capsys, TINY, "--plot", "plan.png")
    assert out.endswith("\nplot: plan.png\n")
    with Image.open(folder / "plan.png") as image:
        assert image.width > 1000
    first = (folder / "plan.png").read_bytes()
    output(capsys, TINY, "--mode", "full", "--plot", "plan.png")  # a plot that was drawn before is replaced
    assert (folder / "plan.png").read_bytes() != first
    assert [path.name for path in folder.iterdir()] == ["plan.png"]
    output(capsys, TINY, "-o", "other.png")
    assert (folder / "other.png").is_file()


def test_what_is_no_plot_of_a_plan_is_not_written_over(capsys, folder):
    assert "plot" not in output(capsys, TINY, "--no-picture")
    assert list(folder.iterdir()) == []
    Image.new("RGB", (8, 8)).save(folder / "plan.png")
    assert call(capsys, TINY, "-o", "plan.png")[0] == 2


@pytest.mark.parametrize("content", [b"notes", b"", b"\x89PNG\r\n\x1a\n" + b"\0" * 600])
def test_nothing_else_is_written_over(capsys, folder, content):
    (folder / "plan.png").write_bytes(content)
    code, out, err = call(capsys, TINY, "--plot", "plan.png")
    assert (code, out) == (2, "")
    assert "'plan.png' exists and was not drawn by zoo. Choose another name." in err
    assert (folder / "plan.png").read_bytes() == content


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plan.jpg", "the plot is a PNG, and 'plan.jpg' has another ending"),
        ("no/plan.png", "there is no folder 'no' for the plot"),
        ("folder.png", "'folder.png' exists and was not drawn by zoo"),
    ],
)
def test_names_that_cannot_be(capsys, folder, name, text):
    (folder / "folder.png").mkdir()
    code, _, err = call(capsys, TINY, "-o", name)
    assert code == 2
    assert text in err


def test_a_plot_that_cannot_be_written(capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zoo.rates.plan.Plan.plot", full)
    code, out, err = call(capsys, TINY, "--plot", "plan.png")
    assert code == 2
    assert "lr plan of" in out
    assert "'plan.png' cannot be written: No space left on device." in err


# Wrong input


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "no model is named. For example: zoo plan resnet18"),
        (["resnet1"], "unknown model 'resnet1'. Did you mean 'resnet18'"),
        ([TINY, "--lr", "fs=0.1,default=0"], "key 'fs' matches no parameter"),
        ([TINY, "--step", "1000"], "--step is 1000; expected 0 to 999: the run has 10 epochs × 100 steps (assumed;"),
        ([TINY, "--step", "-1"], "--step is -1; expected 0 to 999"),
        ([TINY, "--epoch", "10"], "--epoch is 10; expected 0 to 9, epochs that have passed."),
        ([TINY, "--epoch", "1", "--step", "1"], "--step is 1 and --epoch is 1. Leave out one of them."),
        ([TINY, "--images", "0"], "--images is 0; expected 1 or more."),
        ([TINY, "--images", "9", "--steps-per-epoch", "3"], "--steps-per-epoch has no effect beside --images."),
        ([TINY, "--steps-per-epoch", "0"], "steps_per_epoch is 0; expected 1 or more."),
        ([TINY, "--classes", "0"], "num_classes is 0; expected a whole number"),
        ([TINY, "--set", "schedule=cosin"], "schedule: unknown schedule 'cosin'. Did you mean 'cosine'?"),
        (
            [TINY, "--lr", "{default: 0, fc: {lr: [0.1, 0.2]}}"],
            "has 2 values; the run has 1000 optimizer steps (10 epochs of 100). Pass at least 1000 values, one per "
            "step. The length is 10 epochs × 100 steps (assumed; --steps-per-epoch says it).",
        ),
    ],
)
def test_wrong_input_is_one_message_and_nothing_is_written(capsys, folder, argv, text):
    code, out, err = call(capsys, *argv)
    assert (code, out) == (2, "")
    assert text in " ".join(err.split())
    assert list(folder.iterdir()) == []
