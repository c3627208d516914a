import json

import pytest
import torch

from feeds import Small
from zoo.engine.frozen import precision as backbone_speed
from zoo.engine.frozen.backbone import BackboneEngine
from zoo.engine.frozen.precision import choose_engine

IMAGES = torch.randn(2, 3, 16, 16)


class Stopwatch:
    """Gives seconds by type, in place of a clock, and counts how often it was asked."""

    def __init__(self, **seconds):
        self.seconds, self.asked = seconds, []

    def __call__(self, engine, images):
        self.asked.append(engine.dtype)
        assert images is IMAGES
        return self.seconds[str(engine.dtype).removeprefix("torch.")]


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def choose(monkeypatch, clock, *, count=1000, seed=0, model=None):
    monkeypatch.setattr(backbone_speed, "_time", clock)
    said, model = [], model or Small(seed)
    engine = choose_engine(lambda dtype: BackboneEngine(model, device="cpu", dtype=dtype), IMAGES, count, said.append)
    return engine.dtype, said


def test_the_faster_type_is_taken_and_told(monkeypatch):
    dtype, said = choose(monkeypatch, Stopwatch(float32=0.2, bfloat16=0.1))
    assert dtype == torch.bfloat16
    assert said == [
        "running the frozen backbone in bfloat16, 2.0x as fast as float32 on this CPU (backbone_precision=no: float32)"
    ]


@pytest.mark.parametrize("bfloat16", [0.17, 0.2, 3.0])
def test_a_little_is_not_enough(monkeypatch, bfloat16):
    assert choose(monkeypatch, Stopwatch(float32=0.2, bfloat16=bfloat16)) == (torch.float32, [])


class Cancelling(Small):
    """A backbone whose features are small differences of large numbers."""

    def trunk(self, images):
        return super().trunk(images) + 1000 - 1000


def test_features_that_change_much_stay_in_float32(monkeypatch):
    clock, model = Stopwatch(float32=0.2, bfloat16=0.1), Cancelling()
    for _ in range(2):  # the second time it is remembered
        assert choose(monkeypatch, clock, model=model) == (torch.float32, [])
        assert clock.asked == [torch.float32]


def test_a_short_run_is_not_held_up(monkeypatch, tmp_path):
    clock = Stopwatch(float32=0.01, bfloat16=0.001)
    assert choose(monkeypatch, clock, count=499) == (torch.float32, [])
    assert clock.asked == []
    assert choose(monkeypatch, clock, count=599) == (torch.float32, [])  # 599 images at 5 ms
    assert clock.asked == [torch.float32]
    assert not (tmp_path / "zoo").exists()


def test_it_is_measured_once_for_a_backbone(monkeypatch, tmp_path):
    choose(monkeypatch, Stopwatch(float32=0.2, bfloat16=0.1))
    clock = Stopwatch(float32=0.1, bfloat16=0.2)
    assert choose(monkeypatch, clock)[0] == torch.bfloat16
    assert clock.asked == []
    assert choose(monkeypatch, clock, seed=1)[0] == torch.float32  # another backbone
    notes = list((tmp_path / "zoo" / "speeds").iterdir())
    assert sorted(json.loads(note.read_text())["gain"] for note in notes) == [0.5, 2.0]


@pytest.mark.parametrize("text", ["", "[]", '{"gain": "2"}', '{"gain": 2.0'])
def test_a_damaged_note_is_measured_again(monkeypatch, tmp_path, text):
    choose(monkeypatch, Stopwatch(float32=0.2, bfloat16=0.1))
    (note,) = (tmp_path / "zoo" / "speeds").iterdir()
    note.write_text(text)
    assert choose(monkeypatch, Stopwatch(float32=0.2, bfloat16=0.2))[0] == torch.float32


def test_time_is_measured():
    assert backbone_speed._time(lambda images: sum(range(10**5)), IMAGES) > 0
