"""Two processes train as one does with batches of twice the size, on the CPU; both launchers are tried."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import finetune_script
import zoo
from boxed_folder import write_boxed
from coloured_folder import write_coloured

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "finetune_script.py"
SECONDS = 240
PER_CLASS = {"train": 16, "val": 7}  # 3 classes: 48 are 3 steps of 16; 21 are no multiple of any batch
HEADS = "timm/test_resnet"  # with batch norms, which are frozen
HEAD_OPTIONS = {"epochs": 2, "image_size": 32, "lr": 0.1, "num_workers": 0}
WRONG = {"green/01.png": "blue/05.png", "blue/00.png": "red/03.png"}  # copied into val of another class

pytestmark = pytest.mark.slow


LOOPBACK = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def start(*command, **variables):
    """Start a command; one thread for each of its processes, which talk over loopback."""
    variables |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": LOOPBACK}
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(list(map(str, command)), env=os.environ | variables, cwd=ROOT, **output)


def torchrun(logs):
    """Return what starts a command twice, and keeps what each process says in a file."""
    place = ["--nproc-per-node", 2, "--master-addr", "127.0.0.1", "--master-port", free_port()]
    return [sys.executable, "-m", "torch.distributed.run", *place, "--log-dir", logs, "--redirects", 3, "--no-python"]


def accelerate_launch():
    """The same by accelerate's own launcher, with all that it would warn of if it were left out."""
    place = ["--multi_gpu", "--num_processes", 2, "--num_machines", 1, "--main_process_port", free_port()]
    place += ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", 1]
    return [sys.executable, "-m", "accelerate.commands.launch", *place, "--no_python"]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """The folders `one` and `two`, of one process with batches of 16 and of two with batches of 8; and their output.

    The folder `heads` is of two processes that the command line trains a head in, with batches of 4 and 2 a step.
    """
    root = tmp_path_factory.mktemp("runs")
    data = write_coloured(root / "data", **PER_CLASS)
    for true, said in WRONG.items():
        shutil.copy(data / "val" / true, data / "val" / said)
    boxes = write_boxed(root / "boxes", train=8, val=5)
    for name in ("one", "two"):
        (root / name).mkdir()
    python = [sys.executable, "-W", "error", "-W", "ignore:Grad strides"]
    processes = {}
    try:
        processes["two"] = start(*torchrun(root / "logs"), *python, SCRIPT, data, boxes, 8, root / "two")
        command = [*python, "-m", "zoo.tools.cli", "finetune", HEADS, data, "--no-pretrained", "-o", root / "heads"]
        options = [word for name, value in HEAD_OPTIONS.items() for word in ("--set", f"{name}={value}")]
        options += ["--set", "batch_size=4", "--set", "accumulate=2"]
        cache = str(root / "cache")
        processes["heads"] = start(*accelerate_launch(), *command, *options, XDG_CACHE_HOME=cache)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("zoo.training.stop.STEPS_PER_VOTE", 2)  # so that it is put back, too
            finetune_script.main(str(data), str(boxes), "16", str(root / "one"))
        texts = {}
        for name, process in processes.items():
            texts[name], _ = process.communicate(timeout=SECONDS)
            logs = "".join(path.read_text() for path in (root / "logs").rglob("*.log"))
            assert process.returncode == 0, f"{name}: {texts[name]}{logs}"
    finally:
        for process in processes.values():
            process.terminate()  # a launcher ends its processes, too
            process.wait()
    for rank, name in enumerate(("two", "second of two")):
        texts[name] = "".join(path.read_text() for path in sorted((root / "logs").glob(f"*/attempt_0/{rank}/*.log")))
    return root, texts


@pytest.fixture(scope="module")
def reports(outcome):
    root, _ = outcome
    return [
        json.loads((root / name).read_text())
        for name in ("one/report-0.json", "two/report-0.json", "two/report-1.json")
    ]


@pytest.mark.parametrize("run", ["of-0", "stopped-0"])
def test_the_weights_are_those_of_one_process(outcome, run):
    root, _ = outcome
    one, two = (load_file(root / name / run / "model.safetensors") for name in ("one", "two"))
    begin = zoo.get("timm/test_convnext", num_classes=3).state_dict()
    assert max(float((one[name] - begin[name]).abs().max()) for name in one) > 0.01
    for name, value in one.items():
        assert float((value - two[name]).abs().max()) < 1e-4, name


def test_the_scores_of_every_epoch_are_equal(reports):
    one, two, second = (report["records"] for report in reports)
    assert [record["step"] for record in one] == [record["step"] for record in two] == [3, 6]
    for expected, record, other in zip(one, two, second, strict=True):
        for key in ("loss", "val_loss", "top1", "top5"):
            assert record[key] == pytest.approx(expected[key], abs=1e-5)
            assert other[key] == record[key]
        assert other["lr"] == record["lr"] == expected["lr"]


@pytest.mark.parametrize("key", ["evaluation", "again", "resumed"])
def test_every_image_is_counted_once(reports, key):
    one, two, second = (report[key] for report in reports)
    assert one["top1"] == pytest.approx(19 / 21)
    assert two["images"] == sum(map(sum, two["confusion"])) == 3 * PER_CLASS["val"]
    assert second == two
    assert two["confusion"] == one["confusion"]
    assert two["loss"] == pytest.approx(one["loss"], abs=1e-5)


def test_misses_are_the_same_images(reports):
    one, two, second = (report["misses"] for report in reports)
    assert sorted(miss[:3] for miss in one) == [[5, 0, 1], [17, 2, 0]]  # place, true class, predicted one
    assert second == two
    assert [miss[:3] for miss in two] == [miss[:3] for miss in one]
    assert [miss[3] for miss in two] == pytest.approx([miss[3] for miss in one], abs=1e-5)


def test_a_process_that_is_asked_to_stop_stops_all_after_the_same_step(reports):
    one, two, second = (report["stopped"] for report in reports)
    assert (one["status"], one["epoch"], one["batch"], one["step"]) == ("interrupted", 0, 1, 1)
    assert (two["status"], two["epoch"], two["batch"], two["step"]) == ("interrupted", 0, 2, 2)
    assert second == two


def test_the_first_process_alone_writes_and_speaks(outcome):
    root, texts = outcome
    assert {path.name for path in (root / "two").iterdir()} == {
        *("of-0", "stopped-0", "boxes-0", "report-0.json", "report-1.json")
    }
    made = {path.relative_to(root / "one") for path in (root / "one" / "of-0").rglob("*")}
    assert {path.relative_to(root / "two") for path in (root / "two" / "of-0").rglob("*")} == made
    assert "epoch 2/2" in texts["two"]
    assert texts["second of two"] == ""


def test_the_head_is_that_of_one_process_on_the_command_line_too(outcome, tmp_path):
    root, texts = outcome
    model = zoo.get(HEADS, num_classes=3)
    begin = model.state_dict()["fc.weight"].clone()
    run = zoo.finetune(
        model, root / "data", batch_size=16, device="cpu", cache="off", out=tmp_path / "one", **HEAD_OPTIONS
    )
    two = load_file(root / "heads" / "model.safetensors")
    assert float((two["fc.weight"] - begin).abs().max()) > 0.01
    for name, value in run.model.state_dict().items():
        assert float((value - two[name]).abs().max()) < 1e-5, name
    records = [json.loads(line) for line in (root / "heads" / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [record["step"] for record in run.metrics] == [3, 6]
    assert [record["val_loss"] for record in records] == pytest.approx(
        [record["val_loss"] for record in run.metrics], abs=1e-5
    )
    assert texts["heads"].count("epoch 2/2") == 1, "one of the two processes speaks"


@pytest.mark.usefixtures("small_detector")
def test_the_heads_of_a_detector_are_those_of_one_process(outcome):
    root, _ = outcome
    one, two = (load_file(root / name / "boxes-0" / "model.safetensors") for name in ("one", "two"))
    begin = zoo.get("yolo_nas_s", num_classes=2).state_dict()
    moved = [name for name in one if not torch.equal(one[name], begin[name])]
    assert moved
    assert all(name.startswith("heads.") for name in moved)
    distance = max(float((one[name] - begin[name]).abs().max()) for name in moved)
    error = max(float((one[name] - two[name]).abs().max()) for name in moved)
    assert error < 1e-4 * distance, (error, distance)


def test_every_process_knows_the_scores_of_all_images(reports):
    one, first, second = (report["detection"] for report in reports)
    assert first["evaluation"] == second["evaluation"]
    assert first["evaluation"]["images"] == one["evaluation"]["images"] == 5
    assert first["evaluation"]["boxes"] == one["evaluation"]["boxes"] == 8
    for mine, theirs in zip(one["records"], first["records"], strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
