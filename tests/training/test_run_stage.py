import json
import os

import pytest

from zoo.training.run_lock import LOCK
from zoo.training.run_stage import NEEDED_TO_BEGIN, RECORD, START, STATE, find_stage, read_record, sweep_left_over

RUN = ["preset.yaml", "config.json", "data.json"]


def fill(folder, names=(), **record):
    for name in names:
        (folder / name).touch()
    if record:
        (folder / RECORD).write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("names", "record", "stage"),
    [
        ([], {}, "empty"),
        ([LOCK, ".state.pt.01234567.tmp", ".state.pt.ab_d0x9z", ".metrics.jsonl.abcdefgh"], {}, "empty"),
        ([], {"status": "beginning"}, "claimed"),
        ([*RUN], {"status": "beginning"}, "claimed"),
        ([*NEEDED_TO_BEGIN, "plan.json"], {"status": "beginning"}, "begun"),
        ([*NEEDED_TO_BEGIN, STATE], {"status": "beginning"}, "training"),
        ([*RUN, STATE], {"status": "interrupted"}, "training"),
        ([*RUN, STATE], {"status": "finished"}, "training"),
        ([*RUN], {"status": "finished", "pictures": False}, "undrawn"),
        ([*RUN], {"status": "finished", "pictures": True}, "finished"),
        ([*RUN], {"status": "finished"}, "finished"),  # of an earlier version
        ([*RUN], {"status": "interrupted"}, "lost"),
        ([*RUN, "metrics.jsonl"], {}, "lost"),
        (["mine.txt"], {}, "foreign"),
        (["config.json", START], {}, "foreign"),  # nothing says that a run has put it there
    ],
)
def test_where_a_run_stands(tmp_path, names, record, stage):
    fill(tmp_path, names, **record)
    assert find_stage(tmp_path) == stage


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_a_record_that_cannot_be_read_says_nothing(tmp_path, content):
    (tmp_path / RECORD).write_bytes(content)
    assert read_record(tmp_path) == {}


def test_only_what_was_half_written_is_swept(tmp_path):
    kept = [".mine", STATE, ".state.pt.ABCDEFGH"]
    fill(tmp_path, [".state.pt.ab_d0x9z", ".run.json.abcdefgh", ".x.01234567.tmp", *kept])
    sweep_left_over(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(kept)
    sweep_left_over(tmp_path / "none")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_a_record_that_is_no_file_is_not_waited_for(tmp_path, make):
    fill(tmp_path, RUN)
    make(tmp_path / RECORD)
    assert read_record(tmp_path) == {}
    assert find_stage(tmp_path) == "lost"
