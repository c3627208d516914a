"""Without the extras: every command works, or names the extra it lacks in one line."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import typer

from boxed_folder import write_boxed
from coloured_folder import write_coloured
from tools.cli import app

ROOT = Path(__file__).parents[2]
NOT_FOR_USERS = {"dev", "docs", "bench", "openvino"}  # the last is for one command, and not installed for tests
TINY = "timm/test_resnet"
CLASSIFY = ("finetune", TINY, "flowers", "--no-pretrained", "--epochs", "1", "--image-size", "32", "-o", "run")
DETECT = ("--no-pretrained", "--epochs", "1", "--image-size", "64")
COMMANDS = {  # in this order: what is typed, and the extra that it names; None: it works
    ("env",): None,
    ("models",): None,
    ("describe", "resnet18"): None,
    ("plan", TINY, "--classes", "3"): None,
    ("schedules",): None,
    ("optimizers",): None,
    CLASSIFY: None,
    (*CLASSIFY[:-1], "run-2"): None,
    ("evaluate", "run", "flowers"): None,
    ("embed", "run", "flowers", "-o", "features.npz", "--nearest", "flowers/val/red/00.png"): None,
    ("embed", "run", "flowers", "-o", "features.parquet"): "parquet",
    ("crossvalidate", "run", "flowers", "--solver", "prototype", "--folds", "2"): None,
    ("crossvalidate", "run", "flowers", "--group-by", "[0-9]+"): "analysis",
    ("runs", "."): None,
    ("compare", "run", "run-2"): None,
    ("average", "run", "run-2"): None,
    ("extend", "run", "tulips", "--max-drop", "100"): None,
    ("suggest", "flowers", "--models", "run", "--image-size", "32"): None,
    ("search", TINY, "flowers", "--set", "pretrained=false"): "search",
    ("report", "run"): None,
    ("export", "run", "-o", "exported"): "export",
    ("benchmark", "run", "--no-compile", "--rounds", "1", "--batch", "1"): None,
    ("data", "split", "flowers/train", "-o", "split.csv"): None,
    ("predict", "run", "flowers/val/red"): None,
    ("push", "run", "org/name", "--dry-run"): None,
    ("preset", "list"): None,
    ("preset", "show", "classify-heads"): None,
    ("preset", "validate", "run/preset.yaml"): None,
    ("preset", "export", "run", "-o", "my.yaml"): None,
    ("preset", "import-sg", "recipe.yaml", "-o", "translated.yaml"): None,
    ("data", "check", "flowers"): None,
    ("data", "check", "flowers", "--model", "run"): "check",
    ("data", "check", "cells"): "detection",
    ("weights", "list"): None,
    ("weights", "where", "resnet18"): None,
    ("weights", "verify"): None,
    ("cache", "list"): None,
    ("cache", "clear", "--all"): None,
    ("describe", "dfine_n"): "transformers",
    ("finetune", "efficientnet_lite0", "flowers"): "lite",
    ("finetune", "yolo_nas_s", "cells", *DETECT): "detection",
    ("finetune", "dfine_n", "cells", *DETECT): "detection",
}
ELSEWHERE = {"weights pull", "weights export", "weights import", "convert"}  # need weights, and are tested with them
SCRIPT = """
import contextlib, io, json, sys, traceback
from importlib.machinery import PathFinder

packages, modules, commands = map(json.loads, sys.argv[1:])

class Finder(PathFinder):  # of an environment in which the packages are not installed
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in modules else PathFinder.find_spec(name, path, target)

    @staticmethod
    def find_distributions(context):
        return (one for one in PathFinder.find_distributions(context) if one.name not in packages)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
from zoo.tools.cli import main
for command in commands:
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            status = main(command)
        except BaseException:
            status = traceback.format_exc()
    print(json.dumps([command, status, told.getvalue()]), file=sys.__stdout__)
"""


def find_extras() -> tuple[list[str], list[str]]:
    """Return what the extras bring: names of packages, and of their modules."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]["optional-dependencies"]
    wanted = {
        normalize(re.match(r"[\w.-]+", line)[0]) for name in extras.keys() - NOT_FOR_USERS for line in extras[name]
    }
    owners = packages_distributions()
    wanted -= {"zoo-finetune"}  # of an extra that takes in another
    packages = {owner for found in owners.values() for owner in found if normalize(owner) in wanted}
    assert len(packages) == len(wanted), "all extras have to be installed, or nothing is hidden"
    return sorted(packages), sorted(module for module, found in owners.items() if packages & set(found))


def normalize(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Exit status and output of each command, of one process in which the extras cannot be imported."""
    desk = tmp_path_factory.mktemp("desk")
    write_coloured(desk / "flowers", train=4, val=2)
    for split in ("train", "val"):
        shutil.copytree(desk / "flowers" / split / "red", desk / "tulips" / split / "tulip")
    write_boxed(desk / "cells", train=3, val=2)
    (desk / "recipe.yaml").write_text("training_hyperparams: {initial_lr: 0.01, max_epochs: 2, loss: CrossEntropyLoss}")
    packages, modules = find_extras()
    command = [sys.executable, "-c", SCRIPT, *map(json.dumps, (packages, modules, list(COMMANDS)))]
    done = subprocess.run(command, cwd=desk, capture_output=True, text=True, check=True)
    return {tuple(command): (status, told) for command, status, told in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_works_or_names_the_extra(command, answers):
    (status, told), extra = answers[command], COMMANDS[command]
    if extra is None:
        assert status == 0, told
    else:
        assert status == 2, told
        assert len(re.findall(rf"^.*\[(?:\w+,)*{extra}(?:,\w+)*\].*$", told, re.MULTILINE)) == 1, told


def test_every_command_is_tried():
    tried = {" ".join(command[:length]) for command in COMMANDS for length in (1, 2)}
    assert set(list_commands(typer.main.get_command(app))) - ELSEWHERE <= tried


def list_commands(group, name=""):
    for key, command in group.commands.items():
        yield from list_commands(command, f"{key} ") if hasattr(command, "commands") else [name + key]
