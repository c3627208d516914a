import json
import subprocess
import sys

import pytest
import typer

from tools.cli import app, main
from tools.command_line import COMMANDS, OPTIONS, Group, speak_commands
from zoo._version import VERSION


def refusal(capsys, *argv):
    assert main(list(argv)) == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("train", "No such command 'train'. Did you mean 'finetune'? zoo --help lists all."),
        ("val x", "Did you mean 'evaluate'?"),
        ("detect", "Did you mean 'predict'?"),
        ("finetun", "Did you mean 'finetune'?"),
        ("weights download", "No such command 'download'. Did you mean 'pull'? zoo weights --help lists all."),
        ("finetune --learning-rate 1", "No such option --learning-rate. Did you mean --lr?"),
        ("finetune --weight-decay 1", "Did you mean --set weight_decay=VALUE?"),
        ("finetune --imgsz 1", "Did you mean --image-size?"),
        ("finetune --workers 1", "Did you mean --set num_workers=VALUE?"),
        ("finetune --output x", "Did you mean --out?"),
        ("finetune --model x", "MODEL is an argument: zoo finetune [OPTIONS] [MODEL] DATA."),
        ("predict --topk 3", "Did you mean --top?"),
        ("models --jsn", "Did you mean --json?"),
        ("evaluate x", "Missing argument 'DATA'. Usage: zoo evaluate [OPTIONS] RUN DATA"),
        ("finetune --zzz", "No such option --zzz. zoo finetune --help lists all."),
    ],
)
def test_a_wrong_word_is_answered_with_the_right_one(capsys, argv, text):
    assert text in refusal(capsys, *argv.split())


def all_commands(group, path=("zoo",)):
    for name, command in group.commands.items():
        yield " ".join((*path, name)), command
        if hasattr(command, "commands"):
            yield from all_commands(command, (*path, name))


ALL = dict(all_commands(typer.main.get_command(app)))


def test_what_is_suggested_exists():
    for meant in (word.split(" or ")[0].split(",")[0] for word in COMMANDS.values()):
        words = [word for word in meant.split() if word.islower() and not word.startswith("-")]
        assert not words or f"zoo {' '.join(words)}" in ALL
    options = {option for command in ALL.values() for parameter in command.params for option in parameter.opts}
    assert {meant.split()[0] for meant in OPTIONS.values() if not meant.startswith("zoo")} <= options


@pytest.mark.parametrize("path", [path for path, command in ALL.items() if not hasattr(command, "commands")])
def test_every_help_has_examples_and_says_every_default(path, capsys):
    assert main([*path.split()[1:], "--help"]) == 0
    text = capsys.readouterr().out
    assert f"    {path}" in text or f"Example: {path}" in text
    assert text.splitlines()[0].startswith(f"Usage: {path} [OPTIONS]")
    assert not any(mark in text for mark in ("<str>", "<int>", "<float>", "<path>", "[["))
    for parameter in ALL[path].params:
        assert parameter.help or parameter.name == "help" or parameter.hidden, f"{path} {parameter.name}"


def test_the_summary_of_every_command_is_whole_at_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for group in ("", "weights", "preset", "data", "cache"):
        assert main([*group.split(), "--help"]) == 0
        assert "..." not in capsys.readouterr().out.partition("Commands:")[2]


def test_without_words_the_help_is_printed_to_standard_output(capsys):
    for group in ([], ["weights"], ["preset"]):
        assert main(group) == 0
        out, err = capsys.readouterr()
        assert out.startswith(f"Usage: {' '.join(['zoo', *group])}")
        assert err == ""


def test_the_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"zoo {VERSION}\n"
    done = subprocess.run([sys.executable, "-m", "zoo", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"zoo {VERSION}\n"


def test_what_a_bug_report_needs_is_collected_without_secrets(capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy:3128")
    assert main(["env"]) == 0
    text = capsys.readouterr().out
    assert main(["env", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["zoo"] == VERSION
    assert facts["packages"]["torch"] in text
    assert facts["devices"][-1] == "cpu"
    assert set(facts["caches"]) == {"weights", "features", "other files"}
    assert facts["variables"]["HF_TOKEN"] == "(set)"
    assert "secret" not in text + json.dumps(facts)
    assert facts["variables"]["HTTPS_PROXY"] == "http://proxy:3128"


LISTS = ["models resnet*", "describe resnet18", "schedules", "optimizers rmsprop", "preset list", "cache list"]
LISTS += ["preset show --fields", "preset show classify-heads", "preset validate classify-heads", "weights list"]


@pytest.mark.parametrize("command", LISTS)
def test_what_is_listed_is_json_alone_on_standard_output(command, capsys):
    assert main([*command.split(), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) is not None


def test_groups_are_of_the_class_that_suggests():
    assert all(isinstance(command, Group) for command in ALL.values() if hasattr(command, "commands"))


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("There are 28 (`zoo models`, zoo.list_models()); x", "There are 28 (`zoo models`); x"),
        ("pass its path (--weights, pretrained='/a/b'). Or (--no-pretrained, pretrained=False).",
         "pass its path (--weights '/a/b'). Or (--no-pretrained)."),
        ("(--weights, pretrained=); (--no-pretrained, pretrained=False).", "(--weights); (--no-pretrained)."),
        ("or pass them (--weights, pretrained=), or", "or pass them (--weights), or"),
        ("this run's weights (--weights, pretrained=).", "this run's weights (--weights)."),
        ("use cache=memory or cache=off", "use --set cache=memory or --set cache=off"),
        ("--set precision=bf16; train it too (mode=full)", "--set precision=bf16; train it too (--mode full)"),
        ("passing skip_bad=True (--skip-bad) to", "passing --skip-bad to"),
    ],
)  # fmt: skip
def test_messages_speak_of_commands_and_options(text, spoken):
    assert speak_commands(text) == spoken
