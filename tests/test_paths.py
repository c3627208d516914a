from pathlib import Path

import pytest

from zoo.paths import to_path


@pytest.mark.parametrize(("given", "expected"), [("~", ""), ("~/a b", "a b")])
def test_the_home_folder_is_expanded(given, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert to_path(given) == tmp_path / expected
    assert to_path(Path(given)) == tmp_path / expected


def test_other_paths_stay():
    assert to_path("a/~/b") == Path("a/~/b")
