"""Runs that are killed, stopped or short of room at chosen moments: none leaves a folder that cannot go on.

A child process runs a script that kills itself when a given function is called, so that no moment depends on time.
"""

import os
import signal

import pytest

import zoo
from boxed_folder import write_boxed
from prepared import Prepared
from stopping import equal
from zoo.errors import InputError
from zoo.files.safetensors import read_tensors
from zoo.training.run_lock import LOCK
from zoo.training.run_stage import find_stage

TINY = {"epochs": 2, "batch_size": 6, "image_size": 32, "num_workers": 0, "progress": False, "device": "cpu"}
NAME = "timm/test_resnet"
SLOW = pytest.mark.slow
SCRIPT = """
import importlib, json, os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever starts the tests may ignore it, as nohup does
import zoo
{patch}
def main():
    model = zoo.get({name!r}, num_classes={classes}, seed=3)
    zoo.finetune(model, {data!r}, lr=0.05, out={out!r}, **{options!r})
if __name__ == "__main__":
    main()
"""
AT = """
import {module}
owner = {owner}
function = getattr(owner, {function!r})
calls = 0
def hooked(*args, **options):
    global calls
    calls += 1
    if calls == {call} and {early}:
        os.kill(os.getpid(), signal.{signal})
    result = function(*args, **options)
    if calls == {call} and not {early}:
        os.kill(os.getpid(), signal.{signal})
    return result
setattr(owner, {function!r}, hooked)
"""


def at(place, number="SIGKILL", *, call=1, early=False):
    """Return the code that sends a signal when a function was called, or is about to be."""
    module, _, path = place.partition(":")
    owner, _, function = path.rpartition(".")
    owner = f"{module}.{owner}" if owner else module
    return AT.format(module=module, owner=owner, function=function, call=call, early=early, signal=number)


def start(data, out, options, patch="", name=NAME, classes=3, **variables):
    code = SCRIPT.format(patch=patch, name=name, classes=classes, data=str(data), out=str(out), options=options)
    return Prepared(code, out.with_name("outputs"), **variables).wait()


def weights(folder):
    return read_tensors(folder / "model.safetensors")


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """Uninterrupted runs: of a head on kept features, and of the whole network."""
    root = tmp_path_factory.mktemp("whole")
    for mode in ("head", "full"):
        model = zoo.get(NAME, num_classes=3, seed=3)
        zoo.finetune(model, images, lr=0.05, mode=mode, out=root / mode, **TINY)
    return root


@pytest.mark.parametrize("moment", ["features", pytest.param("claimed", marks=SLOW), pytest.param("state", marks=SLOW)])
def test_killed_before_the_first_step(images, whole, tmp_path, moment):
    place = {
        "claimed": at("zoo.training.run_folder:RunFolder.write_json"),
        "features": at("zoo.engine.inputs:keep_features", early=True),
        "state": at("torch:save"),  # before it has its name
    }[moment]
    out, options = tmp_path / "run", TINY | {"mode": "head"}
    done = start(images, out, options, place)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (out / LOCK).exists()
    assert find_stage(out) == ("claimed" if moment == "claimed" else "begun")
    if moment == "claimed":
        with pytest.raises(InputError, match=r"stopped before its first step\. Run the same finetune command"):
            zoo.resume(out)
    else:
        resumed = zoo.resume(out, progress=False)
        assert equal(weights(resumed.folder), weights(whole / "head"))
        for name in ("preset.yaml", "config.json", "rates.csv", "data.json"):
            assert (out / name).read_bytes() == (whole / "head" / name).read_bytes(), name
        assert {path.name for path in out.iterdir()} == {path.name for path in (whole / "head").iterdir()}


@pytest.mark.parametrize("moment", ["state", pytest.param("claimed", marks=SLOW)])
def test_the_same_command_may_be_given_again(images, whole, tmp_path, moment):
    place = {"claimed": at("zoo.training.run_folder:RunFolder.write_json"), "state": at("torch:save")}[moment]
    out, options = tmp_path / "run", TINY | {"mode": "full", "progress": True}
    assert start(images, out, options, place).returncode == -signal.SIGKILL
    done = start(images, out, options, "import zoo.training.loggers.plots as p; p.Plots.finish = lambda *_: None")
    assert done.returncode == 0, done.stderr
    assert "which has ended; this run takes it over" in done.stdout
    assert "was stopped before its first step; it starts from the beginning" in done.stdout
    assert equal(weights(out), weights(whole / "full"))
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_a_run_with_a_state_is_resumed_and_not_begun_anew(images, whole, tmp_path):
    out, options = tmp_path / "run", TINY | {"mode": "full"}
    done = start(images, out, options, at("zoo.training.run:TrainingRun._after_step", call=5))  # in the second epoch
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(InputError, match=r"holds an unfinished run.* zoo finetune --resume .*run; or choose"):
        zoo.finetune(zoo.get(NAME, num_classes=3), images, out=out, **TINY)
    zoo.resume(out, progress=False)
    assert equal(weights(out), weights(whole / "full"))


@pytest.mark.parametrize(
    "place",
    ["zoo.training.loggers.plots:draw_rates", pytest.param("zoo.training.loggers.files:Files.finish", marks=SLOW)],
)
def test_killed_after_the_last_step(images, whole, tmp_path, place):
    out = tmp_path / "run"
    done = start(images, out, TINY | {"mode": "full"}, at(place))
    assert done.returncode == -signal.SIGKILL, done.stderr
    drawing = "draw" in place
    assert find_stage(out) == ("undrawn" if drawing else "training")
    run = zoo.resume(out, progress=False)
    assert equal(weights(out), weights(whole / "full"))
    assert find_stage(out) == "finished"
    assert {path.name for path in (out / "pictures").iterdir()} == {
        path.name for path in (whole / "full" / "pictures").iterdir()
    }
    assert run.evaluation.confusion == zoo.evaluate(whole / "full", images, device="cpu", progress=False).confusion
    with pytest.raises(InputError, match="the run is finished"):
        zoo.resume(out)


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        ("SIGTERM", "features"),
        ("SIGHUP", "step"),
        ("SIGINT", "pictures"),
        *(
            pytest.param(name, moment, marks=SLOW)
            for name, moment in [("SIGHUP", "features"), ("SIGTERM", "step"), ("SIGTERM", "pictures")]
        ),
    ],
)
def test_each_signal_is_answered_with_one_sentence(images, whole, tmp_path, name, moment):
    place = {
        "features": ("zoo.engine.inputs:keep_features", 1),
        "step": ("zoo.training.run:TrainingRun._after_step", 2),
        "pictures": ("zoo.training.loggers.plots:draw_curves", 1),
    }[moment]
    out = tmp_path / "run"
    done = start(images, out, TINY | {"mode": "head"}, at(place[0], name, call=place[1], early=True))
    last = done.stderr.strip().splitlines()[-1]
    if moment == "features":
        assert "Interrupted: stopped before the first step; no run folder was kept." in last
        assert not out.exists()
        return
    assert not (out / LOCK).exists()
    said = {"step": "everything is saved. Resume with: zoo", "pictures": "is finished and saved; it was stopped while"}
    assert said[moment] in last
    zoo.resume(out, progress=False)
    assert equal(weights(out), weights(whole / "head"))
    assert (out / "pictures" / "mistakes.png").is_file()


def test_two_runs_are_not_in_one_folder(images, tmp_path):
    class Look(zoo.Callback):
        def on_step_end(self, run):
            if run.step == 1:
                for call in (
                    lambda: zoo.resume(run.folder, progress=False),
                    lambda: zoo.finetune(zoo.get(NAME, num_classes=3), images, out=run.folder, **TINY),
                ):
                    with pytest.raises(InputError, match=rf"is in use by process {os.getpid()} on .* since "):
                        call()

    run = zoo.finetune(zoo.get(NAME, num_classes=3), images, lr=0.05, out=tmp_path / "run", callbacks=Look(), **TINY)
    assert run.evaluation.images == 9


BOXES = {"epochs": 1, "batch_size": 4, "image_size": 64, "num_workers": 0, "progress": False, "device": "cpu"}


@pytest.mark.slow
@pytest.mark.usefixtures("small_detector")
def test_a_detector_killed_while_its_backbone_looks_at_the_images(tmp_path, monkeypatch):
    data = write_boxed(tmp_path / "boxes", train=8, val=4)
    out, options = tmp_path / "run", BOXES | {"mode": "head", "cache": "disk", "mosaic": 0.0, "flip_probability": 0.0}
    few = "import zoo.engine.frozen.cache\nzoo.engine.frozen.cache.choose_per_shard = lambda size: 3\n"
    small = "from small_yolo_nas import small_yolo_nas\nsmall = small_yolo_nas()\nsmall.__enter__()\n"
    cut = few + small + at("zoo.engine.frozen.shards:FeatureShards.write", call=2)
    done = start(data, out, options, cut, name="yolo_nas_s", classes=2, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert find_stage(out) == "begun"
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.safetensors")}
    assert len(kept) == 2
    monkeypatch.setattr("zoo.engine.frozen.cache.choose_per_shard", lambda size: 3)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    resumed = zoo.resume(out, progress=False)
    assert kept == {path: path.stat().st_mtime_ns for path in kept}  # the whole shards are used again
    assert resumed.folder == out
    assert (out / "pictures" / "first_batch.png").is_file()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other cache"))
    again = zoo.finetune(zoo.get("yolo_nas_s", num_classes=2, seed=3), data, lr=0.05, out=tmp_path / "whole", **options)
    assert equal(weights(resumed.folder), weights(again.folder))
