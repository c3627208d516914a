import inspect
import re
import shlex

import pytest
import torch

from tools import list_commands
from tools.cli import main
from zoo.optim import catalog as optimizers
from zoo.optim.catalog import list_optimizers, register_optimizer
from zoo.rates.schedules import parse as schedule
from zoo.rates.schedules.base import Curve
from zoo.rates.schedules.curves import CURVES
from zoo.rates.schedules.parse import list_schedules, register_schedule


def output(capsys, *argv):
    assert main(list(argv)) == 0
    return capsys.readouterr().out


def rows(text, title):
    """The first word of every row of a table."""
    lines = text.partition(f"{title}\n")[2].splitlines()
    return [line.split()[0] for line in lines[2 : lines.index("") if "" in lines else None]]


def test_every_schedule_is_there_with_its_settings(capsys):
    out = output(capsys, "schedules")
    assert rows(out, "schedules") == list_schedules()
    assert set(list_commands._SHAPES) == set(list_schedules()) - set(schedule._REGISTERED)
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    for kind, curve in CURVES.items():
        own = {field.alias or name for name, field in curve.model_fields.items() if name not in Curve.model_fields}
        assert all(re.search(rf"\b{name}\b", lines[kind]) for name in own), kind
    assert "final_ratio 0.01" in lines["cosine"]
    named = out.partition("all take also:")[2]
    assert all(name in named for name in Curve.model_fields if name != "kind")


def test_a_registered_schedule_is_there(capsys, monkeypatch):
    monkeypatch.setattr(schedule, "_REGISTERED", {})
    register_schedule("halving")(lambda step: 0.5**step)
    assert re.search(r"halving +a registered function +-", output(capsys, "schedules"))


def test_every_optimizer_is_there(capsys):
    out = output(capsys, "optimizers")
    assert rows(out, "optimizers") == list_optimizers()
    for line in out.splitlines()[3:]:
        assert len(line.split()) > 3, f"nothing is said of it: {line}"
    assert re.search(r"AdamW +torch +0\.01 +Adam with decoupled weight decay", out)
    assert re.search(r"SGD +torch +0\.0001 +Stochastic Gradient Descent", out)
    assert re.search(r"lamb +timm +0\.01 +Layer-wise Adaptive Moments", out)
    assert re.search(r"adamc +timm +0\.01 +AdamW with corrected weight decay", out)
    assert re.search(r"MindSporeAdam +zoo +0 +Adam as `mindspore\.nn\.Adam` computes it", out)


def test_a_pattern_chooses_and_one_name_tells_its_arguments(capsys):
    assert rows(output(capsys, "optimizers", "RMS*"), "optimizers") == [
        name for name in list_optimizers() if name.lower().startswith("rms")
    ]
    out = output(capsys, "optimizers", "adam_w")
    assert rows(out, "optimizer_params of AdamW") == sorted(
        set(inspect.signature(torch.optim.AdamW).parameters) - {"params", "lr", "weight_decay"}
    )
    assert re.search(r"betas +\(0\.9, 0\.999\)", out)
    assert re.search(r"momentum +0\.9\b", output(capsys, "optimizers", "sgd"))
    assert main(["optimizers", "zzz"]) == 2
    assert "no optimizer fits 'zzz'. zoo optimizers lists all." in capsys.readouterr().err


def test_a_registered_optimizer_is_there(capsys, monkeypatch):
    monkeypatch.setattr(optimizers, "_registered", {})

    @register_optimizer()
    class Mine(torch.optim.SGD):
        """Plain descent.

        And more.
        """

    assert re.search(r"Mine +registered +0 +Plain descent\n", output(capsys, "optimizers", "mine"))


@pytest.mark.parametrize("command", ["schedules", "optimizers"])
def test_the_examples_of_the_help_run(capsys, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [line for line in output(capsys, command, "--help").splitlines() if line.startswith("    zoo ")]
    assert len(lines) >= 3
    for line in lines:
        _, *argv = shlex.split(line, comments=True)
        assert main([*argv, *["--no-picture"] * (argv[0] == "plan")]) == 0, line
