import errno
import os
import stat

import pytest

from zoo.errors import StorageError
from zoo.files.atomic import open_whole, sweep_drafts, write_file


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("content", ["ä", "ä".encode(), memoryview("ä".encode())])
def test_content_is_written(tmp_path, content):
    write_file(tmp_path / "a", content)
    assert (tmp_path / "a").read_text("utf8") == "ä"
    assert names(tmp_path) == ["a"]


def test_a_lone_surrogate_is_written_as_an_escape(tmp_path):
    write_file(tmp_path / "a", "\ud800")
    assert (tmp_path / "a").read_text("utf8") == "\\ud800"


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o002, 0o664), (0o022, 0o644)])
def test_the_mode_is_that_of_the_umask(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        write_file(tmp_path / "a", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def write_and_fail(path, error, **options):
    with open_whole(path, **options) as file:
        file.write(b"new")
        raise error


def test_an_error_in_the_block_leaves_what_was_there(tmp_path):
    write_file(tmp_path / "a", "old")
    with pytest.raises(KeyError):
        write_and_fail(tmp_path / "a", KeyError())
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_what_cannot_be_written_is_told(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")
    expected = r"a cannot be written: No space left on device \(2.0 MB are needed, [\d.,]+ MB are free\)"
    with pytest.raises(StorageError, match=expected):
        write_and_fail(tmp_path / "a", full, needed=2_000_000)
    assert names(tmp_path) == []
    with pytest.raises(StorageError, match="No such file or directory"):
        write_file(tmp_path / "gone" / "a", "")


def test_file_and_folder_are_synced_before_and_after_the_rename(tmp_path, monkeypatch):
    steps = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (steps.append("sync"), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda *paths: (steps.append("rename"), replace(*paths)))
    write_file(tmp_path / "a", "x")
    assert steps == ["sync", "rename", "sync"]


def test_drafts_of_killed_writers_are_swept(tmp_path):
    for name in (".state.pt.01234567.tmp", ".mine", "a.tmp", ".a.0123456.tmp"):
        (tmp_path / name).touch()
    sweep_drafts(tmp_path)
    assert names(tmp_path) == [".a.0123456.tmp", ".mine", "a.tmp"]
    sweep_drafts(tmp_path / "none")
    assert not (tmp_path / "none").exists()
