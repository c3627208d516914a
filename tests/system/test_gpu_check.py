"""The driver of `make gpu-check`: a failing part is a row, one over its limit is ended, and the record is written."""

import json
import os
import subprocess
import sys
import time
import warnings
from argparse import Namespace
from importlib import import_module
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPT = """
import subprocess, sys, time
sys.path.insert(0, {benchmarks!r})
from _measure import main_or_part

def works(images):
    return {{"passed": True, "text": "all right", "images_per_second": images, "ratio": 1.5}}

def hangs(note):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    open(note, "w").write(str(child.pid))
    time.sleep(600)

def raises():
    raise ValueError("the device is on fire")

def differs():
    return {{"passed": False, "text": "0.5 apart"}}

def cannot():
    return {{"skipped": "needs CUDA"}}

main_or_part(lambda: None, {{one.__name__: one for one in (works, hangs, raises, differs, cannot)}})
"""


@pytest.fixture
def modules(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(benchmarks=str(BENCHMARKS)))
    monkeypatch.setattr(sys, "argv", [str(script)])
    return {name: import_module(name) for name in ("_checks", "_measure")}


def is_running(pid):
    """Whether a process is there and has not ended; one that nobody waits for stays as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def run(modules, tmp_path, checks, total=60.0):
    return modules["_checks"].run_checks(checks, total=total, threads=1, cache=tmp_path / "cache")


def test_what_fails_is_a_row_and_ends_nothing(modules, tmp_path, capsys):
    Check = modules["_checks"].Check
    checks = [Check("broken", "raises", 30), Check("wrong", "differs", 30), Check("none", "no such part", 30)]
    checks += [Check("fine", "works", 30, {"images": 1234.5}), Check("elsewhere", "cannot", 30)]
    results = run(modules, tmp_path, checks)
    report, has_passed = modules["_checks"].report, modules["_checks"].has_passed
    assert [report(result) for result in results] == [
        "failed: ValueError: the device is on fire",
        "failed: 0.5 apart",
        "failed: KeyError: 'no such part'",
        "passed: all right",
        "not done: needs CUDA",
    ]
    assert list(map(has_passed, results)) == [False, False, False, True, True]
    assert [modules["_checks"].exit_code(some) for some in (results, results[3:], [])] == [1, 0, 1]
    modules["_checks"].show_checks("all of them", results, ["a note"])
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if "│ fine" in line)
    assert [cell.strip() for cell in row.split("│")[2:6]] == ["passed: all right", "1,234.5", "", "1.50"]
    assert any("on fire" in line for line in lines)
    assert "- a note" in lines


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups are POSIX's")
def test_a_check_past_its_limit_is_ended_with_all_that_it_started(modules, tmp_path):
    note, began = tmp_path / "pid", time.monotonic()
    checks = [modules["_checks"].Check("slow", "hangs", 8, {"note": str(note)})]
    (result,) = run(modules, tmp_path, checks)
    assert modules["_checks"].report(result) == "failed: it was ended after its limit of 8 s"
    assert time.monotonic() - began < 300
    pid = int(note.read_text())
    for _ in range(100):
        if not is_running(pid):
            break
        time.sleep(0.1)
    assert not is_running(pid)


def test_without_time_left_a_check_is_told_and_not_begun(modules, tmp_path):
    (result,) = run(modules, tmp_path, [modules["_checks"].Check("late", "works", 30, {"images": 1})], total=1.0)
    assert modules["_checks"].report(result) == "failed: no time was left: all checks together may take 1 s"


def test_the_record_has_results_machine_versions_and_date(modules, tmp_path):
    result = {"check": "fine", "passed": True, "text": "all right"}
    path = modules["_measure"].save("gpu-check-cpu", Namespace(cpu=True), [result], folder=tmp_path / "new")
    found = json.loads(path.read_text())
    assert path.parent == tmp_path / "new"
    assert path.name.endswith("gpu-check-cpu.json")
    assert (found["results"], found["options"]) == ([result], {"cpu": True})
    assert {"torch", "timm", "accelerate", "torchmetrics"} <= set(found["versions"])
    assert {"cores", "gpu", "python"} <= set(found["machine"])
    assert found["date"]


def test_every_check_has_a_part_and_the_limits_are_those_of_the_whole(modules):
    gpu = import_module("gpu")
    for scale in ("gpu", "cpu", "quick"):
        checks = gpu.list_checks(scale)
        assert {check.part for check in checks} == set(gpu.PARTS)
        assert len({check.name for check in checks}) == len(checks)
    assert gpu.TOTAL["gpu"] < 8 * 60


def test_steps_of_both_are_measured_on_the_cpu(modules, monkeypatch):
    monkeypatch.setattr("zoo.training.loggers.plots.Plots.finish", lambda *_: None)  # it takes longer than the steps
    parts = import_module("_gpu_parts")
    found = parts.measure_speed(scale="quick", task="classifier", mode="low_lr")
    assert found["passed"]
    assert found["ratio"] == pytest.approx(found["images_per_second"] / found["by_hand_images_per_second"])
    assert found["memory_mb"] > 0
    assert parts.count_waits(scale="quick", task="classifier") == {"skipped": "needs CUDA"}


def test_waits_are_counted_without_the_first_steps_and_the_last(modules, monkeypatch):
    import torch

    parts, now = import_module("_gpu_parts"), []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", now.append)
    listener, wait = parts._waits(), "called a synchronizing CUDA operation"
    for step in range(1, parts.STEPS_LISTENED + 1):
        if now == ["warn"]:  # three in each step, of which one fetches the loss
            warnings.warn_explicit(wait, UserWarning, "/x/zoo/loop.py", 155)
            for line in (7, 8):
                warnings.warn_explicit(wait, UserWarning, "/x/zoo/assigners.py", line)
            warnings.warn_explicit("something else", UserWarning, "/x/zoo/assigners.py", 9)
        listener.on_step_end(Namespace(step=step))
    summary = listener.summary()
    assert now == ["warn", "default"]
    counted = parts.STEPS_LISTENED - 1 - parts.STEPS_UNHEARD
    assert (summary["waits"], summary["fetched"]) == (2.0, counted)
    assert summary["places"] == {"loop.py:155": counted, "assigners.py:7": counted, "assigners.py:8": counted}
    assert 1 <= summary["may_fetch"] < 50


def test_distances_of_weights(modules):
    import torch

    parts = import_module("_gpu_parts")
    one, other = (
        {"a": torch.tensor([1.0, 2]), "b": torch.tensor(3)},
        {"a": torch.tensor([1.0, 2.5]), "b": torch.tensor(3)},
    )
    assert (parts.distance(one, one), parts.distance(one, other)) == (0.0, 0.5)


def test_only_wheels_of_what_is_missing_are_named(tmp_path):
    for name in (
        "numpy-9.0-py3-none-any.whl",
        "no_such_package-1.0-py3-none-any.whl",
        "pydantic-2.14.4-py3-none-any.whl",
    ):
        (tmp_path / name).touch()
    command = [sys.executable, str(BENCHMARKS / "_missing_wheels.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(tmp_path / "no_such_package-1.0-py3-none-any.whl")]
