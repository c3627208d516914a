import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

import zoo
from tools.cli import main
from zoo.models import registry
from zoo.training.run import TrainingRun

ROOT = Path(__file__).parents[2]
FAST = ["--set", "num_workers=0", "--epochs", "1", "--batch-size", "4", "--image-size", "32", "--device", "cpu"]


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["finetune", "timm/resnet10t", str(images), "--no-pretrained", "-o", str(folder), *FAST]) == 0
    return folder


def call(capsys, *argv):
    """Return exit code, standard output and standard error."""
    code = main([str(word) for word in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


COMMANDS = ["models", "describe", "plan", "schedules", "optimizers", "finetune", "evaluate", "predict", "preset"]
COMMANDS += ["runs", "compare", "average", "extend", "search", "suggest", "report", "export"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(capsys, command):
    code, out, _ = call(capsys, command, "--help")
    assert code == 0
    assert f"zoo {command}" in out
    assert "Example" in out or "export" in out


def test_the_list_and_describe_tell_licence_score_and_weights(capsys):
    code, out, _ = call(capsys, "models")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert set(zoo.list_models()) <= set(lines)
    assert "80.38 %" in lines["resnet50"]
    assert "apache-2.0" in lines["resnet50"]
    assert call(capsys, "models", "mobile*", "--names")[1].split() == zoo.list_models("mobile*")
    assert call(capsys, "models", "vgg*")[0] == 2
    code, out, _ = call(capsys, "describe", "resnet18")
    assert code == 0
    assert re.search(r"weights revision +b9c542640ca0", out)
    assert "{'fc': 0.01, 'default': 0.0}" in out


def test_models_of_ones_own_are_listed_and_described(capsys, monkeypatch):
    zoo.list_models()
    monkeypatch.setattr(registry, "_ENTRIES", registry.entries())
    zoo.register_model("my_net")(lambda num_classes: nn.Linear(3, num_classes))
    code, out, _ = call(capsys, "models", "my*")
    assert code == 0
    assert re.search(r"my_net +classification +- +224 px +- +- +none +no", out)
    code, out, _ = call(capsys, "describe", "my_net")
    assert code == 0
    assert re.search(r"\nweights +none\n", out)
    assert "fine-tune" not in out


def test_the_examples_of_finetune_say_rates_that_can_be(capsys):
    _, out, _ = call(capsys, "finetune", "--help")
    lines = [shlex.split(line) for line in out.splitlines() if line.strip().startswith("zoo finetune resnet")]
    assert len(lines) == 9
    kept = ("--solver", "--lr", "--mode", "--preset", "--set", "--epochs")
    for _, _, model, _, *options in lines:
        pairs = [pair for pair in zip(options[::2], options[1::2], strict=True) if pair[0] in kept]
        pairs = [("--set", f"epochs={value}") if name == "--epochs" else (name, value) for name, value in pairs]
        assert main(["plan", model, "--no-picture", *(word for pair in pairs for word in pair)]) == 0


def test_finetune_evaluate_predict(capsys, images, run):
    code, out, _ = call(capsys, "evaluate", run, images, "--device", "cpu", "--json")
    assert code == 0
    scores = json.loads(out)
    assert scores["images"] > 0
    assert scores["top1"] == json.loads((run / "evaluation.json").read_text())["top1"]
    code, out, _ = call(capsys, "predict", run, images / "val", "--top", "2", "--json")
    answers = json.loads(out)
    assert len(answers) == scores["images"]
    assert len(answers[0]["names"]) == 2
    code, out, _ = call(capsys, "predict", run, next((images / "val").rglob("*.png")))
    assert code == 0
    assert "%" in out


def test_a_preset_exported_from_a_run_repeats_it(capsys, images, run, tmp_path):
    preset = tmp_path / "my.yaml"
    assert call(capsys, "preset", "export", run, "-o", preset)[0] == 0
    assert call(capsys, "preset", "validate", preset)[0] == 0
    assert call(capsys, "finetune", images, "--preset", preset, "-o", tmp_path / "again")[0] == 0
    first, second = (folder / "model.safetensors" for folder in (run, tmp_path / "again"))
    assert first.read_bytes() == second.read_bytes()
    again = tmp_path / "again.yaml"
    assert call(capsys, "preset", "export", tmp_path / "again", "-o", again)[0] == 0
    assert again.read_bytes() == preset.read_bytes()


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["finetune"], "expected a model and a folder, got nothing"),
        (["finetune", "resnet18"], "expected a model and a folder, got resnet18"),
        (["finetune", "resnet1", "."], "unknown model 'resnet1'. Did you mean 'resnet18'"),
        (["finetune", "resnet18", "/no/such/folder"], "there is no folder '/no/such/folder'"),
        (["finetune", "resnet18", ".", "--lr", "fast"], "--lr is 'fast'; expected a number such as 0.01"),
        (["finetune", "resnet18", ".", "--lr", "fc=0.1,default"], "--lr: 'default' is no key=rate"),
        (["finetune", "resnet18", ".", "--lr", "fc=0.1"], "default"),
        (["finetune", "resnet18", ".", "--lr", "-1"], "lr is -1;"),
        (["finetune", "resnet18", ".", "--set", "epoch=3"], "unknown key 'epoch'. Did you mean 'epochs'"),
        (["finetune", "resnet18", ".", "--preset", "classify-head"], "Did you mean 'classify-heads'"),
        (["finetune", "resnet18", ".", "--epochs", "many"], "Invalid value for '--epochs'"),
        (["finetune", "resnet18", ".", "--epoch", "3"], "No such option"),
        (["finetune", "--resume", "/no/such/run"], "there is no folder or file '/no/such/run'"),
        (["evaluate", "/", "/"], "/ is not a run folder: it has no config.json"),
        (["predict", "tests", "x.jpg"], "is not a run"),
        (["describe", "resnet"], "unknown model 'resnet'"),
        (["frobnicate"], "No such command"),
    ],
)
def test_wrong_input_is_one_message_and_exit_code_2(capsys, argv, text):
    code, _, err = call(capsys, *argv)
    assert code == 2
    assert text in " ".join(err.split())
    assert "Traceback" not in err


def test_without_a_network_the_message_names_the_ways_out(capsys, hub, images, monkeypatch):
    monkeypatch.setattr("zoo.weights.attempts.RETRY_WAITS_SECONDS", (0.0,))
    hub.fail(".*", reset=True, times=None)
    code, _, err = call(capsys, "finetune", "resnet18", images, *FAST)
    assert code == 2
    assert all(way in err for way in ("zoo weights import", "the path", "--no-pretrained")), err


def test_the_module_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "zoo.tools.cli", "preset", "show", "none"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown preset 'none'")
    assert Path(zoo.__file__).parent.name == "zoo"


def test_ctrl_c_saves_says_how_to_go_on_and_resume_goes_on(capsys, images, tmp_path, monkeypatch):
    after, out = TrainingRun._after_step, str(tmp_path / "run")

    def stop(self, vote, position, loss):
        if position.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return after(self, vote, position, loss)

    monkeypatch.setattr(TrainingRun, "_after_step", stop)
    argv = ["finetune", "timm/resnet10t", images, "--no-pretrained", "--mode", "full", "-o", out, *FAST]
    code, _, err = call(capsys, *argv)
    assert code == 130
    assert f"Resume with: zoo finetune --resume {out}" in err
    monkeypatch.undo()
    assert main(["finetune", "--resume", out]) == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "finished"


def test_the_folder_is_claimed_before_the_data_is_looked_at(capsys, run, tmp_path):
    code, _, err = call(capsys, "finetune", "resnet18", "/no/such/images", "-o", run)
    assert code == 2
    assert "exists and is not empty; runs are never overwritten" in " ".join(err.split())
    code, _, err = call(capsys, "finetune", "resnet18", "/no/such/images", "-o", tmp_path / "new")
    assert (code, "there is no folder '/no/such/images'" in err) == (2, True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_data_is_looked_at_is_one_sentence(capsys, images, tmp_path, monkeypatch, number):
    monkeypatch.setattr("zoo.api.open_for_run", lambda *_, **__: signal.raise_signal(number))
    code, _, err = call(capsys, "finetune", "timm/resnet10t", images, "--no-pretrained", "-o", tmp_path / "run")
    assert code == 130
    assert " ".join(err.split()) == "stopped before the first step; no run folder was kept."
    assert not list(tmp_path.iterdir())


def test_an_interrupted_run_is_scored_with_a_note(capsys, images, run, tmp_path):
    out = shutil.copytree(run, tmp_path / "run")
    (out / "run.json").write_text('{"status": "interrupted"}')
    for command in (["evaluate", out, images, "--json", "--device", "cpu"], ["predict", out, images / "val", "--json"]):
        code, told, err = call(capsys, *command)
        assert code == 0
        assert json.loads(told)
        assert f"note: the run in {out} was interrupted; its weights are those of that moment" in " ".join(err.split())


@pytest.fixture
def on_full_disk(monkeypatch, capsys):
    """Return a function that runs a command whose output goes to a full disk: exit code and standard error."""
    if not Path("/dev/full").exists():
        pytest.skip("a device of Linux")

    def run_command(*argv):
        with open("/dev/full", "w") as full, monkeypatch.context() as patch:
            patch.setattr("sys.stdout", full)
            return main([str(word) for word in argv]), capsys.readouterr().err

    return run_command


@pytest.mark.parametrize("argv", ["models", "models --names", "schedules", "preset show classify-heads"])
def test_a_list_on_a_full_disk_ends_with_a_sentence(argv, on_full_disk):
    code, told = on_full_disk(*argv.split())
    assert code == 2
    assert re.fullmatch(r"error: .*output cannot be written: No space left on device\.\n", told)


def test_a_run_goes_on_without_its_output(images, tmp_path, on_full_disk):
    out = tmp_path / "run"
    code, told = on_full_disk("finetune", "timm/resnet10t", images, "--no-pretrained", "-o", out, *FAST)
    assert code == 0
    assert json.loads((out / "run.json").read_text())["status"] == "finished"
    assert "note: some of the output could not be written (No space left on device)" in told


def test_nobody_reads_a_list(tmp_path):
    """As with `zoo models | head -1`: no traceback, and nothing when the interpreter ends."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "tools.cli", "schedules"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_an_error_is_one_record(capsys):
    assert main(["finetune", "resnet18", "/no/such\nerror: fake\x1b[2J"]) == 2
    told = capsys.readouterr().err
    assert "\x1b" not in told
    assert len([line for line in told.splitlines() if line.startswith("error: ")]) == 1
    assert main(["--no-such\n\x1b[2Joption"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_errors_of_the_system_are_one_sentence(capsys, monkeypatch):
    def fail(*_, **__):
        raise PermissionError(13, "Permission denied", "/a/b")

    monkeypatch.setattr(zoo, "list_models", fail)
    assert main(["models"]) == 2
    assert capsys.readouterr().err == "error: /a/b: Permission denied\n"
