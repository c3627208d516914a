import json
from pathlib import Path

import pytest

import zoo
from coloured_folder import write_coloured
from zoo.analysis import search_trials
from zoo.analysis.search_trials import digest_settings, make_preset
from zoo.analysis.space import DEFAULT_SPACE, parse_space
from zoo.errors import InputError, Interrupted, PresetError
from zoo.settings import Preset, load_preset

TINY = "timm/test_resnet"
HOW = {"pretrained": False, "image_size": 32, "folds": 2, "epochs": 1, "progress": False, "batch_size": 16}
SPACE = """\
solver: [exact, null]
l2: {low: 0.01, high: 1, log: true, when: {solver: exact}}
lr: {low: 0.001, high: 1, log: true, when: {solver: null}}
"""


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coloured(tmp_path_factory.mktemp("data"), noise=150, train=8, val=4)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "search-cache"))


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    return path


def test_every_trial_is_another_run_and_the_best_is_run(coloured: Path, space: Path, tmp_path: Path) -> None:
    found = zoo.search(TINY, coloured, trials=5, space=space, out=tmp_path / "out", **HOW)
    done = [trial for trial in found.trials if trial.outputs]
    assert len(found.trials) == len(done) == 5
    assert len({trial.digest for trial in done}) == len({trial.outputs for trial in done}) == 5
    presets = [Preset(**dict(load_preset_text(trial.preset))) for trial in done]
    assert sorted(preset.seed for preset in presets) == list(range(5))
    assert len({(preset.lr, preset.l2) for preset in presets}) == 5
    assert {preset.solver for preset in presets} == {"exact", None}
    assert found.run is not None
    best = load_preset(found.best_path)
    assert digest_settings(best) == found.best.digest
    ran = load_preset(found.run.folder / "preset.yaml")
    assert (ran.solver, ran.l2, ran.lr, ran.seed) == (best.solver, best.l2, best.lr, best.seed)
    records = [json.loads(line) for line in (found.run.folder / "metrics.jsonl").read_text().splitlines()]
    assert sum("top1" in record for record in records) == 1  # validation images were looked at once
    assert "once, at the end" in found.caption()
    assert (found.folder / "search.png").is_file()


def load_preset_text(text: str) -> dict[str, object]:
    from zoo.files import read_yaml

    value = read_yaml(text).value
    assert isinstance(value, dict)
    return value


def test_a_search_goes_on_where_it_was_stopped(
    coloured: Path, space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = {"space": space, "out": tmp_path / "out", "run": False, **HOW}
    predict = search_trials.HeldOut.predict
    left = iter(range(2))

    def stop_in_the_third(self, *arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return predict(self, *arguments)

    monkeypatch.setattr(search_trials.HeldOut, "predict", stop_in_the_third)
    with pytest.raises(Interrupted, match="2 trials are kept"):
        zoo.search(TINY, coloured, trials=4, **how)
    monkeypatch.setattr(search_trials.HeldOut, "predict", predict)
    found = zoo.search(TINY, coloured, trials=4, **how)
    assert [trial.number for trial in found.trials] == [0, 1, 3, 4]
    assert found.run is None
    with pytest.raises(InputError, match="another search: space differs"):
        zoo.search(TINY, coloured, trials=4, **{**how, "space": None})


def test_equal_settings_are_told_and_their_score_is_taken(coloured: Path, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("label_smoothing: [0.1]\n")
    found = zoo.search(
        TINY, coloured, trials=2, space=path, out=tmp_path / "out", run=False, solver="exact", l2=1, **HOW
    )
    assert found.trials[1].same_as == 0
    assert found.trials[0].score == found.trials[1].score
    assert "repeated the settings" in found.notes[0]


def test_what_has_no_effect_beside_a_solver_is_left_out() -> None:
    base = Preset(model=TINY, epochs=7)
    one, two = (make_preset(base, {"solver": "exact", "l2": 0.1, "lr": lr}, 3) for lr in (0.1, 0.2))
    assert digest_settings(one) == digest_settings(two)
    assert (one.epochs, one.seed, one.keep) == (1, 3, "last")
    assert make_preset(base, {"views": 4}, 3).seed == base.seed


def test_a_wrong_space_is_told_with_its_lines() -> None:
    text = "lrr: [1]\nseed: [1]\nbatch_size: [0, 32]\nlr: {low: 1, high: 0.1}\n"
    text += "l2: {low: 0.1, high: 1, when: {solver: x}}\n"
    with pytest.raises(PresetError) as caught:
        parse_space(text, "space 's.yaml'", Preset())
    told = str(caught.value)
    for line, key in enumerate(("Did you mean 'lr'", "cannot be searched", "batch_size is 0", "high is 0.1"), start=1):
        assert f"line {line}: " in told
        assert key in told
    assert "no setting above it" in told
    assert parse_space(DEFAULT_SPACE, "default", Preset()).settings


def test_what_a_search_cannot_do_is_refused_before_images_are_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unfreeze, mode cannot be set"):
        zoo.search(TINY, tmp_path / "nothing", mode="full", unfreeze={"3": "layer4"}, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
