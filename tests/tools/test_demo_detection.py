import json

import numpy as np
import pytest

import zoo
from tools import demo_detection


@pytest.mark.slow
@pytest.mark.plots
@pytest.mark.usefixtures("small_detector")
def test_the_demo_learns_draws_and_says_what_is_next(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = {"COUNTS": {"train": 192, "val": 8}, "SIDE": 96, "SIDES": (20, 40), "PER_CANVAS": (2, 5)}
    small |= {"BATCH_SIZE": 4, "LR": 0.01}  # a network with less to learn learns faster
    for name, value in small.items():
        monkeypatch.setattr(demo_detection, name, value)
    assert demo_detection.main([]) == 0
    out = capsys.readouterr().out
    scores = json.loads((tmp_path / "demo" / "detection-run" / "evaluation.json").read_text())
    assert scores["images"] == 8
    assert scores["map50"] >= 0.3
    assert sum(line.startswith("  .venv/bin/zoo ") for line in out.splitlines()) == 3
    drawn = tmp_path / "demo" / "detection-run" / "predictions"
    assert [path.name for path in sorted(drawn.iterdir())] == ["000.png", "001.png", "002.png", "003.png"]


def test_the_images_are_the_same_each_time_and_their_boxes_hold_the_digits(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_detection, "COUNTS", {"train": 6, "val": 3})
    counts = [demo_detection.write_scenes(tmp_path / name) for name in ("one", "two")]
    assert counts[0] == counts[1]
    for path in (tmp_path / "one" / "images").rglob("*.png"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
    data = zoo.open_data(tmp_path / "one", task="detection")
    assert (len(data.train), len(data.val), data.classes) == (6, 3, tuple("0123456789"))
    assert sum(len(boxes.labels) for boxes in (*data.train.boxes, *data.val.boxes)) == counts[0]
    for index in range(len(data.train)):
        image, boxes = data.train.read(index)
        ground = np.asarray(image, int).reshape(-1, 3)
        colours, counts_of = np.unique(ground, axis=0, return_counts=True)
        empty = (np.asarray(image) == colours[counts_of.argmax()]).all(2)
        for left, top, right, bottom in boxes.xyxy.round().astype(int):
            assert not empty[top:bottom, left:right].all()
            empty[top:bottom, left:right] = True
        assert empty.all()  # nothing lies outside of the boxes
    assert image.size == (160, 160)
