import os
import re
import time

import pytest
import torch

from tools.cache_command import app
from zoo.engine.frozen.keys import feature_folder, features_folder, make_key, write_about
from zoo.engine.frozen.shards import FeatureShards
from zoo.errors import InputError

DAY = 86_400


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))


@pytest.fixture
def call(capsys):
    """Returns what a command of `zoo cache` prints."""

    def run(*argv):
        app([str(word) for word in argv], prog_name="zoo cache", standalone_mode=False)
        return capsys.readouterr().out

    return run


def keep(model, *, days=0.0, about=True):
    """Keep features of 20 samples that were last used some days ago."""
    key = make_key({"model": model})
    shards = FeatureShards(feature_folder(key), 20, 10, key=key)
    for shard in range(2):
        shards.write(shard, [torch.ones(10, 25_000)], [torch.ones(1, 1)] * 10)
    if about:
        write_about(shards.folder, {"model": model, "images": 1234, "views": 3})
    used = time.time() - days * DAY
    for path in shards.folder.iterdir():
        os.utime(path, (used, used))
    return shards


def row(text, shards):
    return next(line for line in text.splitlines() if line.strip().startswith(shards.folder.name[:12]))


def test_nothing_is_kept(call, tmp_path):
    assert call("list") == f"no features are cached in {tmp_path}/own/zoo/features\n"
    assert call("clear", "--all") == "nothing to remove\n"
    assert not list(tmp_path.iterdir())


def test_the_list(call):
    old, new = keep("resnet18", days=3), keep("yolo_nas_s")
    text = call("list")
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() - 3 * DAY))[:10]
    assert re.search(rf"resnet18 +1,234 +3 +2\.0 MB +\d{{4}}-\d\d-\d\d \d\d:\d\d +{used}", row(text, old))
    assert re.search(r"yolo_nas_s +1,234 +3 +2\.0 MB", row(text, new))
    assert text.index("yolo_nas_s") < text.index("resnet18"), "the last used comes first"
    assert text.splitlines()[-1] == f"4.0 MB in {features_folder()}. Remove some: zoo cache clear KEY"


def test_features_without_a_description(call):
    shards = keep("resnet18", about=False)
    assert re.search(r" - +- +1 +2\.0 MB", row(call("list"), shards))
    (shards.folder / "about.json").write_text('{"model": ["\\u001b[31m"], "images": "many", "created": 1e300}')
    text = call("list")
    assert "\x1b" not in text
    assert re.search(r"many +1 +2\.0 MB +- ", row(text, shards))


def test_clearing_one(call):
    first, second = keep("resnet18"), keep("resnet34")
    name = first.folder.name
    text = call("clear", name[:8], "--dry-run")
    assert text == f"would remove {name[:12]} (resnet18, 2.0 MB)\n1 cached features, 2.0 MB\n"
    assert first.missing() == []
    assert call("clear", name[:8]).startswith(f"removed {name[:12]} (resnet18, 2.0 MB)\n")
    assert not first.folder.exists()
    assert second.missing() == []
    assert call("clear", second.key, second.folder.name).count("removed") == 1, "the same one, twice"
    assert not second.folder.exists()


def test_clearing_what_was_not_used(call):
    old, new = keep("resnet18", days=40), keep("resnet34", days=20)
    assert "nothing to remove" in call("clear", "--older-than", 50)
    assert call("clear", "--older-than", 30).startswith(f"removed {old.folder.name[:12]}")
    assert not old.folder.exists()
    assert new.missing() == []
    call("clear", "--all")
    assert not list(features_folder().iterdir())


def test_features_in_use_survive(call):
    shards = keep("resnet18")
    kept = shards.open()
    call("clear", "--all")
    assert not shards.folder.exists()
    (part,), _ = kept.take(range(20))
    assert torch.equal(part, torch.ones(20, 25_000))
    shards.write(0, [torch.ones(10, 25_000)], [torch.ones(1, 1)] * 10)
    assert shards.missing() == [1], "a run that was about to write goes on"


def test_what_is_being_written_stays(call):
    shards = keep("resnet18")
    (shards.folder / ".00001.ab.tmp").write_text("half")
    text = call("clear", "--all")
    assert text.startswith(f"removed {shards.folder.name[:12]} (resnet18, 2.0 MB); not all of it: another process")
    assert [path.name for path in shards.folder.iterdir()] == [".00001.ab.tmp"]
    os.utime(shards.folder / ".00001.ab.tmp", (0, 0))
    call("clear", "--all")
    assert not shards.folder.exists()


def test_nothing_else_is_removed(call, tmp_path):
    shards = keep("resnet18")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("x")
    (features_folder() / ("a" * 32)).symlink_to(outside)
    (shards.folder / "link").symlink_to(outside)
    (features_folder() / "notes").mkdir()
    (features_folder() / ("b" * 32)).write_text("a file")
    call("clear", "--all")
    assert not shards.folder.exists()
    assert (outside / "file").read_text() == "x"
    assert sorted(path.name for path in features_folder().iterdir()) == ["a" * 32, "b" * 32, "notes"]


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], r"expects keys, --older-than DAYS or --all: one of the three"),
        (["--all", "--older-than", "3"], r"one of the three"),
        (["abc", "--all"], r"one of the three"),
        (["--older-than", "-1"], r"--older-than is -1 days; expected 0 or more"),
        (["--older-than", "nan"], r"--older-than is nan days; expected 0 or more"),
        (["zz"], r"the key 'zz' fits no cached features; expected the beginning of one\. zoo cache list names all"),
        ([""], r"the key '' fits no cached features"),
        (["../"], r"the key '\.\./' fits no cached features"),
    ],
)
def test_clearing_without_saying_what(call, argv, text):
    shards = keep("resnet18")
    with pytest.raises(InputError, match=text):
        call("clear", *argv)
    assert shards.missing() == []


def test_a_key_that_fits_several(call):
    first = keep("resnet18")
    number = next(n for n in range(1000) if make_key({"model": str(n)})[0] == first.key[0])
    second = keep(str(number))
    with pytest.raises(InputError, match=rf"fits 2 of the cached features: .*{first.folder.name[:12]}"):
        call("clear", first.key[0])
    assert first.missing() == second.missing() == []
