import pytest

from zoo.errors import InputError
from zoo.training.comparison import check_comparable, find_differences, find_spreads, tell_doubts
from zoo.training.run_summary import RunSummary

DATA = {"source": "flowers", "classes": ["a", "b"], "counts": {"train": {"a": 3, "b": 4}, "val": {"a": 2, "b": 1}}}


def make_run(name="run", top1=0.5, *, status="finished", data=DATA, task="classification", **settings):
    scores = {"top1": top1, "images": 3}
    return RunSummary(
        folder=name, status=status, settings=settings, data=data, evaluation=scores, config={"task": task}
    )


def test_settings_that_differ_are_told_down_to_the_key():
    one = make_run(lr=0.1, epochs=3, schedule={"kind": "step", "gamma": 0.1}, seed=0, unfreeze={})
    other = make_run(lr={"fc": 0.1, "default": 0}, epochs=3, schedule={"kind": "step", "gamma": 0.5}, seed=1)
    assert find_differences([one, other]) == {
        "lr": [0.1, None],
        "lr.fc": [None, 0.1],
        "lr.default": [None, 0],
        "schedule.gamma": [0.1, 0.5],
        "seed": [0, 1],
    }
    assert list(find_differences([one, other]))[:3] == ["lr", "lr.fc", "lr.default"]
    assert find_differences([one, one]) == {}


def test_runs_that_differ_only_in_their_seed_have_a_spread():
    runs = [make_run(f"a{seed}", top1, lr=0.1, seed=seed) for seed, top1 in enumerate((0.5, 0.6, 0.7))]
    alone = make_run("b", 0.9, lr=0.2, seed=0)
    unfinished = make_run("c", 0.1, status="interrupted", lr=0.1, seed=9)
    (spread,) = find_spreads([*runs, alone, unfinished])
    assert spread.runs == tuple(runs)
    assert spread.scores == {"top1": (pytest.approx(0.6), pytest.approx(0.1))}


def test_a_split_of_another_seed_is_the_same_data_and_other_classes_are_not():
    counts = {"train": {"a": 4, "b": 3}, "val": {"a": 1, "b": 2}}
    one, split = make_run(seed=0), make_run(seed=1, data=DATA | {"counts": counts, "digest": "other"})
    assert len(find_spreads([one, split])) == 1
    assert find_spreads([one, make_run(seed=1, data=DATA | {"classes": ["b", "a"]})]) == []
    assert find_spreads([one, make_run(seed=1, data=DATA | {"source": "cells"})]) == []
    assert find_spreads([make_run(data={"counts": [1]}), make_run(data={"counts": {"val": 3}})]) != []


def test_other_validation_images_and_unfinished_runs_are_told():
    files = [{"files": {"val": {"a.png": digest}, "train": {"t.png": "1"}}} for digest in "xy"]
    one, other = (make_run(data=DATA | file) for file in files)
    assert list(tell_doubts([one, one])) == []
    assert "not scored on the same validation images" in next(tell_doubts([one, other]))
    assert list(tell_doubts([one, make_run("loader", data={})])) == [
        "it is not recorded which validation images these runs were scored on: loader"
    ]
    (told,) = tell_doubts([one, make_run("late", status="running", data=one.data)])
    assert told.endswith("last scored epoch: late")


@pytest.mark.parametrize(
    ("run", "text"),
    [
        (make_run("bad", status="damaged"), "the run in bad is damaged"),
        (make_run("new", status="not started"), "new was stopped before its first step"),
        (make_run("cells", task="detection"), r"run \(classification\), cells \(detection\)"),
    ],
)
def test_what_cannot_be_compared_is_refused(run, text):
    check_comparable([make_run(), make_run(status="interrupted")])
    with pytest.raises(InputError, match=text):
        check_comparable([make_run(), run])
