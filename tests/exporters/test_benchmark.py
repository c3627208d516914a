from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from zoo.data.transforms import Preprocess
from zoo.errors import InputError
from zoo.exporters import _benchmark as module
from zoo.exporters import benchmark
from zoo.exporters._benchmark import Benchmark, Contender, Timing, _measure
from zoo.progress import Progress


class Mean(nn.Module):
    """The smallest classifier."""

    classes, preprocess = ("a", "b", "c"), Preprocess(image_size=16)
    config = {"zoo": "0", "model": "mean"}  # noqa: RUF012

    def forward(self, images):
        return images.mean((2, 3))


def test_all_take_turns_and_each_call_is_timed(monkeypatch):
    order, clock = [], [0.0]
    monkeypatch.setattr(module, "perf_counter", lambda: clock[0])

    def make(name, seconds):
        def run(pixels):
            order.append(f"{name} {len(pixels)}")
            clock[0] += seconds

        return Contender(name, lambda file: order.append(f"read {file}") or np.zeros((4, 4, 3), np.uint8), run)

    contenders, files = [make("slow", 0.5), make("fast", 0.125)], [Path("a"), Path("b")]
    found = _measure(contenders, files, (1, 3), 2, Progress(enabled=False))
    assert [(timing.name, timing.batch, timing.reads) for timing in found[:4]] == [
        ("slow", 1, False), ("fast", 1, False), ("slow", 1, True), ("fast", 1, True),
    ]  # fmt: skip
    runs = [name for name in order if not name.startswith("read")]
    turn = ["slow 1"] * 2 + ["fast 1"] * 3  # the first call of a turn counts for nothing
    assert runs == (turn * 2 + ["slow 3"] * 2 + ["fast 3"] * 3 + ["slow 3"] * 2 + ["fast 3"] * 3) * 2
    assert [timing.seconds for timing in found[:2]] == [[0.5] * 2, [0.125] * 4]
    assert found[1].to_dict(found[0])["ratio"] == 4
    assert order.count("read b") == 2 + 2 * (2 + 3), "three images of two files: once, and in each call that reads"


def test_numbers_of_a_row():
    timing = Timing("one", 4, True, [0.1, 0.2, 0.3])
    row = timing.to_dict(Timing("other", 4, True, [0.4]))
    assert (row["median_ms"], row["images_per_second"], row["ratio"], row["calls"]) == (200, 20, 2, 3)
    assert row["p95_ms"] == pytest.approx(290)
    (shown,) = Benchmark([row], {}).table()
    assert list(shown.values()) == ["one", "4", "yes", "200.0", "290.0", "20.0", "2.00"]
    assert list(shown)[-1] == "x one"


def test_torch_is_compiled_or_left_out_with_a_note(tmp_path, monkeypatch, capsys):
    Image.new("RGB", (20, 30)).save(tmp_path / "one.png")
    options = {"images": tmp_path / "one.png", "batches": [2], "rounds": 1, "threads": 1}
    before = torch.get_num_threads()
    monkeypatch.setattr(module, "TURN_SECONDS", 0.001)
    monkeypatch.setattr(torch, "compile", lambda graph, dynamic: lambda pixels: graph(pixels))
    found = benchmark([Mean()], **options)
    assert [row["runtime"] for row in found.rows[:2]] == ["torch eager, mean", "torch compiled, mean"]
    assert found.setting["threads"] == 1
    assert "threads of each: 1; turns of each: 1, on 1 images of one.png" in found.caption()
    assert f"torch {torch.__version__.partition('+')[0]}" in found.caption()
    assert torch.get_num_threads() == before

    def fail(pixels):
        raise RuntimeError("no compiler here\nand more")

    monkeypatch.setattr(torch, "compile", lambda graph, dynamic: fail)
    found = benchmark([Mean()], **options)
    assert [row["runtime"] for row in found.rows] == ["torch eager, mean"] * 2
    assert "note: without torch compiled: no compiler here (torch.compile needs" in capsys.readouterr().out


def test_what_cannot_be_measured_is_refused_before_anything_runs(tmp_path):
    for options, text in (
        ({"models": []}, "nothing to measure"),
        ({"models": [tmp_path]}, "is not a file or folder of zoo export"),
        ({"rounds": 0}, "rounds: 0; expected whole numbers"),
        ({"batches": []}, "batches: none; expected"),
        ({"threads": -1}, "threads: -1; expected"),
        ({"images": tmp_path}, "there are no images in"),
    ):
        with pytest.raises(InputError, match=text):
            benchmark(**({"models": [Mean()], "compiled": False} | options))
