from pathlib import Path

import pytest

import zoo
from coloured_folder import write_coloured
from small_run import write_run
from zoo.analysis.suggestion import Candidate, mark_front
from zoo.errors import InputError

TINY = "timm/test_resnet"


def test_saved_models_are_scored_within_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = write_coloured(tmp_path / "data", noise=120, train=8, val=2)
    folder = write_run(tmp_path / "run").path
    found = zoo.suggest(data, models=[folder, TINY], image_size=32, images=20, progress=False)
    (one,) = found.candidates
    assert one.model == str(folder)
    assert found.left_out == {TINY: "its weights are not on this machine"}
    assert found.images == 20
    assert one.top1 > 0.5
    assert one.milliseconds > 0
    assert one.is_front
    assert found.command == f"zoo finetune {folder} {data} --solver exact --image-size 32"
    found.write(tmp_path)
    assert (tmp_path / "suggest.png").is_file()


def test_the_front_are_those_that_none_beats() -> None:
    facts = {"good": (0.9, 9), "slow": (0.8, 8), "fast": (0.85, 2), "bad": (0.5, 2), "tiny": (0.4, 1)}
    found = [Candidate(name, top1, 0.0, 1.0, ms, 1, None) for name, (top1, ms) in facts.items()]
    marked = mark_front(found)
    assert [one.model for one in marked] == ["good", "fast", "slow", "bad", "tiny"]
    assert {one.model for one in marked if one.is_front} == {"good", "fast", "tiny"}


def test_without_weights_or_with_a_detector_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="zoo weights pull"):
        zoo.suggest(tmp_path, models=[TINY])
    with pytest.raises(InputError, match="expected a classifier"):
        zoo.suggest(tmp_path, models=["yolo_nas_s"])
