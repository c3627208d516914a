import json

import pytest
from PIL import Image

from tools import demo


@pytest.mark.plots
def test_the_demo_trains_draws_and_says_what_is_next(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "hub_answers", lambda: False)
    assert demo.main([]) == 0
    out = capsys.readouterr().out
    assert "no pretrained weights from the Hub" in out
    scores = json.loads((tmp_path / "demo" / "run" / "evaluation.json").read_text())
    assert scores["images"] == 360
    assert scores["top1"] > 0.9
    assert sum(line.startswith("  .venv/bin/zoo ") for line in out.splitlines()) == 3
    assert {path.name for path in (tmp_path / "demo" / "run" / "pictures").iterdir()} >= {"curves.png", "mistakes.png"}


def test_digits_are_written_as_an_image_folder(tmp_path):
    assert demo.write_digits(tmp_path) == 1797
    assert len(list((tmp_path / "train").rglob("*.png"))) == 1437
    with Image.open(next((tmp_path / "val" / "3").glob("*.png"))) as image:
        assert image.size == (8, 8)


def test_a_hub_that_does_not_answer_is_noticed_quickly(hub):
    assert demo.hub_answers()
    hub.fail(".*", reset=True, times=None)
    assert not demo.hub_answers()
