import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from zoo.engine.frozen import keys as feature_key
from zoo.engine.frozen.keys import (
    feature_folder,
    features_folder,
    find_versions,
    make_key,
    mark_used,
    read_about,
    write_about,
)
from zoo.errors import InputError

ROOT = Path(__file__).parents[3]
FACTS = {"trunk": "ab" * 32, "views": 2, "scale": 0.5, "sizes": [320, 320], "nested": {"a": None, "b": True}}


# ---- the key


def test_a_key_follows_from_the_facts_alone():
    key = make_key(FACTS)
    assert re.fullmatch(r"[0-9a-f]{64}", key)
    assert make_key(dict(reversed(FACTS.items()))) == key
    assert make_key({**FACTS, "sizes": (320, 320)}) == key
    code = "import sys, json; from zoo.engine.frozen.keys import make_key; print(make_key(json.loads(sys.argv[1])))"
    command = [sys.executable, "-c", f"{code}; assert 'torch' not in sys.modules", json.dumps(FACTS)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() == key


@pytest.mark.parametrize(
    "other",
    [
        {"views": 3},
        {"views": 2.0},
        {"views": "2"},
        {"scale": 0.5000000000000001},
        {"sizes": [320, 321]},
        {"nested": {"a": None, "b": 1}},
        {"nested": {"a": False, "b": True}},
        {"more": None},
        {"trunk": "ab" * 31 + "ac"},
    ],
)
def test_another_fact_makes_another_key(other):
    assert make_key({**FACTS, **other}) != make_key(FACTS)


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        (
            {"a": {"b": [1, Path("x")]}},
            r"facts\['a'\]\['b'\]\[1\] is PosixPath\('x'\) \(PosixPath\); expected a string, a finite number, "
            r"True, False, None, or lists and mappings of these\.",
        ),
        ({"a": float("nan")}, r"facts\['a'\] is nan \(float\); expected a string, a finite number"),
        ({"a": np.float64(1)}, r"float64\(1\.0\) \(float64\); expected a string"),
        ({"a": {1: 2}}, r"facts\['a'\] has the name 1; expected a string"),
        (
            {"a": {1}},
            r"is \{1\} \(set\); expected a string, a finite number, True, False, None, or lists and mappings "
            r"of these\.",
        ),
        ({"a": b"x"}, r"of these\."),
    ],
)
def test_facts_that_are_not_plain(facts, text):
    with pytest.raises(InputError, match=text):
        make_key(facts)


def test_versions(monkeypatch):
    found = find_versions()
    assert {"torch", "torchvision", "timm", "transformers", "pillow", "numpy", "zoo", "features", "decoder"} == set(
        found
    )
    assert found["numpy"] == np.__version__
    assert found["features"] == 1
    before = make_key({"versions": found})
    monkeypatch.setattr(feature_key, "FEATURES", 2)
    assert make_key({"versions": find_versions()}) != before
    monkeypatch.setattr(feature_key, "_LIBRARIES", ("no-such-library",))
    assert find_versions()["no-such-library"] is None


# ---- the folder


def test_the_folder_is_below_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    key = make_key(FACTS)
    assert feature_folder(key) == tmp_path / "zoo" / "features" / key[:32]
    assert features_folder() == tmp_path / "zoo" / "features"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["", "../" * 20 + "x" * 4, "/etc", "a" * 63, "A" * 64, "a" * 64 + "\n", "g" * 64])
def test_a_folder_of_something_else(key):
    with pytest.raises(InputError, match=r"is not a feature cache key; expected 64 hexadecimal digits"):
        feature_folder(key)


def test_what_is_written_down(tmp_path):
    assert read_about(tmp_path) == {}
    mark_used(tmp_path)
    assert not list(tmp_path.iterdir())
    write_about(tmp_path, {"model": "resnet18", "images": 7, "where": tmp_path})
    about = read_about(tmp_path)
    assert about.pop("created") > 1_700_000_000
    assert about == {"model": "resnet18", "images": 7, "where": str(tmp_path)}
    os.utime(tmp_path / "about.json", (0, 0))
    mark_used(tmp_path)
    assert (tmp_path / "about.json").stat().st_mtime > 1_700_000_000
    assert [path.name for path in tmp_path.iterdir()] == ["about.json"]
    (tmp_path / "about.json").write_text("[")
    assert read_about(tmp_path) == {}
    write_about(tmp_path / "missing", {"model": "resnet18"})
    assert not (tmp_path / "missing").exists()
